import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.checks import metrics_are_complete
from lens_pipeline.evaluation.config import ReportConfig
from lens_pipeline.evaluation.gallery import lupton_png
from lens_pipeline.evaluation.wording import number
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

PNG = b"\x89PNG\r\n\x1a\n"


class _Addresses(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]


def _metrics(evaluated: Evaluated) -> dict[str, dict[str, object]]:
    table = pl.DataFrame(evaluated.report()[0].table).filter((pl.col("split") == "test") & (pl.col("stratum") == "all"))
    return {row["metric"]: row for row in table.iter_rows(named=True)}


def _text(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode().split("</style>")[1]))


def test_the_page_needs_no_other_file_and_runs_nothing(survey: Evaluated) -> None:
    result, publication = survey.report()
    assert publication.path("report.html").read_bytes() == result.page
    page = _Addresses()
    page.feed(result.page.decode())
    assert len(page.found) >= 7
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.found)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert set(re.findall(r"url\((.)", result.page.decode())) <= {"#"}


def test_each_part_of_the_page_that_another_names_is_there_once(survey: Evaluated) -> None:
    page = survey.report()[0].page.decode()
    ids = re.findall(r'\bid="([^"]+)"', page)
    named = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert len(ids) == len(set(ids))
    assert {"".join(name) for name in named} <= set(ids)


def test_a_mark_that_is_pointed_at_says_the_number_of_the_table(survey: Evaluated) -> None:
    result, publication = survey.report()
    titles = re.findall(r"<title>(.*?)</title>", result.page.decode())
    recall = _metrics(survey)["recall_at_fpr_1e-01"]
    shown = number(recall["value"], recall["low"], recall["high"])  # type: ignore[arg-type]
    assert any(title.startswith("threshold for FPR 0.1: FPR ") and f"found {shown}" in title for title in titles)
    whole = pl.DataFrame(publication.read_table("roc")).filter(pl.col("low").is_not_null()).row(-1, named=True)
    assert any(number(whole["tpr"], whole["low"], whole["high"]) in title for title in titles)


def test_completeness_over_all_and_recall_are_one_number_with_one_interval(survey: Evaluated) -> None:
    recall = _metrics(survey)["recall_at_fpr_1e-01"]
    cells = pl.DataFrame(survey.completeness()[0].table)
    whole = cells.row(by_predicate=(pl.col("axis") == "all") & (pl.col("operating_point") == "fpr_1e-01"), named=True)
    ends = [whole[name] for name in ("completeness", "completeness_low", "completeness_high")]
    assert ends == pytest.approx([recall[name] for name in ("value", "low", "high")], rel=1e-12)
    kinds = pl.DataFrame(survey.completeness()[1].read_table("contaminants"))
    false = kinds.row(by_predicate=pl.col("operating_point") == "fpr_1e-01", named=True)
    fpr = _metrics(survey)["fpr_at_fpr_1e-01"]
    assert [false[name] for name in ("fpr", "fpr_low", "fpr_high")] == pytest.approx(
        [fpr[name] for name in ("value", "low", "high")], rel=1e-12
    )


def test_regions_that_are_alike_widen_completeness_over_all(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 100, "test": 300})
    luck = {region: 3 * (number % 2) for number, region in enumerate(sorted(set(stamps.columns["region_id"])))}
    stamps.logit += np.array([luck[region] for region in stamps.columns["region_id"]], np.float32)
    cells = pl.DataFrame(evaluate(stamps).completeness()[0].table).filter(pl.col("operating_point") == "fpr_1e-01")
    whole = cells.row(by_predicate=pl.col("axis") == "all", named=True)
    assert whole["n_eff"] < 0.5 * whole["n"]
    assert whole["n_galaxies"] == 300


def test_the_page_names_data_settings_code_and_environment_by_their_hashes(survey: Evaluated) -> None:
    result, publication = survey.report()
    text = _text(result.page)
    for asset, version in publication.inputs.items():
        assert re.search(rf"{asset} {version}", text)
    assert re.search(r"code of the report \(SHA-256[^)]*\) [0-9a-f]{16}", text)
    assert re.search(r"installed packages \(SHA-256[^)]*\) [0-9a-f]{16}", text)


def test_what_is_folded_away_on_the_screen_is_open_on_paper(survey: Evaluated) -> None:
    style = survey.report()[0].page.decode().split("</style>")[0]
    assert "details::details-content { content-visibility: visible;" in style.split("@media print")[1]


def test_the_page_states_the_numbers_of_the_table_with_n_and_interval(survey: Evaluated) -> None:
    result, _ = survey.report()
    auroc = pl.DataFrame(result.table).row(
        by_predicate=(pl.col("metric") == "auroc") & (pl.col("split") == "test") & (pl.col("stratum") == "all"),
        named=True,
    )
    text = _text(result.page)
    assert f"{auroc['value']:.3f} ({auroc['low']:.3f} to {auroc['high']:.3f}), from 800 injections" in text
    assert "No threshold was fitted for FPR 0.001" in text
    assert survey.chain.scores.version in text
    assert "completeness (1,600 rows), evaluation_report (1,600 rows)" in text


def test_ten_galaxies_get_an_honest_page(ten_galaxies: Evaluated) -> None:
    metrics = _metrics(ten_galaxies)
    assert all(metrics[f"tpr_at_fpr_{rate}"]["value"] is None for rate in ("1e-01", "1e-02", "1e-03"))
    assert metrics["tpr_at_fpr_1e-01"]["status"] == "unresolved"
    assert metrics["auroc"]["value"] is not None
    assert metrics["auroc"]["low"] is None
    assert metrics["null_test_auroc"]["status"] == "undefined"
    text = _text(ten_galaxies.report()[0].page)
    for words in (
        "At the threshold set by the highest validation control",
        "of 10 distinct controls",
        "0 of 5 distinct controls lie above the highest of them, so the rate is at most 0.522",
        "psf_fwhm_used_r is null for all 500 injections",
        "a bootstrap over fewer than 20 is too narrow",
    ):
        assert words in text


def test_an_axis_that_nobody_measured_has_its_reason_in_place_of_an_empty_figure(
    survey: Evaluated, ten_galaxies: Evaluated
) -> None:
    assert "completeness_psf_fwhm_used_r" in survey.report()[0].images
    assert "Completeness against psf_fwhm_used_r has no figure" not in _text(survey.report()[0].page)
    few = ten_galaxies.report()[0]
    assert "completeness_psf_fwhm_used_r" not in few.images
    assert (
        "Completeness against psf_fwhm_used_r has no figure: psf_fwhm_used_r is null for all 500 injections"
        in _text(few.page)
    )


def test_names_from_the_data_can_not_write_into_the_page(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 20, "test": 6})
    stamps.columns["task_id"] = [f"<script>{name}</script>" for name in stamps.columns["task_id"]]
    page = evaluate(stamps).report(ReportConfig(n_bootstrap=200, n_gallery=2))[0].page.decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_metrics_of_one_class_are_null_with_a_reason(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 30})
    kept = [i for i, s in enumerate(stamps.split) if not (s == "test" and stamps.columns["label"][i] == 0)]
    stamps.columns = {key: [values[i] for i in kept] for key, values in stamps.columns.items()}
    stamps.split, stamps.logit = [stamps.split[i] for i in kept], stamps.logit[kept]
    evaluated = evaluate(stamps)
    metrics = _metrics(evaluated)
    for name in ("auroc", "average_precision", "log_loss", "tpr_at_fpr_1e-01", "fpr_at_highest_control"):
        assert (metrics[name]["value"], metrics[name]["low"], metrics[name]["status"]) == (None, None, "undefined")
        assert metrics[name]["reason"]
    assert metrics_are_complete(evaluated.report()[0].table).passed


def test_log_loss_and_brier_are_those_of_scikit_learn(survey: Evaluated) -> None:
    from sklearn.metrics import brier_score_loss, log_loss

    rows = pl.DataFrame(survey.chain.scores.read_table()).filter(pl.col("split") == "test")
    p = 1 / (1 + np.exp(-rows["logit"].to_numpy().astype(np.float64)))
    metrics = _metrics(survey)
    assert metrics["log_loss"]["value"] == pytest.approx(log_loss(rows["label"], p), rel=1e-9)
    assert metrics["brier"]["value"] == pytest.approx(brier_score_loss(rows["label"], p), rel=1e-9)


def test_too_faint_arcs_are_measured_against_controls(survey: Evaluated) -> None:
    row = _metrics(survey)["null_test_auroc"]
    assert row["low"] < 0.5 < row["high"]  # type: ignore[operator]
    assert 10 < row["n_positives"] < 60  # type: ignore[operator]
    assert row["n_negatives"] == 800
    chance = _metrics(survey)["null_test_p"]
    assert 0.001 < chance["value"] <= 1  # type: ignore[operator]
    assert f"as far from it with a probability of {chance['value']:.2g}" in _text(survey.report()[0].page)


def test_images_are_small_enough_to_show_inline(survey: Evaluated, ten_galaxies: Evaluated) -> None:
    for evaluated in (survey, ten_galaxies):
        images = evaluated.report()[0].images
        assert {"roc", "histogram", "history", "completeness_arc_snr", "completeness_theta_e_arcsec"} <= set(images)
        for png in images.values():
            assert png.startswith(PNG)
            assert len(png) < 80_000


def test_a_report_on_completeness_of_other_thresholds_is_refused(
    evaluate: Callable[[Stamps], Evaluated], survey: Evaluated
) -> None:
    other = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5}, seed=1))
    other.completeness = survey.completeness  # type: ignore[method-assign]
    with pytest.raises(EvaluationError, match=r"completeness \w+ was made from operating_point"):
        other.report()


def test_the_loss_curves_of_another_model_are_refused(
    evaluate: Callable[[Stamps], Evaluated], survey: Evaluated
) -> None:
    other = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5}, seed=1))
    other.chain = replace(other.chain, classifier=survey.chain.classifier)
    with pytest.raises(EvaluationError, match=r"scores \w+ was made from lens_classifier"):
        other.report()


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_stamps_of_any_number_of_bands_are_drawn(bands: int) -> None:
    assert lupton_png(np.ones((bands, 48, 48), np.float32)).startswith(PNG)


def test_the_page_shows_real_sources_beside_profiles(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 60, "test": 60})
    stamps.columns["source_id"] = [
        "cosmos-1" if lens and n % 3 else None for n, lens in enumerate(stamps.columns["label"])
    ]
    result, _ = evaluate(stamps).report()
    assert "Completeness against source_id" in result.page.decode()
    assert "Sersic profile" in _text(result.page)
    assert "is_held_out" not in _text(result.page)


def test_the_page_says_which_numbers_leave_the_weights_out(evaluate: Callable[[Stamps], Evaluated]) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 60, "test": 60})
    said = "Each injection counts once here, as it was drawn"
    assert said not in _text(evaluate(stamps).report()[0].page)
    stamps.columns["weight"] = [1.0 + n % 3 for n in range(len(stamps.columns["weight"]))]
    assert said in _text(evaluate(stamps).report()[0].page)
