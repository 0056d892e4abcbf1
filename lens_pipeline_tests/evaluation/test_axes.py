"""What completeness is told against, and on which grids."""

from collections.abc import Callable

import dagster as dg
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.catalogue import COMPLETENESS_GRID
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.defs.sections import CompletenessSection
from lens_pipeline.evaluation.axes import AXES, with_axes
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]
_RING = {
    "theta_e_arcsec": 1.5, "src_x_arcsec": 0.1, "src_y_arcsec": 0.0, "src_reff_arcsec": 0.4, "psf_fwhm_used_r": 1.2,
    "magnification": 8.0, "arc_snr_matched": 40.0,
}  # fmt: skip


def measured() -> Stamps:
    """Injections whose depth, size and colours are known."""
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 400})
    rng = np.random.default_rng(1)
    n = len(stamps.split)
    lens = np.array(stamps.columns["label"]) == 1
    for name, low, high in (
        ("src_mag_r", 22.0, 25.0), ("src_mag_g", 22.5, 25.5), ("src_reff_arcsec", 0.1, 0.8),
        ("src_x_arcsec", -0.3, 0.3), ("src_y_arcsec", -0.3, 0.3),
    ):  # fmt: skip
        values = rng.uniform(low, high, n)
        stamps.columns[name] = [float(value) if yes else None for value, yes in zip(values, lens, strict=True)]
    stamps.columns["psfdepth_r"] = rng.uniform(500, 2000, n).tolist()
    return stamps


@pytest.fixture
def grids(evaluate: Evaluate) -> pl.DataFrame:
    _, publication = evaluate(measured()).completeness()
    table = publication.read_table("grid")
    COMPLETENESS_GRID.validate(table, where="the test")
    return pl.DataFrame(table)


def test_derived_axes_are_what_their_formulas_say() -> None:
    rows = pl.DataFrame([_RING | {"psfdepth_r": 25.0, "src_mag_g": 24.5, "src_mag_r": 24.0, "lens_model": "SIE"}])
    row = with_axes(rows).row(0, named=True)
    assert row["theta_e_over_fwhm"] == pytest.approx(1.25)
    # A point source of 5 sigma has 5 / sqrt(25) = 1 nanomaggy.
    assert row["depth_mag_r"] == pytest.approx(22.5)
    assert row["src_colour_g_r"] == pytest.approx(0.5)
    assert (row["source_id"], row["is_held_out"]) == (False, False)


@pytest.mark.parametrize("seeing", [0.0, -1.0, float("nan"), None])
def test_seeing_that_is_not_above_zero_is_not_known(seeing: float | None) -> None:
    schema = {"psf_fwhm_used_r": pl.Float64}
    rows = pl.DataFrame([_RING | {"psf_fwhm_used_r": seeing}], schema_overrides=schema)
    row = with_axes(rows).row(0, named=True)
    assert {name: row[name] for name in ("psf_fwhm_used_r", "theta_e_over_fwhm", "is_detectable")} == {
        "psf_fwhm_used_r": None,
        "theta_e_over_fwhm": None,
        "is_detectable": None,
    }


@pytest.mark.parametrize(
    ("changed", "detectable"),
    [
        ({}, True),
        ({"src_x_arcsec": 1.6}, False),
        ({"psf_fwhm_used_r": 2.95}, False),
        ({"magnification": 2.9, "src_reff_arcsec": 0.9}, False),
        ({"src_reff_arcsec": 0.14}, False),
        ({"arc_snr_matched": 20.0}, False),
        ({"arc_snr_matched": None}, None),
        ({"arc_snr_matched": float("nan")}, None),
        ({"psf_fwhm_used_r": float("inf")}, None),
        ({"arc_snr_matched": None, "magnification": 2.0}, False),
    ],
)
def test_an_arc_is_detectable_where_each_criterion_of_collett_is_met(
    changed: dict[str, float | None], detectable: bool | None
) -> None:
    rows = pl.DataFrame([_RING | {"lens_model": "SIE"} | changed])
    assert with_axes(rows)["is_detectable"].to_list() == [detectable]


@pytest.mark.parametrize("absurd", [99.0, -99.0, float("inf"), float("nan"), None])
def test_a_placeholder_for_a_sources_magnitude_is_unknown_and_counted_and_stretches_no_cell(
    evaluate: Evaluate, absurd: float | None
) -> None:
    stamps = measured()
    lenses = np.flatnonzero((np.array(stamps.split) == "test") & (np.array(stamps.columns["label"]) == 1))
    for place in lenses[:40]:
        stamps.columns["src_mag_r"][place] = absurd
    result, _ = evaluate(stamps).completeness()
    rows = pl.DataFrame(result.table).filter(pl.col("operating_point") == "fpr_1e-01")
    for axis in ("src_mag_r", "src_colour_g_r"):
        cells = rows.filter(pl.col("axis") == axis)
        assert dict(cells.select("cell", "n").iter_rows())["unknown"] == 40
        known = cells.filter(pl.col("cell") != "unknown")
        # Sources were drawn from 22 to 25 in r, and 22.5 to 25.5 in g.
        assert known["high"].max() - known["low"].min() <= 6


@pytest.mark.parametrize(("depth", "seeing"), [(0.0, 0.0), (float("inf"), float("nan")), (-1.0, float("inf"))])
def test_a_depth_or_seeing_that_gives_no_finite_value_is_unknown_and_counted_there(
    evaluate: Evaluate, depth: float, seeing: float
) -> None:
    stamps = measured()
    first, second, *_ = np.flatnonzero((np.array(stamps.split) == "test") & (np.array(stamps.columns["label"]) == 1))
    stamps.columns["psfdepth_r"][first], stamps.columns["psf_fwhm_used_r"][second] = depth, seeing
    result, _ = evaluate(stamps).completeness()
    rows = pl.DataFrame(result.table).filter(pl.col("operating_point") == "fpr_1e-01")
    for axis in ("depth_mag_r", "theta_e_over_fwhm"):
        cells = rows.filter(pl.col("axis") == axis)
        assert dict(cells.select("cell", "n").iter_rows())["unknown"] == 1
        assert cells["n"].sum() == 400
        assert np.isfinite(cells.filter(pl.col("cell") != "unknown").select("low", "high").to_numpy()).all()


def test_every_grid_holds_every_injection_once(grids: pl.DataFrame) -> None:
    sums = grids.group_by("operating_point", "grid").agg(pl.col("n", "n_recovered").sum())
    assert set(sums["n"]) == {400}
    assert set(sums.group_by("operating_point").agg(pl.col("n_recovered").n_unique())["n_recovered"]) == {1}
    assert set(sums["grid"]) == {" x ".join(axes) for axes in CompletenessConfig().grids}


def test_a_cell_of_a_grid_is_the_share_recovered_of_what_lies_in_it(evaluate: Evaluate) -> None:
    stamps = measured()
    evaluated = evaluate(stamps)
    config = CompletenessConfig(grids=[["theta_e_arcsec", "src_mag_r"]], edges={"src_mag_r": [22.0, 23.5, 25.0]})
    _, publication = evaluated.completeness(config)
    row = pl.DataFrame(publication.read_table("grid")).row(
        by_predicate=(pl.col("cell") == "1 to 1.25 x 23.5 to 25") & (pl.col("operating_point") == "fpr_1e-01"),
        named=True,
    )
    assert (row["axis_1"], row["low_1"], row["high_1"], row["unit_1"]) == ("theta_e_arcsec", 1.0, 1.25, "arcsec")
    assert (row["axis_2"], row["low_2"], row["unit_2"], row["axis_3"]) == ("src_mag_r", 23.5, "mag", None)
    columns = stamps.columns
    mine = (np.array(stamps.split) == "test") & (np.array(columns["label"]) == 1)
    theta_e, mag = np.array(columns["theta_e_arcsec"]), np.array(columns["src_mag_r"], dtype=float)
    mine &= (theta_e >= 1) & (theta_e < 1.25) & (mag >= 23.5)
    recovered = stamps.logit[mine] > evaluated.fit.table.to_pylist()[0]["threshold"]
    assert (row["n"], row["n_recovered"]) == (mine.sum(), recovered.sum())
    assert row["completeness"] == pytest.approx(recovered.mean())


def test_cells_beyond_what_was_injected_are_out_of_support(evaluate: Evaluate) -> None:
    stamps = measured()
    config = CompletenessConfig(
        theta_e_edges_arcsec=[0.3, 1.0, 2.4, 5.0, 9.0], grids=[["theta_e_arcsec", "psf_fwhm_used_r"]]
    )
    result, publication = evaluate(stamps).completeness(config)
    whole = pl.DataFrame(result.table).filter(pl.col("axis") == "theta_e_arcsec")
    assert dict(whole.select("cell", "in_support").iter_rows()) == {
        "0.3 to 1": True, "1 to 2.4": True, "2.4 to 5": False, "5 to 9": False,
    }  # fmt: skip
    # Injections reach to 2.5, into a cell most of which they don't know.
    assert whole.filter(pl.col("cell") == "2.4 to 5")["n"].min() > 0  # type: ignore[operator]
    cells = pl.DataFrame(publication.read_table("grid"))
    assert not cells.filter(pl.col("low_1") >= 2.4)["in_support"].any()
    assert cells.filter(pl.col("n") == 0)["in_support"].to_list() == [False] * cells.filter(pl.col("n") == 0).height


def test_a_grid_of_an_axis_that_nobody_measured_is_undefined_with_the_reason(survey: Evaluated) -> None:
    _, publication = survey.completeness()
    row = pl.DataFrame(publication.read_table("grid")).filter(
        (pl.col("axis_3") == "depth_mag_r") & (pl.col("operating_point") == "fpr_1e-01")
    )
    assert row["reason"].to_list() == ["depth_mag_r is null for all 800 injections"]
    assert row["completeness"].to_list() == [None]


def test_a_grid_of_too_many_cells_is_refused(evaluate: Evaluate) -> None:
    config = CompletenessConfig(grids=[["src_mag_r", "psf_fwhm_used_r", "src_reff_arcsec"]], n_bins=100)
    with pytest.raises(EvaluationError, match=r"has 126,000 cells .30 x 42 x 100.*fewer bins"):
        evaluate(measured()).completeness(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grids": [["theta_e_arcsec", "colour"]]}, "no axis 'colour'"),
        ({"grids": [["theta_e_arcsec"]]}, "two to 4 different axes"),
        ({"grids": [["arc_snr", "arc_snr"]]}, "two to 4 different axes"),
        ({"grids": [["arc_snr", "src_mag_r"]] * 2}, "given twice"),
        ({"edges": {"lens_model": [1, 2]}}, "no axis that is cut at edges"),
        ({"edges": {"theta_e_arcsec": [1, 2]}}, "set by theta_e_edges_arcsec"),
        ({"edges": {"src_mag_r": [25, 22]}}, "must rise"),
    ],
)
def test_axes_and_edges_that_make_no_sense_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CompletenessConfig.model_validate(settings)


def test_edges_and_grids_can_be_set_where_runs_are_configured() -> None:
    given = {"edges": {"src_mag_r": [22.0, 25.0]}, "grids": [["theta_e_arcsec", "lens_model"]]}
    seen = []

    @dg.op
    def look(config: CompletenessSection) -> None:
        seen.append(config)

    @dg.job
    def looking() -> None:
        look()

    looking.execute_in_process(run_config={"ops": {"look": {"config": given}}})
    assert (seen[0].edges, seen[0].grids) == (given["edges"], given["grids"])


def test_every_axis_says_its_label_and_a_unit_that_astropy_knows() -> None:
    from astropy import units

    for axis in AXES.values():
        assert axis.label
        units.Unit(axis.unit)
