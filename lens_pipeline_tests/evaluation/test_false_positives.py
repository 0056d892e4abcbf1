"""Which negatives are mistaken for lenses, and where."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest

from lens_pipeline.contracts.catalogue import CONTAMINANTS, REGIONS
from lens_pipeline.evaluation.completeness_plots import sky_map_figure, surface_figure
from lens_pipeline.evaluation.figures import figure_png
from lens_pipeline.evaluation.intervals import clopper_pearson
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]
POINT = pl.col("operating_point") == "fpr_1e-01"


def with_rings() -> Stamps:
    """Every fifth control of test is a ring that scores high; two of them are the same pixels."""
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 200})
    control = (np.array(stamps.split) == "test") & (np.array(stamps.columns["label"]) == 0)
    rings = np.flatnonzero(control)[::5]
    stamps.columns["role"] = ["injection" if label else "control" for label in stamps.columns["label"]]
    for i in rings:
        stamps.columns["lens_model"][i] = "RING"
        stamps.columns["role"][i] = "hard_ring"
        stamps.logit[i] = 50
    twin, of = rings[1], rings[0]
    for name in ("galaxy_id", "region_id", "pixel_hash"):
        stamps.columns[name][twin] = stamps.columns[name][of]
    return stamps


@pytest.mark.parametrize("kind", ["RING", "CONTROL"])
def test_each_kind_of_negative_has_its_own_rate_and_copies_count_once(evaluate: Evaluate, kind: str) -> None:
    stamps = with_rings()
    evaluated = evaluate(stamps)
    table = evaluated.completeness()[1].read_table("contaminants")
    CONTAMINANTS.validate(table, where="the test")
    row = pl.DataFrame(table).row(by_predicate=POINT & (pl.col("lens_model") == kind), named=True)
    if kind == "RING":
        assert (row["role"], row["n_negatives"], row["n_false_positives"], row["fpr"]) == ("hard_ring", 39, 39, 1.0)
        assert (row["fpr_low"], row["fpr_high"]) == pytest.approx(clopper_pearson(39, 39))
    else:
        threshold = pl.DataFrame(evaluated.fit.table).row(by_predicate=POINT, named=True)["threshold"]
        mine = (np.array(stamps.split) == "test") & (np.array(stamps.columns["lens_model"]) == "CONTROL")
        assert (row["role"], row["n_negatives"]) == ("control", 160)
        assert row["n_false_positives"] == (stamps.logit[mine] > threshold).sum()


def test_each_region_has_its_false_positives_and_its_injections(evaluate: Evaluate) -> None:
    stamps = with_rings()
    result, publication = evaluate(stamps).completeness()
    table = publication.read_table("regions")
    REGIONS.validate(table, where="the test")
    regions = pl.DataFrame(table).filter(POINT)
    assert regions["n"].sum() == 200
    assert regions["n_negatives"].sum() == 199
    whole = pl.DataFrame(result.table).row(by_predicate=POINT & (pl.col("axis") == "all"), named=True)
    assert regions["n_recovered"].sum() == whole["n_recovered"]
    assert regions.height == 40


def test_a_region_without_negatives_has_no_rate_but_a_reason(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 100, "test": 20})
    for i, (region, label) in enumerate(zip(stamps.columns["region_id"], stamps.columns["label"], strict=True)):
        if region == "test-r0" and label == 0:
            stamps.columns["label"][i] = 1
            stamps.columns["lens_model"][i] = "SIE"
            stamps.columns["theta_e_arcsec"][i] = 1.0
    regions = pl.DataFrame(evaluate(stamps).completeness()[1].read_table("regions"))
    row = regions.filter(pl.col("region_id") == "test-r0").row(0, named=True)
    assert (row["n_negatives"], row["fpr"], row["fpr_reason"]) == (0, None, "there are no rows")


def test_figures_are_drawn_of_what_was_measured_and_of_nothing(survey: Evaluated) -> None:
    _, publication = survey.completeness()
    grid = pl.DataFrame(publication.read_table("grid")).filter(POINT)
    regions = pl.DataFrame(publication.read_table("regions")).filter(POINT)
    figures = [
        surface_figure(grid.filter(pl.col("grid") == "theta_e_arcsec x psf_fwhm_used_r")),
        surface_figure(grid.filter(pl.col("axis_3") == "depth_mag_r")),
        sky_map_figure(regions),
        sky_map_figure(regions.with_columns(ra=pl.lit(10.0) + regions["n"] / 10, dec=pl.lit(5.0))),
    ]
    pictures = [figure_png(figure) for figure in figures]
    assert all(png.startswith(b"\x89PNG") for png in pictures)
    assert len(set(pictures)) == len(pictures)
