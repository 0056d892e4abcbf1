"""The realism report: every number with its interval or its reason, and differences that are there are told."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.psf_match import moffat_residuals
from lens_pipeline.survey.realism import RealismResult, build_realism, realism_is_complete
from lens_pipeline.survey.realism_arcs import arc_lines, arc_quantity
from lens_pipeline.survey.realism_config import RealismConfig
from lens_pipeline.survey.realism_measures import Sample
from lens_pipeline_tests import survey_like

from .conftest import Survey

REFERENCE = {
    "arc_reference": {"theta_e_arcsec": [0.0, 1.0, 60.0], "g_r": [5.0, 6.0, 7.0]},
    "arc_reference_source": "a test",
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Publication]]:
    """Simulated surveys: one with other galaxies than the first, one whose noise hangs together otherwise."""
    made = {}
    for name, seed, correlation in (("smooth", 1, 0.4), ("other", 2, 0.4), ("rough", 1, 0.0)):
        survey = Survey(Home(tmp_path_factory.mktemp(name)), name)
        noise = {"noise_correlation_low": correlation, "noise_correlation_high": correlation}
        parent = survey.parents(ParentSampleConfig(n_galaxies=40, n_bricks=8, seed=seed, **noise))
        made[name] = {"parent": parent, "stamps": survey.stamps(parent, survey.manifest(parent))}
    return made


def report(
    survey: Survey, made: dict[str, Publication], other: Publication | None = None, **settings: Any
) -> tuple[RealismResult, Publication]:
    config = RealismConfig(**settings)
    with survey.home.stage("test", "realism_report") as staging:
        result = build_realism(config, made["stamps"], made["parent"], other, staging)
        return result, staging.commit()


def lines(result: RealismResult) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["metric"], row["band"]): row for row in result.lines}


def test_alone_a_dataset_has_its_numbers_and_a_reason_for_those_it_cannot_have(
    survey: Survey, three: dict[str, dict[str, Publication]]
) -> None:
    result, published = report(survey, three["smooth"])
    assert realism_is_complete(result).passed
    found = lines(result)
    assert published.read_table().num_rows == len(result.lines)
    for metric in ("probe_background", "probe_whole_stamp", "share_within_reference"):
        assert found[metric, "all"]["value"] is None
    assert "compare_with" in found["probe_background", "all"]["reason"]
    assert "arc_reference is empty" in found["share_within_reference", "all"]["reason"]
    assert found["psf_width", "r"]["value"] == pytest.approx(1.01, abs=0.01)
    assert abs(found["psf_energy_residual", "r"]["value"]) < 2e-3
    assert found["noise_sigma", "g"]["low"] < found["noise_sigma", "g"]["value"] < found["noise_sigma", "g"]["high"]
    assert found["theta_e_arcsec_percentile_16", "all"]["value"] < found["theta_e_arcsec_percentile_84", "all"]["value"]


def test_surveys_whose_noise_hangs_together_otherwise_are_told_apart_and_the_correlation_says_why(
    survey: Survey, three: dict[str, dict[str, Publication]]
) -> None:
    result, published = report(survey, three["smooth"], three["rough"]["stamps"], compare_with="rough")
    probe = lines(result)["probe_background", "all"]
    assert probe["low"] > 0.9
    assert probe["n"] == 80
    values = [row["value"] for row in result.lines if (row["metric"], row["band"]) == ("noise_correlation", "z")]
    assert values[0] > values[1] + 0.15
    assert published.attributes["compared_with"]["version"] == three["rough"]["stamps"].version


def test_a_survey_like_it_is_at_chance_and_itself_is_refused(
    survey: Survey, three: dict[str, dict[str, Publication]]
) -> None:
    result, _ = report(survey, three["smooth"], three["other"]["stamps"])
    probe = lines(result)["probe_background", "all"]
    assert probe["low"] < 0.6
    assert re.search(r"at chance it would be 0.5 \+- 0\.[1-3]", probe["reason"])
    with pytest.raises(ConfigError, match="the dataset that the report is about"):
        report(survey, three["smooth"], three["smooth"]["stamps"])


def test_arcs_are_held_against_a_cited_reference(survey: Survey, three: dict[str, dict[str, Publication]]) -> None:
    result, published = report(survey, three["smooth"], **REFERENCE)
    found = lines(result)
    assert found["theta_e_arcsec_share_within_reference", "all"]["value"] == 1.0
    assert found["g_r_share_within_reference", "all"]["value"] == 0.0
    assert found["g_r_share_within_reference", "all"]["high"] > 0.05
    assert "a test" in published.path("report.html").read_text()


def test_percentiles_are_of_every_injection_with_the_galaxy_as_unit(survey: Survey) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=12, n_bricks=4))
    manifest = survey.manifest(parent, injections_per_galaxy=3)
    result, published = report(survey, {"parent": parent, "stamps": survey.stamps(parent, manifest)}, **REFERENCE)
    drawn = [x for x in manifest.read_table()["theta_e_arcsec"].to_pylist() if x > 0]
    assert (len(drawn), published.attributes["injections"]) == (36, 36)
    found = lines(result)
    for percentile in (16, 50, 84):
        row = found[f"theta_e_arcsec_percentile_{percentile}", "all"]
        assert row["value"] == pytest.approx(np.percentile(drawn, percentile, method="inverted_cdf"), rel=1e-6)
        assert (row["n"], row["low"] < row["value"] < row["high"]) == (12, True)
    assert found["theta_e_arcsec_share_within_reference", "all"]["n"] == 12
    assert "all 36 injections" in published.path("report.html").read_text()


def test_percentiles_are_of_the_population_whatever_the_design_drew_and_the_reference_is_held_against_them(
    survey: Survey,
) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=60, n_bricks=10))
    # Half of the cells are wide, a fifth of the population is.
    design = {"design": "stratified", "cell_theta_e_edges_arcsec": [0.3, 2.06, 2.5], "floor_per_cell": 100}
    manifest = survey.manifest(parent, injections_per_galaxy=16, **design)
    reference = {"arc_reference": {"theta_e_arcsec": [2.06, 2.2, 2.5]}, "arc_reference_source": "a test"}
    result, published = report(survey, {"parent": parent, "stamps": survey.stamps(parent, manifest)}, **reference)
    found = lines(result)
    median, drawn, share = (
        found[f"theta_e_arcsec_{name}", "all"]
        for name in ("percentile_50", "drawn_percentile_50", "share_within_reference")
    )
    assert median["low"] < 1.4 < median["high"] < drawn["low"]
    assert share["low"] < 0.2 < share["high"] < 0.3
    rows = [row for row in manifest.read_table().to_pylist() if row["theta_e_arcsec"] > 0]
    weights = np.array([row["weight"] for row in rows])
    assert median["n_eff"] == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert median["n_eff"] < 0.9 * len(rows)
    assert (median["n"], drawn["n"], drawn["n_eff"]) == (60, 60, None)
    page = published.path("report.html").read_text()
    assert "The weighted injections are held against: a test" in page
    assert f"{median['n_eff']:,.4g}" in page


def test_injections_of_no_weight_are_of_no_population_and_the_line_says_so(
    survey: Survey, small: dict[str, Publication]
) -> None:
    sample = Sample.of(small["stamps"], 20)
    nothing = replace(sample, injections=[row | {"weight": 0.0} for row in sample.injections])
    found = {row["metric"]: row for row in arc_lines(nothing, RealismConfig(**REFERENCE))}
    weighted = found["theta_e_arcsec_percentile_50"]
    assert (weighted["value"], weighted["n"]) == (None, 0)
    assert weighted["reason"] == "no injection that has it weighs anything"
    assert found["theta_e_arcsec_drawn_percentile_50"]["value"] > 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {**REFERENCE, "arc_reference_source": " "},
        {"arc_reference_source": "a paper"},
        {**REFERENCE, "arc_reference": {"theta_e_arcsec": [3.0, 1.0, 2.0]}},
        {**REFERENCE, "arc_reference": {"size": [1.0, 2.0, 3.0]}},
    ],
)
def test_a_reference_without_a_source_or_out_of_order_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="arc_reference"):
        RealismConfig(**settings)


def test_the_page_needs_no_other_file_and_states_the_tables_numbers(
    survey: Survey, three: dict[str, dict[str, Publication]]
) -> None:
    result, published = report(survey, three["smooth"], three["rough"]["stamps"])
    page = published.path("report.html").read_text()
    assert "<script" not in page
    assert all(address.startswith("data:image/png") for address in re.findall(r'(?:src|href)="([^"]+)', page))
    sigma = lines(result)["noise_sigma", "z"]
    assert f"{sigma['value']:.4g} ({sigma['low']:.4g} to {sigma['high']:.4g})" in page
    assert all(png.startswith(b"\x89PNG") for png in result.images.values())


def test_too_few_galaxies_have_a_reason(survey: Survey, small: dict[str, Publication]) -> None:
    made = {"parent": small["parent_sample"], "stamps": small["stamps"]}
    fresh = Survey(survey.home, "another")
    few = fresh.parents()
    result, _ = report(survey, made, fresh.stamps(few, fresh.manifest(few)))
    assert realism_is_complete(result).passed
    assert "each needs 20" in lines(result)["probe_background", "all"]["reason"]


def test_a_surveys_own_stamps_have_a_report(survey: Survey, tmp_path: Path) -> None:
    folder = survey_like.write(tmp_path / "own", survey_like.rows(30, 6))
    parent = survey.parents(ParentSampleConfig(source="external_stamps", folder=str(folder)))
    result, _ = report(survey, {"parent": parent, "stamps": survey.stamps(parent, survey.manifest(parent))})
    assert realism_is_complete(result).passed
    # Of five files of six galaxies each, all are read.
    assert lines(result)["noise_sigma", "r"]["n"] == 30
    assert "assumed" in lines(result)["psf_width", "g"]["reason"]


def test_a_number_without_interval_or_reason_is_red() -> None:
    row = {"metric": "m", "band": "g", "of": "x", "value": 1.0, "low": None, "high": None, "n": 3, "reason": None}
    check = realism_is_complete(RealismResult([row], {}))
    assert not check.passed
    assert check.first == ("m in g of x",)
    assert realism_is_complete(RealismResult([{**row, "reason": "one galaxy"}], {})).passed


@pytest.mark.parametrize("fwhm", [1.0, 1.35, 2.0])
def test_the_kernels_star_is_the_profile_averaged_over_pixels(fwhm: float) -> None:
    peak, energy = moffat_residuals(fwhm, 64, 0.262)
    assert peak < 0.01
    assert abs(energy) < 2e-3


def test_curves_are_means_over_galaxies_with_their_intervals(
    survey: Survey, three: dict[str, dict[str, Publication]]
) -> None:
    _, published = report(survey, three["rough"])
    table = published.read_table("curves")
    histogram = table.filter(pa.compute.equal(table["curve"], "pixel_histogram"))
    shares = np.array(histogram.filter(pa.compute.equal(histogram["band"], "r"))["value"].to_pylist())
    assert 0.98 < shares.sum() <= 1.0
    assert set(table["n"].to_pylist()) == {40}


@pytest.mark.parametrize("unknown", [float("nan"), float("inf"), -99.0, 99.0])
@pytest.mark.parametrize("quantity", ["g_r", "src_mag_r", "arc_mag_r"])
def test_what_is_no_magnitude_is_no_arc_quantity(quantity: str, unknown: float) -> None:
    row = {"src_mag_g": 22.0, "src_mag_r": 21.0, "total_injected_flux_r": 1.0}
    assert arc_quantity(row, quantity) == {"g_r": 1.0, "src_mag_r": 21.0, "arc_mag_r": 22.5}[quantity]
    column = "total_injected_flux_r" if quantity == "arc_mag_r" else "src_mag_r"
    wrong = -99.0 if column != "src_mag_r" and unknown == 99.0 else unknown
    assert arc_quantity(row | {column: wrong}, quantity) is None
