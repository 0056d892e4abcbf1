from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import NOISELESS_ARCS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.arcs import iterate_arcs

from .conftest import Survey, real_config

FAKES = {"fake_turned_share": 1.0, "hard_ring_share": 1.0, "null_flux_share": 1.0}


def pixels_of(stamps: Publication) -> dict[str, NDArray[np.float32]]:
    contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
    found = {}
    for fragment in stamps.attributes["fragments"]:
        for row in read_parquet(stamps.path(fragment["file"]), ["task_id", "stamp_npz"]).to_pylist():
            stamp = decode_blob(row["stamp_npz"], contract)
            assert isinstance(stamp, Stamp)
            found[row["task_id"]] = stamp.pixels
    return found


@pytest.fixture
def injected(survey: Survey, cubes: Callable[..., Path]) -> tuple[Publication, Publication]:
    """A manifest of real cutouts, and its stamps with their arcs."""
    parent = survey.parents(real_config(cubes()))
    manifest = survey.manifest(parent, injections_per_galaxy=8, **FAKES)
    return manifest, survey.stamps(parent, manifest, rows_per_fragment=16, noiseless_arcs=True)


def test_an_injection_less_its_control_less_its_arc_is_the_noise_of_the_arc_alone(
    injected: tuple[Publication, Publication],
) -> None:
    manifest, stamps = injected
    pixels, arcs = pixels_of(stamps), dict(iterate_arcs(stamps))
    rows = [row for row in manifest.read_table().to_pylist() if row["role"] == "injection"]
    assert len(rows) == 24
    for row in rows:
        arc = arcs[row["task_id"]].astype(float)
        added = pixels[row["task_id"]].astype(float) - pixels[row["pair_id"]]
        residual = added - arc
        dark = arc < 1e-6 * arc.max()
        assert np.abs(residual[dark]).max(initial=0) < 0.05 * arc.max()
        # Poisson noise of the arc: its sum over the stamp is small against the arc's, and none of the arc is left.
        assert abs(residual.sum()) < 0.2 * arc.sum()
        assert abs((residual * arc).sum()) < 0.2 * (arc * arc).sum()
        assert np.abs(residual).max() > 0


def test_all_that_light_was_added_to_is_there_and_nothing_else(injected: tuple[Publication, Publication]) -> None:
    manifest, stamps = injected
    lit = [row["task_id"] for row in manifest.read_table().to_pylist() if row["role"] != "control"]
    assert [task_id for task_id, _ in iterate_arcs(stamps)] == lit
    assert manifest.read_table("null_flux").num_rows == 3
    for file in stamps.attributes["noiseless_arcs"]:
        table = read_parquet(stamps.path(file["file"]))
        NOISELESS_ARCS.validate(table, where="the arcs")
        assert table.num_rows == file["rows"]


def test_an_arc_has_the_flux_that_its_row_says(injected: tuple[Publication, Publication]) -> None:
    _, stamps = injected
    said = {}
    for fragment in stamps.attributes["fragments"]:
        table = read_parquet(stamps.path(fragment["file"]), ["task_id", "total_injected_flux_r"])
        said |= {row["task_id"]: row["total_injected_flux_r"] for row in table.to_pylist()}
    sums = {task_id: float(arc[1].sum(dtype=float)) for task_id, arc in iterate_arcs(stamps)}
    known = {task_id: flux for task_id, flux in said.items() if flux is not None}
    assert len(known) == 24
    assert {task_id: sums[task_id] for task_id in known} == pytest.approx(known, rel=1e-5)


def test_arcs_change_no_stamp_and_no_store_takes_them_in(survey: Survey, small: dict[str, Publication]) -> None:
    inputs = small["parent_sample"], small["injection_manifest"]
    stamps = survey.stamps(*inputs, rows_per_fragment=16, noiseless_arcs=True)
    assert stamps.attributes["fragments"] == small["stamps"].attributes["fragments"]
    assert Fragments.open(stamps).n_rows == 36


def test_stamps_without_arcs_say_how_to_make_them(small: dict[str, Publication]) -> None:
    with pytest.raises(StorageError, match=r"Set stamps.noiseless_arcs: true"):
        next(iterate_arcs(small["stamps"]))
