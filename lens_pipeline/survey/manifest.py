"""The injection manifest: one row per stamp to make, with its key, its galaxy and its lens, or CONTROL.

Belongs here: which rows there are and how they are named. What is drawn for a row is in `priors.py`, how many are drawn side by
side in `drawing.py`; a survey's own rows are read in `external_manifest.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lens_pipeline.contracts.catalogue import INJECTION_DESIGN
from lens_pipeline.storage.pace import Tell
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import InjectionConfig, Source
from lens_pipeline.survey.design import Design, with_splits
from lens_pipeline.survey.design_report import TABLE
from lens_pipeline.survey.drawing import draw_manifest
from lens_pipeline.survey.external_manifest import write_external_manifest
from lens_pipeline.survey.features import draw_feature
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.priors import SOURCE_COLUMNS, control_row, draw_injection
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import RealSources
from lens_pipeline.survey.roles import (
    ARC_COLUMNS,
    BLOB,
    CONTROL,
    CONTROL_ROLE,
    FAKES,
    HARD_NEGATIVES,
    INJECTION,
    MERGER,
    NO_LENS,
    NULL_FLUX_PROBE,
    RING,
    SPIRAL,
    TURNED,
    UNLENSED,
    UNPAIRED_CONTROL,
)

_RING_OFFSET = 0.3


@dataclass(frozen=True)
class ManifestResult:
    """What a manifest holds."""

    n_rows: int
    n_injections: int
    n_controls: int
    n_unlabelled: int


def build_manifest(
    config: InjectionConfig, parent: Publication, staging: Staging, tell: Tell | None = None
) -> ManifestResult:
    """Write the manifest of a parent sample: a control and its injections for each galaxy, or a survey's own rows.

    Parameters
    ----------
    parent : Publication
        The parent sample; its source says which way is taken.
    tell : callable, optional
        Takes a line about every ten seconds that says how far it has come; by default the log.

    Raises
    ------
    ContractError
        If a survey's own rows don't follow the contract.
    ConfigError
        If a density can't be normalised, a cell's floor can't be met, or real sources can't be had, or a split
        that the design decides has no galaxy.
    """
    for name in ("source", "dataset_contract"):
        staging.attributes[name] = parent.attributes[name]
    if parent.attributes["source"] == Source.external_stamps.value:
        counts = write_external_manifest(parent, staging.folder / f"{staging.asset}.parquet")
    else:
        sources = RealSources.of(config)
        galaxies = parent.read_table(columns=["z_lens", "region_id"])
        hosts = Hosts.of(config, galaxies["z_lens"].to_pylist(), sources.ids)
        hosts = with_splits(config, hosts, galaxies["region_id"].to_pylist())
        design = Design.of(config, hosts)
        sources.publish(staging, design.sources)
        staging.attributes["population"] = design.population.describe()
        staging.attributes["hosts"] = hosts.as_attributes()
        drawn = draw_manifest(design, hosts, parent, staging, tell)
        counts = drawn.labels
        staging.attributes["rows_of_no_weight"] = drawn.n_of_no_weight
        staging.attributes["roles"] = dict(sorted(drawn.roles.items()))
        staging.write_table(TABLE, drawn.tally.table(), INJECTION_DESIGN)
    unlabelled = sum(n for label, n in counts.items() if label is None)
    controls = sum(counts.get(name, 0) for name in (CONTROL, *NO_LENS))
    total = sum(counts.values())
    return ManifestResult(total, total - controls - unlabelled, controls, unlabelled)


def rows_of_galaxy(design: Design | InjectionConfig, galaxy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name and draw the stamps of one galaxy: its control, its injections, which share that control, and their fakes.

    Parameters
    ----------
    design : Design or InjectionConfig
        Settings stand for the design of a survey of this galaxy alone.
    galaxy : dict
        A row of the parent sample.
    """
    if isinstance(design, InjectionConfig):
        design = Design.of(design, Hosts.of(design, [galaxy.get("z_lens")]))
    host, name = _host(design, galaxy), galaxy["galaxy_id"]
    control_id = f"{name}-c"
    alone = chosen(design, UNPAIRED_CONTROL, name, design.config.unpaired_control_share)
    role = UNPAIRED_CONTROL if alone else CONTROL_ROLE
    yield {"task_id": control_id, **host, "pair_id": None, "role": role, **control_row()}
    yield from hard_negatives_of(design, host)
    if alone:
        return
    injections = [
        {
            "task_id": task_id,
            **host,
            "pair_id": control_id,
            "role": INJECTION,
            **draw_injection(design, galaxy, task_id),
        }
        for task_id in (f"{name}-i{number:04d}" for number in range(design.config.injections_per_galaxy))
    ]
    yield from injections
    for injection in injections:
        yield from fakes_of(design, injection)


def fakes_of(design: Design, injection: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name the fakes that imitate an injection; which, its own key says.

    An arc that is nearly a ring isn't turned, since it would look like itself.
    """
    config = design.config
    shares = {TURNED: config.fake_turned_share, UNLENSED: config.fake_unlensed_share, BLOB: config.fake_blob_share}
    for role, share in shares.items():
        if not chosen(design, role, injection["task_id"], share) or (role == TURNED and is_ring(injection)):
            continue
        kept = ("region_id", "galaxy_id", "ra", "dec", "z_lens", "region_split")
        twin = {name: injection[name] for name in ("lens_model", "theta_e_arcsec", *ARC_COLUMNS, *SOURCE_COLUMNS)}
        yield {
            "task_id": f"{injection['task_id']}-{role.removeprefix('fake_')}",
            **{name: injection[name] for name in kept},
            "pair_id": None,
            "role": role,
            **control_row(FAKES[role]),
            "fake_of": injection["task_id"],
            "twin": twin,
        }


def hard_negatives_of(design: Design, host: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name and draw the rings, spirals and mergers of a galaxy; which, its name says."""
    config = design.config
    shares = {RING: config.hard_ring_share, SPIRAL: config.hard_spiral_share, MERGER: config.hard_merger_share}
    for role, share in shares.items():
        if chosen(design, role, host["galaxy_id"], share):
            task_id = f"{host['galaxy_id']}-{role.removeprefix('hard_')}"
            feature = draw_feature(design, task_id, role)
            none = control_row(HARD_NEGATIVES[role])
            yield {"task_id": task_id, **host, "pair_id": None, "role": role, **none, "feature": feature}


def is_ring(injection: dict[str, Any]) -> bool:
    """Whether an arc closes, or nearly: its source lies within 0.3 Einstein radii of the centre, or reaches the centre."""
    offset = float(np.hypot(injection["src_x_arcsec"], injection["src_y_arcsec"]))
    return bool(offset < max(_RING_OFFSET * injection["theta_e_arcsec"], injection["src_reff_arcsec"]))


def null_flux_rows(design: Design, galaxy: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Name and draw the injection of a galaxy that is made without flux, if it has one."""
    name = galaxy["galaxy_id"]
    if chosen(design, NULL_FLUX_PROBE, name, design.config.null_flux_share):
        task_id = f"{name}-n0000"
        drawn = draw_injection(design, galaxy, task_id)
        yield {"task_id": task_id, **_host(design, galaxy), "pair_id": f"{name}-c", "role": NULL_FLUX_PROBE, **drawn}


def chosen(design: Design, what: str, key: str, share: float) -> bool:
    """Whether a key is among a share of all keys, by a hash."""
    return share > 0 and float(stream(design.config.seed, what, key).random()) < share


def _host(design: Design, galaxy: dict[str, Any]) -> dict[str, Any]:
    """Return what every row says of its galaxy; a redshift that was only assumed isn't its own, and stays null."""
    return {name: galaxy[name] for name in ("region_id", "galaxy_id", "ra", "dec")} | {
        "z_lens": galaxy.get("z_lens"),
        "region_split": design.split_of(galaxy["region_id"]),
    }
