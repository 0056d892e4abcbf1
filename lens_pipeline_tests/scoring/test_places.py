"""Galaxies of a table, cut out of a survey's images and scored: each has a logit or the reason why it has none."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from matplotlib.image import imread

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.evaluation.gallery import scored_png
from lens_pipeline.scoring.places import cut_places, score_places
from lens_pipeline.scoring.predict import predict
from lens_pipeline.survey.ccd import read_field
from lens_pipeline.survey.mirror import Galaxy
from lens_pipeline_tests.scoring.conftest import Trained
from lens_pipeline_tests.survey import test_ccd


@pytest.fixture
def exposures(tmp_path: Path) -> Path:
    """Three exposures of 90 pixels."""
    folder = tmp_path / "exposures"
    folder.mkdir()
    test_ccd.write_table(folder, [test_ccd.write_ccd(folder, 100 + i, band) for i, band in enumerate("grz")])
    return folder


@pytest.fixture
def table(exposures: Path, tmp_path: Path) -> Path:
    """One galaxy in the middle, one whose middle is beyond the border of the exposure, one elsewhere on the sky."""
    wcs = read_field(exposures)[1].wcs
    places = [wcs.pixel_to_world_values(x, y) for x, y in ((45, 46), (0, 44))]
    rows = [
        {"galaxy_id": name, "ra": float(ra), "dec": float(dec)}
        for name, (ra, dec) in zip(("in", "edge"), places, strict=True)
    ]
    path = tmp_path / "galaxies.csv"
    Table(rows=[*rows, {"galaxy_id": "away", "ra": 1.0, "dec": 1.0}]).write(path)
    return path


def test_each_galaxy_of_a_table_has_the_logit_of_its_pixels_or_the_reason_why_it_has_none(
    trained: Trained, exposures: Path, table: Path, tmp_path: Path
) -> None:
    classifier = trained.opened()[0]
    out, picture = tmp_path / "scores.parquet", tmp_path / "scores.png"
    tally = score_places(classifier, str(table), str(exposures), out, picture=picture)
    assert (tally.rows, tally.scored, dict(tally.refused)) == (3, 1, {"centre_masked": 1, "outside": 1})
    rows = pq.read_table(out).to_pylist()
    assert [(row["row"], row["task_id"], row["reason"]) for row in rows] == [
        (0, "in", None),
        (1, "edge", "centre_masked"),
        (2, "away", "outside"),
    ]
    galaxy = Table.read(table)[0]
    (place,) = cut_places([Galaxy("in", galaxy["ra"], galaxy["dec"])], str(exposures), classifier.contract)
    assert place.pixels is not None
    assert place.pixels.shape == classifier.contract.stamp_shape
    assert rows[0]["logit"] == predict(classifier, place.pixels).score[0]
    assert imread(picture).ndim == 3


def test_a_galaxy_that_is_refused_is_drawn_all_the_same_where_an_image_holds_it(exposures: Path, table: Path) -> None:
    contract = DatasetContract(stamp_size=32)
    galaxies = [Galaxy(row["galaxy_id"], row["ra"], row["dec"]) for row in Table.read(table)]
    inside, edge, away = cut_places(galaxies, str(exposures), contract)
    assert inside.refusal is None
    assert edge.pixels is not None
    assert edge.refusal is not None
    assert edge.refusal.reason == "centre_masked"
    assert away.pixels is None
    seen = [scored_png([(pixels, ("a", "b"))]) for pixels in (edge.pixels, None)]
    assert seen[0] != seen[1]


def test_what_can_not_be_cut_or_written_is_refused_before_any_work(
    trained: Trained, exposures: Path, table: Path, tmp_path: Path
) -> None:
    classifier = trained.opened()[0]
    out = tmp_path / "scores.parquet"
    with pytest.raises(ConfigError, match=r"there is no file .*none\.csv"):
        score_places(classifier, str(tmp_path / "none.csv"), str(exposures), out)
    with pytest.raises(ConfigError, match=r"there is no folder .*nowhere"):
        score_places(classifier, str(table), str(tmp_path / "nowhere"), out)
    with pytest.raises(ConfigError, match="is there already: name another file for the picture"):
        score_places(classifier, str(table), str(exposures), out, picture=table)
    lacking = tmp_path / "lacking.csv"
    Table({"galaxy_id": ["a"], "ra": [1.0]}).write(lacking)
    with pytest.raises(ContractError, match="has no dec in 1 of 1 rows"):
        score_places(classifier, str(lacking), str(exposures), out)
    assert not out.exists()


def test_a_picture_without_images_and_images_with_two_tables_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--dataset", "sky", "a.npy", "--out", "o.parquet", "--picture", "p.png"]) == 1
    assert "--picture draws galaxies that are cut out of --images" in capsys.readouterr().err
    assert main(["predict", "--dataset", "sky", "a.csv", "b.csv", "--out", "o.parquet", "--images", "x"]) == 1
    assert "--images takes one table of galaxies" in capsys.readouterr().err


@pytest.mark.real_data
def test_of_the_two_real_spirals_one_is_scored_and_the_one_on_the_border_says_why_not(
    trained: Trained, real_data: Path
) -> None:
    field = real_data / "decam_ccds" / "field_disk_galaxy"
    galaxies = [Galaxy("face_on", 28.41927, -16.43589), Galaxy("edge_on", 28.41530, -16.42922)]
    face_on, edge_on = cut_places(galaxies, str(field), DatasetContract())
    assert face_on.pixels is not None
    assert np.isfinite(face_on.pixels).all()
    assert face_on.refusal is None
    assert edge_on.refusal is not None
    assert edge_on.refusal.reason == "centre_masked"
    assert edge_on.pixels is not None


def test_a_galaxy_is_drawn_alike_whether_or_not_half_of_its_stamp_lies_beyond_the_image() -> None:
    y, x = np.mgrid[:32, :32] - 15.5
    galaxy = 0.3 * np.exp(-np.hypot(x, y) / 4)[None] * np.array([0.5, 1, 2])[:, None, None]
    whole = (galaxy + np.random.default_rng(0).normal(0, 0.01, (3, 32, 32))).astype(np.float32)
    half = np.where(x < -4, 0, whole).astype(np.float32)
    drawn = [imread(io.BytesIO(scored_png([(pixels, ("a", "b"))]))) for pixels in (whole, half)]
    right = [picture[:, picture.shape[1] // 2 + 10 :, :3] for picture in drawn]
    assert np.abs(right[0] - right[1]).mean() < 0.01
    assert np.abs(drawn[0] - drawn[1]).mean() > 0.02
