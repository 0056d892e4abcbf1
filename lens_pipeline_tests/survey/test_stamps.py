import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey import stamps as stamps_module
from lens_pipeline.survey.render import MEASURES

from .conftest import Survey


def rows_of(stamps: Publication) -> pa.Table:
    return pa.concat_tables([read_parquet(stamps.path(f["file"])) for f in stamps.attributes["fragments"]])


def test_every_manifest_row_becomes_one_row_in_order(small: dict[str, Publication]) -> None:
    made = rows_of(small["stamps"])
    STAMPS.validate(made, where="the stamps")
    asked = small["injection_manifest"].read_table()
    assert made.select(asked.column_names).equals(asked)
    assert [f["rows"] for f in small["stamps"].attributes["fragments"]] == [16, 16, 4]
    assert set(made["cutout_ok"].to_pylist()) == {1}


def test_the_fragments_are_listed_as_they_are_and_open_as_the_store_opens_them(small: dict[str, Publication]) -> None:
    stamps = small["stamps"]
    for fragment in stamps.attributes["fragments"]:
        assert sha256_of(stamps.path(fragment["file"])) == fragment["sha256"]
    assert Fragments.open(stamps).n_rows == 36


def test_blobs_are_read_by_numpy_as_three_float32_planes(small: dict[str, Publication]) -> None:
    for blob in rows_of(small["stamps"])["stamp_npz"].to_pylist()[:4]:
        with np.load(io.BytesIO(blob), allow_pickle=False) as planes:
            assert sorted(planes) == ["image_g", "image_r", "image_z"]
            assert all(plane.shape == (64, 64) and plane.dtype == np.float32 for plane in planes.values())


def test_pixels_depend_neither_on_the_cut_into_fragments_nor_on_the_number_of_processes(
    survey: Survey, small: dict[str, Publication]
) -> None:
    other = survey.stamps(small["parent_sample"], small["injection_manifest"], rows_per_fragment=7, workers=2)
    assert len(other.attributes["fragments"]) == 6
    assert rows_of(other).equals(rows_of(small["stamps"]))


def test_another_seed_makes_other_noise(survey: Survey, small: dict[str, Publication]) -> None:
    other = survey.stamps(small["parent_sample"], small["injection_manifest"], seed=5)
    assert rows_of(other)["stamp_npz"].to_pylist()[0] != rows_of(small["stamps"])["stamp_npz"].to_pylist()[0]


def test_arcs_have_measures_and_controls_have_none(small: dict[str, Publication]) -> None:
    for row in rows_of(small["stamps"]).drop_columns(["stamp_npz"]).to_pylist():
        known = [row[name] is not None for name in MEASURES]
        assert known == [row["lens_model"] != "CONTROL"] * len(MEASURES)
        assert row["psf_fwhm_used_r"] > row["psfsize_r"]


def test_injections_without_flux_are_stamped_beside_the_fragments(
    survey: Survey, small: dict[str, Publication]
) -> None:
    manifest = survey.manifest(small["parent_sample"], null_flux_share=1.0)
    stamps = survey.stamps(small["parent_sample"], manifest, rows_per_fragment=7)
    files = [fragment["file"] for fragment in stamps.attributes["null_flux"]]
    assert files == ["null_flux-00000.parquet", "null_flux-00001.parquet"]
    assert Fragments.open(stamps).n_rows == 24
    probes = pa.concat_tables([read_parquet(stamps.path(file)) for file in files])
    assert probes["task_id"].to_pylist() == manifest.read_table("null_flux")["task_id"].to_pylist()
    assert set(probes["total_injected_flux_r"].to_pylist()) == {0.0}
    assert small["stamps"].attributes["null_flux"] == []


def test_a_rendering_process_that_dies_is_a_clear_error_and_nothing_is_published(
    survey: Survey, small: dict[str, Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stamps_module._jobs

    def unknown_galaxy(*arguments: object) -> object:
        for job in real(*arguments):  # type: ignore[arg-type]
            yield {**job, "galaxies": {}}

    monkeypatch.setattr(stamps_module, "_jobs", unknown_galaxy)
    with pytest.raises(
        PipelineError, match=r"a rendering process ended with code 1 while it made fragment-\d+.parquet"
    ):
        survey.stamps(small["parent_sample"], small["injection_manifest"], rows_per_fragment=7, workers=2)
    assert survey.home.versions("test", "stamps") == []
    assert not list(Path(survey.home.path).rglob("fragment-*"))


def test_a_rendering_process_ends_with_its_input(small: dict[str, Publication]) -> None:
    settings = {
        "config": {}, "source": "simulated", "cutouts": None, "psfs": None, "sources": None,
        "dataset_contract": small["injection_manifest"].attributes["dataset_contract"],
    }  # fmt: skip
    worker = stamps_module._Worker(settings)
    assert worker._process.stdin is not None
    worker._process.stdin.close()
    assert worker._process.wait(timeout=60) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(worker._process.pid, 0)
    assert worker._process.stdout is not None
    worker._process.stdout.close()
