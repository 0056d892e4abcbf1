from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_pipeline.contracts.catalogue import BASELINE
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.baseline import baseline_claim
from lens_pipeline.evaluation.wording import number
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw, publish

GALAXIES = {"train": 20, "val_select": 20, "val_calibrate": 400, "test": 400}


def _stamps(seed: int = 0) -> Stamps:
    """Stamps, in no order, that a filter sees half as well as the network does, on another scale."""
    stamps = draw(GALAXIES, injections_per_galaxy=2, seed=seed)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(stamps.split))
    stamps.columns = {name: [values[i] for i in order] for name, values in stamps.columns.items()}
    stamps.split, stamps.logit = [stamps.split[i] for i in order], stamps.logit[order]
    stamps.columns["weight"] = rng.lognormal(0, 0.5, len(stamps.split)).tolist()
    stamps.snr = (10 + 2 * stamps.logit + rng.normal(0, 4, stamps.logit.size)).astype(np.float32)
    return stamps


def _compared(stamps: Stamps, folder: Path) -> tuple[Evaluated, Publication]:
    evaluated = Evaluated(publish(stamps, folder))
    return evaluated, evaluated.completeness()[1]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluated, Publication]:
    return _compared(_stamps(), tmp_path_factory.mktemp("compared"))


def _table(made: Publication) -> pl.DataFrame:
    table = made.read_table("baseline")
    BASELINE.validate(table, where="the test")
    return pl.DataFrame(table)


def test_both_finders_stand_at_thresholds_that_were_frozen_for_the_same_rate(
    compared: tuple[Evaluated, Publication],
) -> None:
    evaluated, made = compared
    frozen = pl.DataFrame(evaluated.operating_point.read_table("matched_filter"))
    network = pl.DataFrame(evaluated.operating_point.read_table())
    assert frozen["n_false_positives"][0] == network["n_false_positives"][0] == 40
    rows = pl.DataFrame(evaluated.chain.scores.read_table("matched_filter"))
    controls = rows.filter((pl.col("split") == "val_calibrate") & (pl.col("label") == 0))
    assert (controls["snr"] > frozen["threshold"][0]).sum() == 40
    used = _table(made).filter(pl.col("finder") == "matched filter").select("operating_point", "threshold").unique()
    assert dict(used.iter_rows()) == dict(
        frozen.drop_nulls("threshold").select("operating_point", "threshold").iter_rows()
    )


def test_the_networks_rows_are_those_of_completeness(compared: tuple[Evaluated, Publication]) -> None:
    _, made = compared
    mine = _table(made).filter(pl.col("finder") == "network")
    whole = pl.DataFrame(made.read_table()).filter(pl.col("operating_point").is_in(mine["operating_point"].unique()))
    assert mine.select(whole.columns).equals(whole)
    assert mine["network_minus"].null_count() == mine.height


def test_the_filters_rows_count_the_same_injections_by_its_own_scores(compared: tuple[Evaluated, Publication]) -> None:
    evaluated, made = compared
    chain = evaluated.chain
    rows = pl.DataFrame(chain.scores.read_table()).join(
        pl.DataFrame(chain.scores.read_table("matched_filter")).select("task_id", "snr"), on="task_id"
    )
    rows = rows.join(pl.DataFrame(chain.store.read_table()).select("task_id", "weight", "lens_model"), on="task_id")
    table = _table(made).filter(pl.col("operating_point") == "fpr_1e-01")
    thresholds = dict(table.select("finder", "threshold").unique().iter_rows())
    of_filter = table.filter(pl.col("finder") == "matched filter")
    for axis, cell in (("all", "all"), ("lens_model", "SIE")):
        mine = rows.filter((pl.col("split") == "test") & (pl.col("label") == 1))
        mine = mine.filter(pl.col("lens_model") == cell) if axis == "lens_model" else mine
        weight = mine["weight"].to_numpy()
        by_filter = np.average(mine["snr"].to_numpy() > thresholds["matched filter"], weights=weight)
        by_network = np.average(mine["logit"].to_numpy() > thresholds["network"], weights=weight)
        row = of_filter.row(by_predicate=(pl.col("axis") == axis) & (pl.col("cell") == cell), named=True)
        assert row["n"] == mine.height
        assert row["completeness"] == pytest.approx(by_filter)
        assert row["network_minus"] == pytest.approx(by_network - by_filter)
        assert row["network_minus_low"] < row["network_minus"] < row["network_minus_high"]
        controls = rows.filter((pl.col("split") == "test") & (pl.col("label") == 0))
        assert row["fpr"] == pytest.approx((controls["snr"] > thresholds["matched filter"]).mean())


def test_pairs_tell_more_of_the_difference_than_two_intervals_do(compared: tuple[Evaluated, Publication]) -> None:
    row = _table(compared[1]).filter(
        (pl.col("operating_point") == "fpr_1e-01") & (pl.col("axis") == "all") & (pl.col("finder") == "matched filter")
    ).row(0, named=True)  # fmt: skip
    assert row["network_minus_low"] > 0
    width = row["network_minus_high"] - row["network_minus_low"]
    assert width < np.sqrt(2) * (row["completeness_high"] - row["completeness_low"])


def test_what_shifts_whole_regions_widens_the_difference_and_the_false_positive_rate(tmp_path: Path) -> None:
    widths = []
    for clusters in ("region_id", "galaxy_id"):
        stamps = _stamps()
        assert stamps.snr is not None
        shift = np.random.default_rng(3)
        of_region = {region: shift.normal(0, 6) for region in sorted(set(stamps.columns["region_id"]))}
        stamps.snr += np.array([of_region[region] for region in stamps.columns["region_id"]], np.float32)
        stamps.columns["region_id"] = stamps.columns[clusters]
        rows = _table(_compared(stamps, tmp_path / clusters)[1]).filter(pl.col("operating_point") == "fpr_1e-01")
        row = rows.row(by_predicate=(pl.col("axis") == "all") & (pl.col("finder") == "matched filter"), named=True)
        widths.append([row[f"{name}_high"] - row[f"{name}_low"] for name in ("network_minus", "fpr")])
    assert (np.array(widths[0]) > 1.15 * np.array(widths[1])).all()


def test_the_report_says_which_of_the_two_finds_more(compared: tuple[Evaluated, Publication], tmp_path: Path) -> None:
    said = baseline_claim(compared[1], "fpr_1e-01")
    assert said.startswith(
        "A classical finder, a matched filter on the stamp without its host, at its own threshold for FPR 0.1"
    )
    assert said.endswith("the network finds more.")
    twin = _stamps()
    twin.snr = twin.logit
    assert baseline_claim(_compared(twin, tmp_path)[1], "fpr_1e-01").endswith("which finds more can't be told.")


def test_an_axis_that_nobody_measured_is_undefined_for_both(tmp_path: Path) -> None:
    stamps = _stamps()
    stamps.without = ("arc_snr",)
    rows = _table(_compared(stamps, tmp_path)[1]).filter(pl.col("axis") == "arc_snr")
    assert set(rows["status"]) == {"undefined"}
    assert rows["network_minus"].null_count() == rows.height
    assert "arc_snr is null for all 800" in rows.filter(pl.col("finder") == "matched filter")["network_minus_reason"][0]


def test_scores_without_the_classical_finder_are_compared_with_nothing_and_say_so(survey: Evaluated) -> None:
    made = survey.completeness()[1]
    assert made.read_table("baseline").num_rows == 0
    assert baseline_claim(made, "fpr_1e-02") == (
        "Beside a classical finder: not measured, the matched filter looked at no row (scores.matched_filter)."
    )


def test_a_threshold_that_the_filter_cannot_resolve_is_left_out_with_the_reason(tmp_path: Path) -> None:
    stamps = _stamps()
    assert stamps.snr is not None
    stamps.snr[:] = np.minimum(stamps.snr, 9)
    made = _compared(stamps, tmp_path)[1]
    assert "fpr_1e-01" not in set(_table(made)["operating_point"])
    assert "has no threshold for FPR 0.1: " in made.attributes["baseline_notes"][0]
    assert "distinct controls share their highest logit" in baseline_claim(made, "fpr_1e-01")


def test_a_row_that_the_filter_has_not_looked_at_is_refused(tmp_path: Path) -> None:
    chain = publish(_stamps(), tmp_path)
    lacking = chain.scores.read_table("matched_filter").slice(0, 500)
    with chain.stage("scores", chain.store, chain.splits, chain.classifier) as staging:
        staging.write_table(None, chain.scores.read_table())
        staging.write_table("matched_filter", lacking)
        scores = staging.commit()
    with pytest.raises(EvaluationError, match=r"rows have no matched_filter in scores"):
        Evaluated(replace(chain, scores=scores))


def test_the_page_shows_both_finders_and_their_difference(
    compared: tuple[Evaluated, Publication], survey: Evaluated
) -> None:
    rows = _table(compared[1]).filter((pl.col("operating_point") == "fpr_1e-01") & (pl.col("axis") == "all"))
    network, of_filter = rows.sort("finder", descending=True).to_dicts()
    page = compared[0].report()[0].page.decode()
    section = page.split("<h3>Beside a classical finder</h3>")[1].split("<h2>")[0]
    for row, name, prefix in (
        (network, "completeness", "completeness_"),
        (of_filter, "completeness", "completeness_"),
        (of_filter, "network_minus", "network_minus_"),
        (of_filter, "fpr", "fpr_"),
    ):
        assert number(row[name], row[f"{prefix}low"], row[f"{prefix}high"]) in section
    assert baseline_claim(compared[1], "fpr_1e-01").split(":")[0] in page
    other = survey.report()[0].page.decode()
    assert "Beside a classical finder: not measured, the matched filter looked at no row" in other
    assert "<h3>Beside a classical finder</h3>" not in other


def test_false_positives_over_few_regions_say_that_their_interval_leaves_regions_out(tmp_path: Path) -> None:
    stamps = _stamps()
    stamps.columns["region_id"] = [
        f"{split}-{int(region.rsplit('-r', 1)[1]) % 3}"
        for split, region in zip(stamps.split, stamps.columns["region_id"], strict=True)
    ]
    rows = _table(_compared(stamps, tmp_path)[1])
    assert set(rows["fpr_reason"]) == {
        "the interval leaves out how much regions differ, which isn't known: 3 regions, fewer than 5"
    }
