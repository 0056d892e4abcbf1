"""A cross-validation's completeness: each galaxy judged by the model that has not seen it, above its own fold's controls."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_pipeline.cli.members import tell_cross_fit
from lens_pipeline.contracts.catalogue import FOLD_THRESHOLDS, OUT_OF_FOLD_COMPLETENESS
from lens_pipeline.evaluation.checks import metrics_are_complete
from lens_pipeline.evaluation.out_of_fold import CrossFit, fpr_above_highest, out_of_fold_metrics
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw, publish

N_FOLDS = 4


@pytest.fixture(scope="module")
def stamps() -> Stamps:
    """24 galaxies in four folds, 50 injections each; 3 injections of val_select were never stored, and 2 of test."""
    stamps = draw({"train": 20, "val_select": 4, "val_calibrate": 6, "test": 6}, injections_per_galaxy=50)
    stamps.n_folds = N_FOLDS
    weight = np.random.default_rng(0).lognormal(0, 0.5, len(stamps.split))
    stamps.columns["weight"] = weight.tolist()
    lost = {"lens_model": "SIE", "theta_e_arcsec": 1.1}
    regions = ["val_select-r0"] * 3 + ["test-r0"] * 2
    stamps.lost = [lost | {"task_id": f"lost-{i}", "region_id": region} for i, region in enumerate(regions)]
    return stamps


@pytest.fixture(scope="module")
def evaluated(stamps: Stamps, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return Evaluated(publish(stamps, tmp_path_factory.mktemp("folds")))


@pytest.fixture(scope="module")
def found(evaluated: Evaluated) -> CrossFit:
    _, publication = evaluated.completeness()
    found = CrossFit.of(publication)
    assert found is not None
    FOLD_THRESHOLDS.validate(found.thresholds.to_arrow(), where="the test")
    OUT_OF_FOLD_COMPLETENESS.validate(found.cells.to_arrow(), where="the test")
    return found


def test_each_injection_is_found_where_it_lies_above_the_highest_control_of_its_own_fold(
    stamps: Stamps, found: CrossFit
) -> None:
    opened = np.isin(stamps.split, ["train", "val_select"])
    names = list(dict.fromkeys(stamps.columns["galaxy_id"]))
    fold = np.array([names.index(name) % N_FOLDS for name in stamps.columns["galaxy_id"]])
    logit = (stamps.logit + fold.astype(np.float32)).astype(np.float64)
    is_lens, weight = np.array(stamps.columns["label"]) == 1, np.array(stamps.columns["weight"])
    highest = np.array([logit[opened & ~is_lens & (fold == number)].max() for number in range(N_FOLDS)])
    recovered = logit > highest[fold]
    mine = opened & is_lens
    assert found.thresholds["threshold"].to_list()[:N_FOLDS] == highest.tolist()
    assert found.whole["n_recovered"] == recovered[mine].sum()
    assert found.whole["completeness"] == pytest.approx(np.average(recovered[mine], weights=weight[mine]))
    # One threshold for all folds would give another number: their models' logits differ in scale.
    assert found.whole["n_recovered"] != (logit[mine] > highest.max()).sum()
    whole = found.cells.row(by_predicate=pl.col("axis") == "all", named=True)
    for end in ("", "_low", "_high"):
        assert whole[f"completeness{end}"] == pytest.approx(found.whole[f"completeness{end}"], rel=1e-12)
    assert whole["cluster"] == found.whole["cluster"]


def test_intervals_take_galaxies_as_clusters_and_every_axis_holds_every_injection(found: CrossFit) -> None:
    whole = found.cells.row(by_predicate=pl.col("axis") == "all", named=True)
    assert (whole["n"], whole["n_galaxies"]) == (24 * 50, 24)
    assert whole["n_eff"] < 600
    sums = found.cells.group_by("axis").agg(pl.col("n").sum(), pl.col("n_recovered").sum())
    assert sums["n"].unique().to_list() == [1200]
    assert sums["n_recovered"].n_unique() == 1


def test_injections_of_the_folds_that_were_never_stored_are_counted_apart_and_those_of_test_are_not_theirs(
    found: CrossFit,
) -> None:
    assert found.cells.row(by_predicate=pl.col("axis") == "all", named=True)["n_quarantined"] == 3


def test_the_bound_of_several_folds_holds_as_often_as_it_says_where_that_of_one_big_fold_does_not() -> None:
    rng = np.random.default_rng(1)
    for galaxies in ([6], [6, 6, 6, 6], [3, 9, 5, 7], [2] * 12, [200, 300]):
        n = np.array(galaxies)
        rates = (rng.beta(1, n, (40_000, n.size)) * n).sum(1) / n.sum()
        assert (rates <= fpr_above_highest(galaxies)).mean() >= 0.974, galaxies
        if len(galaxies) > 3:
            assert (rates <= fpr_above_highest([sum(galaxies)])).mean() < 0.9, galaxies
    assert fpr_above_highest([1, 1]) == 1.0


def test_a_metric_says_how_the_interval_of_its_own_fold_was_made(tmp_path: Path) -> None:
    drawn = draw({"train": 80, "val_select": 8, "val_calibrate": 6, "test": 6})
    drawn.n_folds = N_FOLDS
    cross_fit = CrossFit.of(Evaluated(publish(drawn, tmp_path)).completeness()[1])
    assert cross_fit is not None
    made = {(one.cluster, one.interval) for one in out_of_fold_metrics(cross_fit) if one.low is not None}
    # One injection a galaxy: galaxies are no clusters of several rows, regions are.
    assert made == {("galaxy", "Wilson"), ("region", "Wilson, clustered")}


def test_the_report_states_the_cross_fit_with_the_bound_beside_it(evaluated: Evaluated, found: CrossFit) -> None:
    result, _ = evaluated.report()
    assert metrics_are_complete(result.table).passed
    metrics = {(row["metric"], row["split"]): row for row in result.table.to_pylist()}
    mine = metrics["completeness_at_highest_control", "out_of_fold"]
    assert (mine["value"], mine["low"]) == (found.whole["completeness"], found.whole["completeness_low"])
    bound = metrics["fpr_bound_at_highest_control", "out_of_fold"]
    assert (bound["value"], bound["n_negatives"], bound["n_clusters"]) == (found.whole["fpr_high"], 24, 24)
    assert ("completeness_at_highest_control", "fold 3") in metrics
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", result.page.decode()))
    assert "over 1,200 injections in 24 galaxies; the false-positive rate there is at most" in text
    assert text.count("Cross-fitted completeness against") == 3


def test_the_shell_prints_each_fold_and_cell_with_its_interval_and_the_bound(
    evaluated: Evaluated, found: CrossFit, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_cross_fit(evaluated.completeness()[1])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    whole, fold = found.whole, found.thresholds.row(0, named=True)
    low, high = whole["completeness_low"], whole["completeness_high"]
    assert (
        f"all folds {whole['completeness']:.4f} [{low:.4f}, {high:.4f}] n = 1,200 injections in 24 galaxies; "
        f"FPR at most {whole['fpr_high']:.3g} (24 controls)"
    ) in lines
    assert any(line.startswith(f"fold 0 {fold['completeness']:.4f} [") for line in lines)
    assert sum(line.startswith("theta_e_arcsec ") for line in lines) == len(
        found.cells.filter(pl.col("axis") == "theta_e_arcsec")
    )


def test_scores_of_one_model_have_no_such_tables(ten_galaxies: Evaluated, tmp_path: Path) -> None:
    _, publication = ten_galaxies.completeness()
    assert CrossFit.of(publication) is None
    assert "Cross-fitting" not in ten_galaxies.report()[0].page.decode()
