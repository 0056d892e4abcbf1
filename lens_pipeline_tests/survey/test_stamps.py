import io

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.render import MEASURES

from .conftest import Survey


def rows_of(stamps: Publication) -> pa.Table:
    return pa.concat_tables([read_parquet(stamps.path(f["file"])) for f in stamps.attributes["fragments"]])


def test_every_manifest_row_becomes_one_row_in_order(small: dict[str, Publication]) -> None:
    made = rows_of(small["stamps"])
    STAMPS.validate(made, where="the stamps")
    asked = small["injection_manifest"].read_table()
    assert made.select(asked.column_names).equals(asked)
    assert sum(f["rows"] for f in small["stamps"].attributes["fragments"]) == 36
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
    assert len(other.attributes["fragments"]) > len(small["stamps"].attributes["fragments"]) > 2
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
    assert files == [f"null_flux-{number:05d}.parquet" for number in range(len(files))]
    assert Fragments.open(stamps).n_rows == 24
    probes = pa.concat_tables([read_parquet(stamps.path(file)) for file in files])
    assert probes["task_id"].to_pylist() == manifest.read_table("null_flux")["task_id"].to_pylist()
    assert set(probes["total_injected_flux_r"].to_pylist()) == {0.0}
    assert small["stamps"].attributes["null_flux"] == []
