"""Stamps that differ from an injection in its arc and in nothing else: what a trained model is asked about.

Belongs here: which injections are taken and how their variants are rendered, from the manifest's own rows by the survey's own
functions, with the noise of the injection. What a model says of them is in `counterfactuals.py`.

Each variant goes through the steps that made the injection's stamp: the same host, neighbours, PSF and random numbers. So two
variants differ by light alone, and by the Poisson noise that this light brings.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import PipelineError, first_few
from lens_pipeline.evaluation.scored_rows import CALIBRATE, open_rows
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.stamps.work import available_cpus
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import Source, StampsConfig
from lens_pipeline.survey.fakes import make_fake
from lens_pipeline.survey.fragment_worker import Renderer, Row
from lens_pipeline.survey.manifest import is_ring
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.render import Arc, Scene, make_arc, make_stamp
from lens_pipeline.survey.roles import BLOB, FAKES, TURNED, UNLENSED
from lens_pipeline.survey.stamp_pairs import parents_of
from lens_pipeline.survey.stamps import worker_settings

INJECTION, REMOVED, HALF_TURN, DISPLACED = "injection", "arc_removed", "arc_half_turn", "arc_displaced"
# Variant to the factor of the arc's flux.
SCALED = {"arc_x0.25": 0.25, "arc_x0.5": 0.5, "arc_x2": 2.0}
FAKE_VARIANTS = (TURNED, UNLENSED, BLOB)
VARIANTS = (INJECTION, REMOVED, HALF_TURN, DISPLACED, *SCALED, *FAKE_VARIANTS)
# Sources whose galaxies are published as pixels or as parameters, so that their stamps can be made again.
_RENDERED = (Source.simulated, Source.real_cutouts, Source.legacy_catalogue)
_COLUMNS: dict[str, pl.DataType] = {
    "pair_id": pl.String(),
    "arc_snr": pl.Float64(),
    "theta_e_arcsec": pl.Float64(),
    "psf_fwhm_used_r": pl.Float64(),
}
# Of a stored pixel: float16 rounds by half of 2^-10, and another machine's FFT moves the last bits before.
_HALF_PRECISION, _OF_NOISE = 2.0**-10, 1e-3

Stamps = NDArray[np.float32]


@dataclass(frozen=True)
class Variants:
    """Injections, each with its variants.

    Attributes
    ----------
    rows : polars.DataFrame
        Of the injections: task_id, logical, logit (of the published scores), galaxy_id, pair_id, arc_snr, theta_e_arcsec,
        psf_fwhm_used_r, and of the host host_x_arcsec, host_y_arcsec and pixel_scale_arcsec.
    pixels : dict
        Variant to (injection, band, y, x) float32 array, nanomaggy; NaN where an injection has no such variant.
    """

    rows: pl.DataFrame
    pixels: dict[str, Stamps]


def are_rendered(stamps: Publication) -> bool:
    """Whether stamps are made here, and so can be made again with another arc; a survey's own come without their arcs' light."""
    return Source(stamps.attributes["source"]) in _RENDERED


def choose_injections(scores: Publication, store: Publication, *, n: int, min_arc_snr: float) -> pl.DataFrame:
    """Take injections of val_calibrate whose arc can be seen, one a galaxy, in the order of a hash of their keys.

    Rows of test stay unread: which galaxies are asked about, and what the answer is, chooses no threshold and no model by them.

    Parameters
    ----------
    n : int
        Most galaxies.
    min_arc_snr : float
        Least peak signal-to-noise of the arc; where the store doesn't know it every injection counts.

    Returns
    -------
    polars.DataFrame
        The columns of `Variants.rows` but those of the host; pair_id is any control of the galaxy where the row names none.
    """
    there = store.entry(f"{store.asset}.parquet").schema or {}
    columns = {name: dtype for name, dtype in _COLUMNS.items() if name in there}
    index = pl.DataFrame(store.read_table(columns=["task_id", "logical", "label", "galaxy_id", *columns])).with_columns(
        *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in _COLUMNS.items() if name not in there)
    )
    controls = index.filter(pl.col("label") == 0).sort("logical").unique("galaxy_id", keep="first")
    of_galaxy = controls.select("galaxy_id", own_control=pl.col("task_id"))
    known = index.drop("logical", "label").join(of_galaxy, on="galaxy_id", how="left")
    known = known.with_columns(pair_id=pl.coalesce("pair_id", "own_control")).drop("own_control")
    rows = open_rows(scores, CALIBRATE).join(known, on="task_id", how="left", validate="1:1", maintain_order="left")
    seen = pl.col("arc_snr").is_null() | (pl.col("arc_snr") >= min_arc_snr)
    one_a_galaxy = (
        rows.filter(pl.col("is_lens") & seen).sort("logical").unique("galaxy_id", keep="first", maintain_order=True)
    )
    return one_a_galaxy.head(n)


def render_variants(
    chosen: pl.DataFrame, stamps: Publication, parent: Publication, manifest: Publication, pixels: StampStore
) -> Variants:
    """Render every variant of some injections.

    Parameters
    ----------
    chosen : polars.DataFrame
        From `choose_injections`.
    pixels : StampStore
        Against which the injections themselves are held.

    Raises
    ------
    PipelineError
        If an injection that is made again isn't the stored one: then its variants would be of another survey.
    """
    keys = chosen["task_id"].to_list()
    config = StampsConfig.model_validate(stamps.manifest.provenance.get("config", {}))
    renderer = Renderer.of(worker_settings(config, parent, manifest))
    wanted = _manifest_rows(manifest, keys)
    known = [name for name in parent.entry(f"{parent.asset}.parquet").schema or {} if name != "galaxy_id"]
    galaxies = parents_of(parent, chosen["galaxy_id"].to_list(), known)
    made = {name: np.full((len(keys), *renderer.contract.stamp_shape), np.nan, np.float32) for name in VARIANTS}

    def render(place: int) -> None:
        row = wanted[keys[place]]
        scene = renderer.scene(galaxies[row["galaxy_id"]])
        for name, arc in _arcs(scene, row, renderer):
            made[name][place] = make_stamp(scene, arc, stream(config.seed, "noise", row["task_id"]))

    # What takes the time lets go of the interpreter's lock.
    with ThreadPoolExecutor(available_cpus()) as pool:
        list(pool.map(render, range(len(keys))))
    _refuse_other_stamps(made[INJECTION], chosen, pixels)
    hosts = [galaxies[wanted[key]["galaxy_id"]] for key in keys]
    places = {
        name: pl.Series([host.get(name) or 0.0 for host in hosts], dtype=pl.Float64)
        for name in ("host_x_arcsec", "host_y_arcsec", "pixel_scale_arcsec")
    }
    return Variants(chosen.with_columns(**places), made)


def _arcs(scene: Scene, row: Row, renderer: Renderer) -> Iterator[tuple[str, Arc]]:
    """Light that each variant adds to the host."""
    pictures = renderer.pictures
    arc = make_arc(scene, row, pictures)
    yield INJECTION, arc
    yield REMOVED, replace(arc, pixels=np.zeros_like(arc.pixels))
    for name, factor in SCALED.items():
        yield name, replace(arc, pixels=factor * arc.pixels)
    yield HALF_TURN, make_arc(scene, half_turned(row), pictures)
    yield DISPLACED, make_arc(displaced(scene, row["task_id"]), row, pictures)
    for role in FAKES:
        if role != TURNED or not is_ring(row):
            yield role, make_fake(scene, {"role": role, "twin": row}, pictures)


def half_turned(row: Row) -> Row:
    """Turn lens and source by 180 degrees about the host: as good a lens, whose images stand where there were none.

    An ellipse and a shear come back to themselves; a source's picture turns.
    """
    turned = {"src_x_arcsec": -row["src_x_arcsec"], "src_y_arcsec": -row["src_y_arcsec"]}
    return row | turned | {"src_phi_rad": row["src_phi_rad"] + np.pi}


def displaced(scene: Scene, key: str) -> Scene:
    """Put the lens without its galaxy a quarter of the stamp away, in a direction that its key says."""
    angle = 2 * np.pi * stream(0, "displaced", key).random()
    distance = scene.grid.stamp_size * scene.grid.pixel_scale_arcsec / 4
    x, y = scene.x_arcsec + distance * np.cos(angle), scene.y_arcsec + distance * np.sin(angle)
    return replace(scene, x_arcsec=float(x), y_arcsec=float(y))


def _manifest_rows(manifest: Publication, keys: Sequence[str]) -> dict[str, Row]:
    wanted = pa.array(keys, pa.string())
    path = manifest.path(f"{manifest.asset}.parquet")
    return {
        row["task_id"]: row
        for batch in iterate_parquet(path)
        for row in batch.filter(pc.is_in(pc.cast(batch["task_id"], pa.string()), value_set=wanted)).to_pylist()
    }


def _refuse_other_stamps(again: Stamps, chosen: pl.DataFrame, pixels: StampStore) -> None:
    stored = pixels.take(chosen["logical"].to_numpy())
    noise = _OF_NOISE * stored.mad[:, :, None, None]
    off = np.abs(again - stored.pixels) > _HALF_PRECISION * np.abs(again) + noise
    if (wrong := np.flatnonzero(off.any(axis=(1, 2, 3)))).size:
        raise PipelineError(
            f"{wrong.size:,} of {len(again):,} injections, rendered again, aren't the stored ones: "
            f"{first_few([chosen['task_id'][int(place)] for place in wrong])}. Stamps or code changed since. "
            "Next: dagster asset materialize --select 'stamps*' -m lens_pipeline.definitions -c PRESET"
        )
