"""The step's side of asking a trained model: stamps to a process that scores them, logits to answers. Imports no torch."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from lens_pipeline.audits.config import ShortcutGatesConfig
from lens_pipeline.audits.counterfactuals import counterfactual_gates, null_logits_gate
from lens_pipeline.audits.evidence import evidence_png, share_gates
from lens_pipeline.audits.gate import Gate
from lens_pipeline.audits.occlusion import Annulus, Image, Stamp, evidence_map
from lens_pipeline.audits.pair_variants import pair_variants
from lens_pipeline.audits.serving_paths import (
    PREDICT,
    PROGRAM,
    RENDERED,
    not_measured,
    path_gate,
    published_blobs,
    validation_path,
)
from lens_pipeline.audits.variants import (
    INJECTION,
    REMOVED,
    Variants,
    are_rendered,
    choose_injections,
    render_variants,
)
from lens_pipeline.scoring.process import compute
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication


@dataclass(frozen=True)
class Audited:
    """What a model is and was made from, published."""

    classifiers: Sequence[Publication]
    scores: Publication
    store: Publication
    stamps: Publication
    parent: Publication
    manifest: Publication


@dataclass(frozen=True)
class Answers:
    """Rows of SHORTCUT_GATES about a model, and a picture of its evidence; None where none was mapped."""

    gates: list[Gate]
    evidence_png: bytes | None


@dataclass(frozen=True)
class _Mapped:
    """Injections whose evidence is mapped, each with the control's pixels and its annulus."""

    keys: list[str]
    stamps: Stamp
    backgrounds: Stamp
    annuli: list[Annulus]


def ask_model(audited: Audited, config: ShortcutGatesConfig) -> Answers:
    """Ask a trained model whether its scores follow arcs, and whether every path gives them.

    Raises
    ------
    PipelineError
        If injections that are rendered again aren't the stored ones, or the process failed.
    """
    scores, store = audited.scores, StampStore.open(audited.store)
    chosen = choose_injections(scores, audited.store, n=config.n_counterfactuals, min_arc_snr=config.min_arc_snr)
    is_rendered = are_rendered(audited.stamps)
    if is_rendered:
        variants = render_variants(chosen, audited.stamps, audited.parent, audited.manifest, store)
    else:
        variants = pair_variants(chosen, store)
    mapped = _to_map(variants, store, config.n_maps)
    for publication in audited.classifiers:
        publication.fetch()
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-audit-") as name:
        folder = Path(name)
        blobs = published_blobs(audited.stamps, scores, folder / "blobs.parquet", config.n_path_rows)
        save_file(variants.pixels, folder / "stamps.safetensors")
        save_file({"stamp": mapped.stamps, "background": mapped.backgrounds}, folder / "evidence.safetensors")
        run = {
            "classifiers": [str(classifier.folder.absolute()) for classifier in audited.classifiers],
            "is_ensemble": bool(scores.attributes.get("members")),
            "tta": bool(scores.attributes.get("tta")),
            "device": config.device.value,
        }
        compute("ask", run, folder, room="audits")
        logits = load_file(folder / "logits.safetensors")
    maps = [evidence_map(logits[f"occluded/{place}"], store.contract.stamp_size) for place in range(len(mapped.keys))]
    limit = config.max_path_difference
    # Made of a control, a stamp without its arc says nothing of what injecting leaves behind.
    removed = logits[REMOVED].astype(np.float64) if is_rendered else np.empty(0)
    controls = _control_logits(variants.rows, scores) if is_rendered else np.empty(0)
    gates = [
        *counterfactual_gates(logits),
        null_logits_gate(removed, controls),
        *share_gates(maps, mapped.annuli),
        *_path_gates(audited, blobs, logits, limit),
        path_gate(RENDERED, variants.rows["logit"].to_numpy(), logits[INJECTION], limit)
        if is_rendered
        else not_measured(RENDERED, "a survey's own stamps can't be rendered again"),
    ]
    return Answers(gates, _picture(mapped, maps))


def _path_gates(audited: Audited, blobs: pl.DataFrame, logits: dict[str, np.ndarray], limit: float) -> list[Gate]:
    scored = blobs["logit"].to_numpy()
    program = (
        path_gate(PROGRAM, scored, logits["program"], limit)
        if "program" in logits
        else not_measured(
            PROGRAM, "a version has no model.pt2, or a score is a mean over turns, which the program isn't"
        )
    )
    return [
        validation_path(audited.scores, audited.classifiers, limit),
        path_gate(PREDICT, scored, logits["predict"], limit),
        program,
    ]


def _control_logits(rows: pl.DataFrame, scores: Publication) -> np.ndarray:
    """Return the published logits of the controls of some injections; NaN where one has none."""
    table = pl.DataFrame(scores.read_table(columns=["task_id", "logit"])).rename({"task_id": "pair_id"})
    joined = rows.select("pair_id").join(table, on="pair_id", how="left", maintain_order="left")
    return joined["logit"].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _to_map(variants: Variants, store: StampStore, n: int) -> _Mapped:
    """Take the first injections whose control is stored."""
    index = pl.DataFrame(store.columns(["task_id", "logical"])).rename({"task_id": "pair_id", "logical": "control"})
    rows = variants.rows.with_row_index("place").join(index, on="pair_id", how="inner", maintain_order="left").head(n)
    annuli = [
        Annulus(
            x=row["host_x_arcsec"] / row["pixel_scale_arcsec"],
            y=row["host_y_arcsec"] / row["pixel_scale_arcsec"],
            radius=row["theta_e_arcsec"] / row["pixel_scale_arcsec"],
            half_width=row["psf_fwhm_used_r"] / row["pixel_scale_arcsec"],
        )
        for row in rows.drop_nulls("psf_fwhm_used_r").iter_rows(named=True)
    ]
    rows = rows.drop_nulls("psf_fwhm_used_r")
    return _Mapped(
        keys=rows["task_id"].to_list(),
        stamps=variants.pixels[INJECTION][rows["place"].to_numpy()],
        backgrounds=store.take(rows["control"].to_numpy()).pixels.astype(np.float32),
        annuli=annuli,
    )


def _picture(mapped: _Mapped, maps: list[Image]) -> bytes | None:
    if not maps:
        return None
    return evidence_png(list(mapped.stamps), maps, mapped.annuli, mapped.keys)
