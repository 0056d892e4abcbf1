"""What others import and read: the selection function, and tables in their formats."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import Column, MaskedColumn, Table
from astropy.utils.masked import Masked

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.cells import cut_axis, in_support
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.exports import export_files
from lens_pipeline.evaluation.selection_function import FILE, SelectionFunction
from lens_pipeline.evaluation.wording import number
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps
from lens_pipeline_tests.evaluation.test_axes import measured

GRID = ("theta_e_arcsec", "psf_fwhm_used_r")


@pytest.fixture(scope="module")
def published(survey: Evaluated) -> Publication:
    return survey.completeness()[1]


@pytest.fixture(scope="module")
def grid(published: Publication) -> pl.DataFrame:
    rows = pl.DataFrame(published.read_table("grid"))
    return rows.filter((pl.col("grid") == " x ".join(GRID)) & (pl.col("operating_point") == "fpr_1e-02"))


def test_a_point_has_the_completeness_and_interval_of_its_cell(published: Publication, grid: pl.DataFrame) -> None:
    function = SelectionFunction.load(published, operating_point="fpr_1e-02")
    cell = grid.sort("n").row(-1, named=True)
    theta_e = np.array([cell["low_1"], (cell["low_1"] + cell["high_1"]) / 2])
    found = function.evaluate(theta_e_arcsec=theta_e, psf_fwhm_used_r=(cell["low_2"] + cell["high_2"]) / 2)
    assert found.value.tolist() == [cell["completeness"]] * 2
    assert found.low.tolist() == [cell["completeness_low"]] * 2
    assert found.high.tolist() == [cell["completeness_high"]] * 2
    assert found.in_support.all()
    assert function.units == ("arcsec", "arcsec")


def test_every_cell_of_the_grid_is_found_again(published: Publication, grid: pl.DataFrame) -> None:
    function = SelectionFunction.load(published, operating_point="fpr_1e-02")
    middle = [((grid[f"low_{i}"] + grid[f"high_{i}"]) / 2).to_numpy() for i in (1, 2)]
    found = function.evaluate(extrapolate=True, theta_e_arcsec=middle[0], psf_fwhm_used_r=middle[1])
    assert np.array_equal(
        found.value, grid["completeness"].cast(pl.Float64).fill_null(np.nan).to_numpy(), equal_nan=True
    )
    assert found.in_support.tolist() == grid["in_support"].to_list()
    assert np.array_equal(found.n_eff, grid["n_eff"].cast(pl.Float64).fill_null(np.nan).to_numpy(), equal_nan=True)


def test_cells_of_few_injections_are_marked_as_in_the_table(published: Publication) -> None:
    cells = pl.DataFrame(published.read_table()).filter(
        (pl.col("axis") == "theta_e_arcsec") & (pl.col("operating_point") == "fpr_1e-02") & pl.col("in_support")
    )
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"], operating_point="fpr_1e-02")
    found = function.evaluate(theta_e_arcsec=((cells["low"] + cells["high"]) / 2).to_numpy())
    assert set(found.is_small.tolist()) == {True, False}
    assert found.is_small.tolist() == (cells["status"] == "small").to_list()
    assert found.n_eff.tolist() == cells["n_eff"].to_list()


def test_a_smooth_fit_is_small_where_fewer_injections_than_the_setting_asks_for_speak_of_a_point(
    survey: Evaluated,
) -> None:
    _, published = survey.completeness(CompletenessConfig(fit_axes=["theta_e_arcsec"], min_n_eff=150))
    fit = SelectionFunction.load(published, smooth=True)
    found = fit.evaluate(theta_e_arcsec=np.linspace(0.45, 2.35, 30)[:, None])
    assert found.n_eff.shape == found.is_small.shape == found.value.shape == (30, 1)
    assert 0 < found.n_eff.min() < 150 < found.n_eff.max() < 800
    assert (found.is_small == (found.n_eff < 150)).all()


def test_the_last_edge_belongs_to_the_last_cell(published: Publication) -> None:
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"])
    found = function.evaluate(extrapolate=True, theta_e_arcsec=[2.3, 2.5])
    assert found.value[0] == found.value[1]


@pytest.mark.parametrize("upper", [2.9, 3.1])
def test_support_ends_where_injections_do_wherever_the_last_edge_lies(survey: Evaluated, upper: float) -> None:
    _, published = survey.completeness(CompletenessConfig(theta_e_edges_arcsec=[0.1, 1.0, 2.0, upper]))
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"])
    found = function.evaluate(extrapolate=True, theta_e_arcsec=[0.2, 2.2, 2.4, 2.55, 2.85])
    assert found.in_support.tolist() == [False, True, True, False, False]
    with pytest.raises(EvaluationError, match=r"It reaches over theta_e_arcsec 0\.[34]\d* to 2\.4\d*, "):
        function.evaluate(theta_e_arcsec=2.85)


def test_the_default_threshold_is_the_one_that_the_report_leads_with(published: Publication) -> None:
    assert SelectionFunction.load(published).operating_point == "fpr_1e-02"


def test_a_point_where_nothing_was_injected_is_refused_unless_asked_for(published: Publication) -> None:
    function = SelectionFunction.load(published)
    points = {"theta_e_arcsec": [1.1, 4.0], "psf_fwhm_used_r": 1.25}
    with pytest.raises(
        EvaluationError, match=r"1 of 2 points lie where no injection was attempted: theta_e_arcsec 4\.0"
    ):
        function.evaluate(**points)
    found = function.evaluate(extrapolate=True, **points)
    assert found.in_support.tolist() == [True, False]
    assert np.isfinite(found.value).all()


def test_all_lenses_are_refused_where_nobody_knows_what_the_parent_sample_loses(published: Publication) -> None:
    with pytest.raises(EvaluationError, match=r"parent sample's losses aren't known.*total_reason"):
        SelectionFunction.load(published).evaluate(theta_e_arcsec=1.1, psf_fwhm_used_r=1.25, of_all_lenses=True)


def test_names_on_an_axis_are_asked_by_name(published: Publication) -> None:
    function = SelectionFunction.load(published, axes=["lens_model"])
    assert function.evaluate(lens_model="SIE").value > 0
    with pytest.raises(EvaluationError, match="lens_model has no EPL; it has SIE"):
        function.evaluate(lens_model="EPL")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"theta_e_arcsec": 1.0}, "asked at theta_e_arcsec, psf_fwhm_used_r"),
        ({"theta_e_arcsec": float("nan"), "psf_fwhm_used_r": 1.2}, "1 of 1 values of theta_e_arcsec are not finite"),
    ],
)
def test_points_that_make_no_sense_are_refused(published: Publication, points: dict[str, float], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        SelectionFunction.load(published).evaluate(**points)


@pytest.mark.parametrize(
    "given",
    [
        [0.01, 0.02] * units.arcmin,
        [0.01 * units.arcmin, 1.2 * units.arcsec],
        Column([0.01, 0.02], unit="arcmin"),
        MaskedColumn([0.6, 1.2], mask=[False, False]),
        Masked([0.01, 0.02] * units.arcmin),
    ],
)
def test_values_with_a_unit_are_converted_to_that_of_the_axis(published: Publication, given: Any) -> None:
    function = SelectionFunction.load(published, axes="theta_e_arcsec")
    plain = function.evaluate(theta_e_arcsec=[0.6, 1.2])
    assert plain.value[0] != plain.value[1]
    assert function.evaluate(theta_e_arcsec=given).value.tolist() == plain.value.tolist()


@pytest.mark.parametrize("unit", ["mag", "mag(AB)"])
def test_magnitudes_may_say_that_they_are_ab(evaluate: Callable[[Stamps], Evaluated], unit: str) -> None:
    function = SelectionFunction.load(evaluate(measured()).completeness()[1], axes=["src_mag_r"])
    found = function.evaluate(src_mag_r=Column([23.1, 24.2], unit=unit))
    assert found.value.tolist() == function.evaluate(src_mag_r=[23.1, 24.2]).value.tolist()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ma.array([0.6, 1.2], mask=[False, True]), "1 of 2 values of theta_e_arcsec are masked"),
        (MaskedColumn([0.6, 1.2], mask=[True, True], unit="arcmin"), "2 of 2 values of theta_e_arcsec are masked"),
        (Masked([0.6, 1.2] * units.arcsec, mask=[False, True]), "1 of 2 values of theta_e_arcsec are masked"),
        (1.2 * units.kpc, "theta_e_arcsec is asked in arcsec, and was given in kpc, which can't be converted"),
    ],
)
def test_masked_values_and_other_units_are_refused(published: Publication, given: Any, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        SelectionFunction.load(published, axes=["theta_e_arcsec"]).evaluate(theta_e_arcsec=given)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("1.0", "1 of 1 values of theta_e_arcsec are no real numbers: '1.0'"),
        (["0.6", "1.2"], "2 of 2 values of theta_e_arcsec are no real numbers: '0.6', '1.2'"),
        (np.array(["0.6", 1.2], dtype=object), "1 of 2 values of theta_e_arcsec are no real numbers: '0.6'"),
        ([0.6, None], "1 of 2 values of theta_e_arcsec are no real numbers: None"),
        ([0.6 + 1j, 1.2], r"1 of 2 values of theta_e_arcsec are no real numbers: \(0.6\+1j\)"),
        ([1, 1.2, "x", 2], "1 of 4 values of theta_e_arcsec are no real numbers: 'x'"),
        ((0.6, "x"), "1 of 2 values of theta_e_arcsec are no real numbers: 'x'"),
        ([[0.6, 1.2], [0.6]], r"2 of 2 values of theta_e_arcsec are no real numbers: \[0.6, 1.2\], \[0.6\]"),
        (True, "1 of 1 values of theta_e_arcsec are no real numbers: True"),
        ([1.2, False], "1 of 2 values of theta_e_arcsec are no real numbers: False"),
        (np.array([True, False]), "2 of 2 values of theta_e_arcsec are no real numbers: True, False"),
        ([1.2 * units.arcsec, "x"], "1 of 1 values of theta_e_arcsec are no real numbers: 'x'"),
        ((0.6 + 1j) * units.arcsec, "1 of 1 values of theta_e_arcsec are no real numbers"),
        (np.datetime64("2026-01-01"), "1 of 1 values of theta_e_arcsec are no real numbers"),
    ],
)
def test_what_is_no_real_number_is_refused_on_an_axis_of_numbers(published: Publication, given: Any, says: str) -> None:
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"])
    with pytest.raises(EvaluationError, match=f"{says}.*asked in arcsec. Next: give numbers"):
        function.evaluate(theta_e_arcsec=given)


def test_numbers_of_any_kind_are_the_same_numbers(published: Publication) -> None:
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"])
    wanted = function.evaluate(theta_e_arcsec=[1.0, 2.0]).value.tolist()
    for given in (
        [1, 2],
        [np.array(1.0), np.int32(2)],
        np.array([1, 2.0], dtype=object),
        pl.Series([1.0, 2.0]),
        np.float32([1, 2]),
    ):
        assert function.evaluate(theta_e_arcsec=given).value.tolist() == wanted


@pytest.mark.parametrize(
    "given", [24.5 * units.dex, 24.5 * units.dB, units.Dex(24.5), [24.5 * units.mag, 24.5 * units.dex]], ids=str
)
def test_logarithms_that_are_no_magnitudes_are_refused_and_not_taken_for_minus_61(
    evaluate: Callable[[Stamps], Evaluated], given: Any
) -> None:
    function = SelectionFunction.load(evaluate(measured()).completeness()[1], axes=["src_mag_r"])
    with pytest.raises(
        EvaluationError, match=r"src_mag_r is asked in mag, and was given in (dex|dB).*grows with light"
    ):
        function.evaluate(src_mag_r=given, extrapolate=True)


@pytest.mark.parametrize(
    "given", [23100 * units.mmag, [23.1 * units.ABmag], units.Magnitude(23.1), [23.1 * units.mag]], ids=str
)
def test_magnitudes_of_every_kind_are_magnitudes(evaluate: Callable[[Stamps], Evaluated], given: Any) -> None:
    function = SelectionFunction.load(evaluate(measured()).completeness()[1], axes=["src_mag_r"])
    assert function.evaluate(src_mag_r=given).value.ravel()[0] == function.evaluate(src_mag_r=23.1).value


def test_shapes_that_cannot_be_broadcast_are_refused_with_the_axes_they_are_of(published: Publication) -> None:
    function = SelectionFunction.load(published)
    shapes = r"theta_e_arcsec \(3,\), psf_fwhm_used_r \(2,\)\. Next"
    with pytest.raises(EvaluationError, match=shapes):
        function.evaluate(theta_e_arcsec=[1, 2, 1.5], psf_fwhm_used_r=[1.2, 1.3])
    grid = function.evaluate(theta_e_arcsec=np.array([1, 2, 1.5])[:, None], psf_fwhm_used_r=[1.2, 1.3])
    assert grid.value.shape == (3, 2)


def test_a_cell_that_nothing_was_injected_into_is_small(survey: Evaluated) -> None:
    _, published = survey.completeness(CompletenessConfig(theta_e_edges_arcsec=[0.1, 2.0, 2.8, 3.1], fit_axes=[]))
    function = SelectionFunction.load(published, axes=["theta_e_arcsec"])
    found = function.evaluate(extrapolate=True, theta_e_arcsec=[1.0, 2.9])
    assert np.isnan(found.value).tolist() == np.isnan(found.n_eff).tolist() == [False, True]
    assert found.is_small.tolist() == [False, True]


def test_cells_that_lie_where_nothing_was_injected_are_said_to_reach_nowhere(survey: Evaluated) -> None:
    _, published = survey.completeness(CompletenessConfig(theta_e_edges_arcsec=[5, 6], fit_axes=[]))
    with pytest.raises(
        EvaluationError, match=r"theta_e_arcsec nowhere \(cells 5 to 6, injections 0\.[34]\d* to 2\.4\d*\)"
    ):
        SelectionFunction.load(published, axes=["theta_e_arcsec"]).evaluate(theta_e_arcsec=5.5)


@pytest.mark.parametrize("shared", [0.3, 0.1, 0.7, 1.1, 23.4])
def test_what_all_injections_share_is_in_the_support_that_they_make(shared: float) -> None:
    stored = pl.DataFrame({"src_reff_arcsec": [shared] * 50})
    cut = cut_axis("src_reff_arcsec", stored, None, CompletenessConfig())
    assert cut is not None
    held = np.bincount(cut.stored, minlength=len(cut.cells))
    assert [in_support(cell, int(n)) for cell, n in zip(cut.cells, held, strict=True) if n] == [True]


def test_axes_and_thresholds_that_were_not_counted_are_refused_with_a_list(published: Publication) -> None:
    with pytest.raises(
        EvaluationError, match=r"wasn't told against arc_snr x psf.*theta_e_arcsec x psf.*completeness.grids"
    ):
        SelectionFunction.load(published, axes=["arc_snr", "psf_fwhm_used_r"])
    with pytest.raises(EvaluationError, match="no operating point 'fpr_1'; there are"):
        SelectionFunction.load(published, operating_point="fpr_1")


def test_the_file_alone_is_enough_and_another_file_is_refused(published: Publication, tmp_path: Path) -> None:
    alone = tmp_path / "mine.json"
    shutil.copy(published.path(FILE), alone)
    function = SelectionFunction.load(alone)
    assert function.provenance["scores"] == published.inputs["scores"]
    assert (
        function.evaluate(theta_e_arcsec=1.1, psf_fwhm_used_r=1.25).value
        == SelectionFunction.load(published.folder).evaluate(theta_e_arcsec=1.1, psf_fwhm_used_r=1.25).value
    )
    alone.write_text(json.dumps({"format": 1}))
    with pytest.raises(EvaluationError, match="has the format 1, and 5 is what can be read"):
        SelectionFunction.load(alone)
    alone.write_text("no")
    with pytest.raises(EvaluationError, match="is no selection function"):
        SelectionFunction.load(alone)


def test_ecsv_holds_the_published_table_with_meanings_and_provenance(published: Publication) -> None:
    table = Table.read(published.path("completeness.ecsv"), format="ascii.ecsv")
    cells = pl.DataFrame(published.read_table())
    for name in ("completeness", "n_eff", "low"):
        mine = np.ma.filled(np.ma.asarray(table[name], dtype=float), np.nan)
        assert np.array_equal(mine, cells[name].cast(pl.Float64).fill_null(np.nan).to_numpy(), equal_nan=True)
    assert table["n_quarantined"].mask.sum() == cells["n_quarantined"].null_count()  # type: ignore[attr-defined]
    assert table["completeness"].description == "sum of w x recovered / sum of w"
    assert table.meta["scores"] == published.inputs["scores"]
    assert "population" in table.meta


def test_fits_has_an_extension_an_axis_with_units(published: Publication, grid: pl.DataFrame) -> None:
    with fits.open(io.BytesIO(published.path("completeness.fits").read_bytes())) as hdus:
        hdu = hdus["THETA_E_ARCSEC"]
        units = dict(zip(hdu.columns.names, hdu.columns.units, strict=True))
        assert (units["low"], units["high"], units["completeness"]) == ("arcsec", "arcsec", "")
        both = hdus["THETA_E_ARCSECXPSF_FWHM_USED_R"]
        assert (both.columns["low_2"].unit, both.header["GRID"]) == ("arcsec", " x ".join(GRID))
        mine = both.data[both.data["operating_point"] == "fpr_1e-02"]
        assert mine["n"].tolist() == grid["n"].to_list()
        assert f"scores {published.inputs['scores']}" in list(hdus[0].header["HISTORY"])


def test_latex_has_a_deluxetable_a_threshold_with_each_cell_that_holds_injections(published: Publication) -> None:
    text = published.path("completeness.tex").read_text()
    cells = pl.DataFrame(published.read_table())
    assert text.count(r"\begin{deluxetable}") == text.count(r"\end{deluxetable}") == cells["operating_point"].n_unique()
    assert text.count(r" \\") == cells.filter((pl.col("n") > 0) & (pl.col("status") != "undefined")).height
    row = cells.row(by_predicate=(pl.col("operating_point") == "fpr_1e-02") & (pl.col("axis") == "all"), named=True)
    assert f"${row['completeness']:.3f}_{{-" in text
    assert r"\tablenotemark{*}" in text


def test_every_file_says_what_false_positive_rate_a_threshold_has_on_test(
    survey: Evaluated, published: Publication
) -> None:
    metrics = pl.DataFrame(survey.report()[0].table).filter(pl.col("split") == "test", pl.col("stratum") == "all")
    mine = metrics.row(by_predicate=pl.col("metric") == "fpr_at_fpr_1e-02", named=True)
    told = SelectionFunction.load(published).provenance["thresholds"]["fpr_1e-02"]
    assert (told["fpr"], told["fpr_low"], told["fpr_high"]) == (mine["value"], mine["low"], mine["high"])
    assert told["n_negatives"] == mine["n_negatives"]
    assert Table.read(published.path("completeness.ecsv"), format="ascii.ecsv").meta["thresholds"]["fpr_1e-02"] == told
    line = f"threshold fpr_1e-02: logit above {told['logit']:.6g}, false-positive rate on test "
    line += number(*(mine[name] for name in ("value", "low", "high")))
    with fits.open(io.BytesIO(published.path("completeness.fits").read_bytes())) as hdus:
        assert line in "".join(hdus[0].header["HISTORY"])
    tables = published.path("completeness.tex").read_text().split(r"\end{deluxetable}")
    assert [line.replace("_", r"\_") in table for table in tables] == [
        r"\label{tab:completeness_fpr_1e-02}" in table for table in tables
    ]


def test_latex_says_how_many_injections_of_a_cell_were_never_stored(published: Publication) -> None:
    text = published.path("completeness.tex").read_text()
    assert text.count(r"\nodata & ") > 0
    assert re.search(r"^1 to 1\.25.* & \d+ & 7 & ", text, re.MULTILINE)


def _exported(published: Publication, lens_model: str, **provenance: str) -> dict[str, bytes]:
    """What is exported where the lens model SIE has another name."""
    named = pl.col("cell").replace("SIE", lens_model)
    cells = pl.DataFrame(published.read_table()).with_columns(named)
    return export_files(cells, pl.DataFrame(published.read_table("grid")), {"dataset": "made", **provenance})


def test_a_name_that_is_not_ascii_stands_whole_in_ecsv_and_escaped_in_fits(published: Publication) -> None:
    files = _exported(published, "SIE_γ", population="Σ of both")
    told = Table.read(io.BytesIO(files["completeness.ecsv"]), format="ascii.ecsv")
    assert "SIE_γ" in set(told["cell"])
    with fits.open(io.BytesIO(files["completeness.fits"])) as hdus:
        cells = {str(name) for name in hdus["LENS_MODEL"].data["cell"]}
        assert {name.encode().decode("unicode_escape") for name in cells} == {"SIE_γ"}
        assert r"population \u03a3 of both" in list(hdus[0].header["HISTORY"])


def test_each_character_that_tex_reads_as_its_own_is_escaped_once(published: Publication) -> None:
    text = _exported(published, r"a^b~c{d}e\f_g%h&i#j$k")["completeness.tex"].decode()
    escaped = r"a\textasciicircum{}b\textasciitilde{}c\{d\}e\textbackslash{}f\_g\%h\&i\#j\$k"
    assert f"\n{escaped} & " in text or f"\n{escaped}\\tablenotemark{{*}} & " in text


def test_the_same_completeness_is_the_same_bytes(survey: Evaluated, published: Publication) -> None:
    assert survey.completeness()[1].version == published.version
