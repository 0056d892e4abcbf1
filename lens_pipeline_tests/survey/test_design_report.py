import io

import numpy as np
import pytest
from matplotlib.image import imread

from lens_pipeline.contracts.catalogue import INJECTION_DESIGN
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.evaluation.intervals import wilson
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey import proposals
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.design_report import TABLE, design_png, half_width

from .conftest import Survey

STRATIFIED = {"design": "stratified", "population": "velocity_dispersion", "floor_per_cell": 30}


@pytest.fixture
def designed(survey: Survey) -> Publication:
    parent = survey.parents(ParentSampleConfig(n_galaxies=120, n_bricks=10))
    return survey.manifest(parent, injections_per_galaxy=20, **STRATIFIED)


def test_the_report_counts_every_injection_once_on_each_axis(designed: Publication) -> None:
    table = designed.read_table(TABLE)
    INJECTION_DESIGN.validate(table, where="the report")
    rows = table.to_pylist()
    manifest = designed.read_table().to_pylist()
    injections = [row for row in manifest if row["role"] == "injection"]
    for axis in ("all", "theta_e_arcsec", "src_mag_r", "lens_model", "psf_fwhm_r", "cell"):
        cells = [row for row in rows if row["axis"] == axis]
        assert sum(row["n"] for row in cells) == len(injections) == 2400
        assert sum(row["drawn"] for row in cells) == pytest.approx(1)
        assert sum(row["weighted"] for row in cells) == pytest.approx(1)
    named = next(row for row in rows if row["cell"] == "0.75 to 1")
    inside = [row for row in injections if 0.75 <= row["theta_e_arcsec"] < 1]
    w = np.array([row["weight"] for row in inside])
    assert (named["n"], named["n_galaxies"]) == (len(inside), len({row["galaxy_id"] for row in inside}))
    design_effect = 1 + 0.1 * (named["n"] / named["n_galaxies"] - 1)
    assert named["n_eff"] == pytest.approx(w.sum() ** 2 / (w**2).sum() / design_effect)
    assert sum(row["population"] for row in rows if row["axis"] == "theta_e_arcsec") == pytest.approx(1)


def test_the_report_shows_that_weights_undo_the_design(designed: Publication) -> None:
    cells = [row for row in designed.read_table(TABLE).to_pylist() if row["axis"] == "theta_e_arcsec"]
    widest = cells[-1]
    assert widest["drawn"] > 3 * widest["population"]
    for row in cells:
        assert row["weighted"] == pytest.approx(row["population"], abs=5 * row["population"] / np.sqrt(row["n"] / 3))


def test_the_expected_resolution_is_half_an_interval() -> None:
    low, high = wilson(50, 100)
    assert half_width(100) == pytest.approx((high - low) / 2)


def test_a_cell_that_fell_short_is_refused_by_name(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "_MARGIN_SIGMA", -1.5)
    parent = survey.parents(ParentSampleConfig(n_galaxies=60, n_bricks=5))
    with pytest.raises(
        ConfigError, match=r"of 24 cells have fewer than floor_per_cell = 30 injections: S.* with theta_e"
    ):
        survey.manifest(parent, injections_per_galaxy=12, **STRATIFIED)
    assert survey.home.versions("test", "injection_manifest") == []


def test_the_figure_is_drawn_for_any_design(designed: Publication, small: dict[str, Publication]) -> None:
    for manifest in (designed, small["injection_manifest"]):
        assert imread(io.BytesIO(design_png(manifest))).shape[2] in (3, 4)


def test_where_lenses_are_held_out_the_report_and_the_floors_are_of_test_regions(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=120, n_bricks=12))
    held = {"hold_out_lens_models": ["SIS"], "hold_out_test_share": 0.5, "population": "uniform", "seed": 3}
    manifest = survey.manifest(parent, injections_per_galaxy=60, **STRATIFIED | held)
    rows = manifest.read_table(TABLE).to_pylist()
    tested = [row for row in manifest.read_table().to_pylist() if row["role"] == "injection"]
    tested = [row for row in tested if row["region_split"] == "test"]
    whole = next(row for row in rows if row["axis"] == "all")
    assert (whole["n"], whole["n_galaxies"]) == (len(tested), len({row["galaxy_id"] for row in tested}))
    assert min(row["n"] for row in rows if row["axis"] == "cell") >= 30
    in_splits = manifest.attributes["hosts"]["in_splits"]
    assert sum(in_splits.values()) == 120
    assert in_splits["test"] == whole["n_galaxies"]


def test_a_floor_that_few_test_galaxies_cannot_meet_is_refused_before_anything_is_drawn(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=120, n_bricks=12))
    held = {"hold_out_lens_models": ["SIS"], "hold_out_test_share": 0.3, "population": "uniform", "seed": 3}
    with pytest.raises(ConfigError, match=r"a floor of 30 in each of \d+ cells can't be met: .* there are \d+\."):
        survey.manifest(parent, injections_per_galaxy=20, **STRATIFIED | held)


def test_a_split_without_a_region_is_refused_by_name(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=12, n_bricks=2))
    with pytest.raises(
        ConfigError, match=r"no region of 2 is in (train|val|test).*Next: another injection_manifest.seed"
    ):
        survey.manifest(parent, hold_out_lens_models=["SIS"])


def test_injections_that_a_galaxy_cannot_have_are_counted(survey: Survey, designed: Publication) -> None:
    assert designed.attributes["rows_of_no_weight"] == 0
    parent = survey.parents(ParentSampleConfig(n_galaxies=60, n_bricks=5))
    heavy = {"population": "velocity_dispersion", "sigma_v_low_km_s": 400.0, "theta_e_high_arcsec": 3.0}
    manifest = survey.manifest(parent, **heavy, theta_e_low_arcsec=0.3)
    weights = manifest.read_table()["weight"].to_pylist()
    assert manifest.attributes["rows_of_no_weight"] == weights.count(0.0)
