"""Two models are compared on the same rows, galaxy by galaxy, or not at all."""

from itertools import product

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from scipy import stats

from lens_pipeline.contracts.comparison_tables import MODEL_COMPARISON
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.comparison import Contestant, compare
from lens_pipeline.evaluation.differences import clustered_mcnemar
from lens_pipeline.evaluation.metrics import BootstrapSettings
from lens_pipeline.evaluation.resolution import ResolutionRule

RULE, SETTINGS = ResolutionRule(5, 0.5), BootstrapSettings(1000, 0)


def rows(n_galaxies: int = 300, *, seed: int = 0) -> pl.DataFrame:
    """A control and an injection of each galaxy, and how hard each is."""
    rng = np.random.default_rng(seed)
    galaxy = np.repeat(np.arange(n_galaxies), 2)
    is_lens = np.tile([False, True], n_galaxies)
    hard = np.repeat(rng.normal(0, 1, n_galaxies), 2)
    return pl.DataFrame(
        {
            "task_id": [f"t{n}" for n in range(galaxy.size)],
            "label": is_lens.astype(np.int8),
            "is_lens": is_lens,
            "galaxy_id": [f"g{n}" for n in galaxy],
            "pixel_hash": [f"{n:016d}".encode() for n in range(galaxy.size)],
            "truth": 1.5 * is_lens + hard + rng.normal(0, 0.5, galaxy.size),
        }
    )


def model(name: str, of: pl.DataFrame, noise: float, seed: int, threshold: float = 2.0) -> Contestant:
    logit = of["truth"].to_numpy() + np.random.default_rng(seed).normal(0, noise, of.height)
    return Contestant(
        name, f"{name}-version", of.drop("truth").with_columns(logit=pl.lit(logit)), {"fpr_1e-01": threshold}
    )


def by_metric(this: Contestant, other: Contestant) -> dict[str, dict[str, object]]:
    records = compare(this, other, [0.1], RULE, SETTINGS)
    MODEL_COMPARISON.validate(pa.Table.from_pylist(records, schema=MODEL_COMPARISON.schema), where="test")
    return {str(record["metric"]): record for record in records}


def test_a_better_model_wins_and_its_mirror_image_loses_by_as_much() -> None:
    of = rows()
    good, bad = model("good", of, 0.1, 1), model("bad", of, 2.0, 2)
    there, back = by_metric(good, bad), by_metric(bad, good)
    for metric in ("auroc", "average_precision", "tpr_at_fpr_1e-01", "recall_at_fpr_1e-01", "log_loss"):
        assert there[metric]["delta"] == pytest.approx(-back[metric]["delta"])  # type: ignore[operator]
        assert there[metric]["win_probability"] == pytest.approx(1 - back[metric]["win_probability"])  # type: ignore[operator]
    assert there["auroc"]["low"] > 0  # type: ignore[operator]
    assert there["auroc"]["win_probability"] == pytest.approx(1)
    assert there["log_loss"]["delta"] < 0  # type: ignore[operator]
    assert there["log_loss"]["win_probability"] == pytest.approx(1)


def test_what_both_models_find_hard_is_no_noise_of_their_difference() -> None:
    of = rows()
    found = by_metric(model("a", of, 0.1, 1), model("b", of, 0.1, 2))["auroc"]
    width = found["high"] - found["low"]  # type: ignore[operator]
    # Two AUROCs of 300 galaxies apart would have a standard error of some 0.02 each.
    assert width < 0.02


def test_a_model_equal_to_the_other_has_no_difference_and_wins_half_the_draws() -> None:
    of = rows()
    this = model("a", of, 0.5, 1)
    for metric, record in by_metric(this, model("b", of, 0.5, 1)).items():
        assert (record["delta"], record["win_probability"]) == (0.0, 0.5)
        assert record["p_value"] in (None, 1.0)
        # No galaxy tells them apart: that is no proof that none of a thousand would.
        if "_at_fpr_" in metric and not metric.startswith("tpr"):
            assert -record["low"] == pytest.approx(record["high"])  # type: ignore[operator]
            assert record["high"] > 3 / 300  # type: ignore[operator]
        else:
            assert (record["low"], record["high"]) == (None, None)
            assert "every draw of these 300 galaxies gives the same difference" in str(record["reason"])


def test_the_interval_of_a_difference_covers_as_often_as_it_says() -> None:
    covered = 0
    for case in range(120):
        of = rows(80, seed=case)
        found = compare(
            model("a", of, 0.7, 1000 + case), model("b", of, 0.7, 2000 + case), [], RULE, BootstrapSettings(200, case)
        )
        covered += found[0]["low"] <= 0 <= found[0]["high"]
    assert 0.88 <= covered / 120 <= 1.0


def test_a_difference_of_two_nearly_perfect_models_on_thirty_lenses_covers_and_its_chance_agrees() -> None:
    n_lenses, n, covered, draws = 30, 330, 0, 100
    is_lens = np.arange(n) < n_lenses
    key = [str(k) for k in range(n)]
    truth = stats.norm.cdf(4.5 / np.sqrt(2)) - stats.norm.cdf(3.5 / np.sqrt(2))
    for case in range(draws):
        rng = np.random.default_rng(case)
        noise = rng.normal(size=n)
        of = pl.DataFrame({"task_id": key, "pixel_hash": key, "galaxy_id": key, "is_lens": is_lens, "label": is_lens})
        this, other = (
            Contestant(name, name, of.with_columns(logit=pl.lit(logit), label=pl.col("label").cast(pl.Int8)), {})
            for name, logit in (
                ("a", noise + 4.5 * is_lens),
                ("b", 0.7 * noise + np.sqrt(0.51) * rng.normal(size=n) + 3.5 * is_lens),
            )
        )
        found = compare(this, other, [], RULE, BootstrapSettings(100, 0))[0]
        if found["low"] is None:
            covered += 1
            continue
        covered += found["low"] <= truth <= found["high"]
        assert (abs(found["win_probability"] - 0.5) > 0.475) == (found["low"] > 0 or found["high"] < 0)
    # By t of the draws' spread alone it is 88 %.
    assert covered / draws >= 0.93


def test_the_chance_of_winning_agrees_with_the_difference_beside_it_where_draws_lie_to_one_side() -> None:
    for n_galaxies, case in ((100, 3), (60, 19)):
        of = rows(n_galaxies, seed=case)
        found = by_metric(model("a", of, 0.7, 1000 + case), model("b", of, 0.7, 2000 + case))["tpr_at_fpr_1e-01"]
        assert found["delta"] < 0  # type: ignore[operator]
        assert 0.3 < found["win_probability"] < 0.5  # type: ignore[operator]


def found_alone(of: pl.DataFrame, this: list[int], other: list[int]) -> tuple[Contestant, Contestant]:
    """Two models with the same logits, but for the injections of some galaxies, which one or the other alone finds."""
    logit = of["is_lens"].to_numpy() * 3.0
    rows_of = of.drop("truth")

    def missing(galaxies: list[int]) -> pl.DataFrame:
        missed = logit.copy()
        missed[2 * np.array(galaxies, dtype=int) + 1] = 1.0
        return rows_of.with_columns(logit=pl.lit(missed))

    return (
        Contestant("a", "a-version", missing(other), {"fpr_1e-01": 2.0}),
        Contestant("b", "b-version", missing(this), {"fpr_1e-01": 2.0}),
    )


def wins_by_seed(pair: tuple[Contestant, Contestant], metric: str) -> list[float]:
    return [
        record["win_probability"]  # type: ignore[misc]
        for seed in range(8)
        for record in compare(*pair, [], RULE, BootstrapSettings(1000, seed))
        if record["metric"] == metric
    ]


def test_the_chance_of_winning_by_one_injection_hardly_depends_on_the_seed() -> None:
    found = wins_by_seed(found_alone(rows(), [7], []), "recall_at_fpr_1e-01")
    # One injection falls to one of the two in any case.
    assert found == [0.5] * 8


def test_as_many_injections_that_each_model_alone_finds_are_an_even_chance() -> None:
    found = wins_by_seed(found_alone(rows(), [3, 90], [50, 200]), "recall_at_fpr_1e-01")
    assert found == pytest.approx([0.5] * 8, abs=0.001)


@pytest.mark.parametrize(
    ("this", "other"), [(1, 0), (4, 0), (5, 0), (6, 0), (5, 1), (7, 1), (8, 1), (2, 9), (3, 13), (0, 5), (0, 6)]
)
def test_interval_chance_and_p_value_of_a_rate_agree_however_few_rows_are_discordant(this: int, other: int) -> None:
    pair = found_alone(rows(), list(range(this)), list(range(100, 100 + other)))
    (found,) = (
        one for one in compare(*pair, [], RULE, BootstrapSettings(200, 0)) if one["metric"].startswith("recall")
    )
    assert (found["n_only_this"], found["n_only_other"]) == (this, other)
    p = stats.binomtest(this, this + other).pvalue
    assert found["p_value"] == pytest.approx(p)
    assert (found["low"] > 0 or found["high"] < 0) == (p < 0.05)
    assert found["low"] < found["delta"] < found["high"]
    assert (found["win_probability"] > 0.5) == (this > other and p < 1)
    assert abs(found["win_probability"] - 0.5) == pytest.approx(0.5 - p / 2)


def test_discordant_rows_of_one_galaxy_are_one_piece_of_luck() -> None:
    of = rows()
    pair = found_alone(of, [0, 1, 2, 3, 4, 5], [])
    lumped = [
        Contestant(
            one.name,
            one.version,
            one.rows.with_columns(galaxy_id=pl.col("galaxy_id").replace({f"g{n}": "g0" for n in range(6)})),
            one.thresholds,
        )
        for one in pair
    ]
    found = by_metric(*lumped)["recall_at_fpr_1e-01"]
    assert (found["n_only_this"], found["p_value"], found["win_probability"]) == (6, 1.0, 0.5)
    assert found["low"] < 0 < found["delta"]  # type: ignore[operator]


def test_four_new_false_positives_of_500_controls_do_not_make_a_model_worse() -> None:
    of = rows(500)
    is_lens = of["is_lens"].to_numpy()
    rng = np.random.default_rng(0)
    borderline = 1.98 + 0.01 * rng.random(of.height) * (np.arange(of.height) < 8)
    logit = np.where(is_lens, 4.0, np.where(np.arange(of.height) < 8, borderline, 0.0)) + rng.normal(0, 1e-3, of.height)
    models = [
        Contestant(name, name, of.drop("truth").with_columns(logit=pl.lit(logit + more)), {"fpr_1e-01": 2.0})
        for name, more in (("a", 0.04 * (np.arange(of.height) < 8)), ("b", rng.normal(0, 1e-3, of.height)))
    ]
    found = by_metric(*models)["fpr_at_fpr_1e-01"]
    assert (found["n_only_this"], found["n_only_other"], found["n_negatives"]) == (4, 0, 500)
    assert found["low"] <= 0 < found["delta"]  # type: ignore[operator]
    assert found["win_probability"] == pytest.approx(0.125 / 2)


def test_equally_good_models_are_rarely_sure_to_win_or_to_lose() -> None:
    sure: dict[str, list[bool]] = {}
    for case in range(120):
        of = rows(seed=case)
        pair = model("a", of, 0.05, 1000 + case), model("b", of, 0.05, 2000 + case)
        for record in compare(*pair, [0.1], RULE, BootstrapSettings(200, case)):
            extreme = abs(record["win_probability"] - 0.5) > 0.475  # type: ignore[operator]
            assert extreme == (record["low"] is not None and not record["low"] <= 0 <= record["high"])  # type: ignore[operator]
            sure.setdefault(str(record["metric"]), []).append(extreme)
    # 5 % of 120 are 6; more than 13 come by chance in 0.3 % of such runs.
    assert max(sum(found) for found in sure.values()) <= 13


def of_regions(seed: int, *, n_regions: int = 30, spread: float = 2.0) -> tuple[Contestant, Contestant]:
    """Two equally good models of which one or the other sees badly all over a region."""
    of = rows(n_regions * 20, seed=seed)
    region = np.repeat(np.arange(n_regions), 40)
    favour = np.repeat(np.random.default_rng(seed + 1000).normal(0, spread, n_regions), 40)
    of = of.with_columns(region_id=pl.Series([f"r{n}" for n in region]))
    lens_only = favour * of["is_lens"].to_numpy()
    this = of.with_columns(truth=pl.col("truth") + pl.Series(np.maximum(lens_only, 0)))
    other = of.with_columns(truth=pl.col("truth") + pl.Series(np.maximum(-lens_only, 0)))
    return model("a", this, 0.1, 1), model("b", other, 0.1, 2)


def test_regions_that_favour_one_model_or_the_other_by_chance_show_no_difference() -> None:
    clear = {"galaxies": 0, "regions": 0}
    sure = {"galaxies": 0, "regions": 0}
    for case in range(20):
        this, other = of_regions(case)
        blind = [Contestant(m.name, m.version, m.rows.drop("region_id"), m.thresholds) for m in (this, other)]
        for name, pair in (("regions", (this, other)), ("galaxies", blind)):
            found = by_metric(*pair)
            assert found["auroc"]["cluster"] == {"regions": "region", "galaxies": "galaxy"}[name]
            recall = found["recall_at_fpr_1e-01"]
            clear[name] += not found["auroc"]["low"] <= 0 <= found["auroc"]["high"]  # type: ignore[operator]
            sure[name] += recall["p_value"] < 0.05  # type: ignore[operator]
    # Of 20 true nulls, 3 at most by chance (1 in 60 for 4); galaxies alone would claim a winner in half of them.
    assert clear["regions"] <= 3
    assert sure["regions"] <= 3
    assert min(clear["galaxies"], sure["galaxies"]) >= 8


def test_ten_regions_that_favour_one_model_or_the_other_by_chance_show_no_difference() -> None:
    clear = dict.fromkeys(("auroc", "recall_at_fpr_1e-01", "log_loss"), 0)
    for case in range(20):
        found = by_metric(*of_regions(case, n_regions=10))
        for name in clear:
            assert found[name]["cluster"] == "region"
            clear[name] += not found[name]["low"] <= 0 <= found[name]["high"]  # type: ignore[operator]
    assert max(clear.values()) <= 3


def test_fewer_than_5_regions_say_nothing_of_their_spread_and_the_difference_over_galaxies_says_so() -> None:
    records = by_metric(*of_regions(0, n_regions=4)).values()
    assert {record["cluster"] for record in records} == {"galaxy"}
    told = [str(record["reason"]) for record in records if record["low"] is not None]
    assert len(told) >= 5
    assert all("how much regions differ, which isn't known" in reason for reason in told)


def test_models_that_were_tested_on_other_rows_are_refused() -> None:
    of = rows()
    fewer = of.filter(pl.col("task_id") != "t7")
    with pytest.raises(EvaluationError, match=r"1 and 0 of them are of one alone, or differ in label or pixels \(t7\)"):
        compare(model("a", of, 0.1, 1), model("b", fewer, 0.1, 2), [], RULE, SETTINGS)
    relabelled = of.with_columns(label=pl.when(pl.col("task_id") == "t7").then(0).otherwise("label").cast(pl.Int8))
    with pytest.raises(EvaluationError, match="t7"):
        compare(model("a", of, 0.1, 1), model("b", relabelled, 0.1, 2), [], RULE, SETTINGS)


def test_the_order_of_rows_changes_nothing() -> None:
    of = rows()
    this, other = model("a", of, 0.1, 1), model("b", of, 1.0, 2)
    shuffled = Contestant(
        other.name, other.version, other.rows.sample(fraction=1, shuffle=True, seed=3), other.thresholds
    )
    assert compare(this, shuffled, [0.1], RULE, SETTINGS) == compare(this, other, [0.1], RULE, SETTINGS)


def test_too_few_galaxies_give_values_and_no_interval() -> None:
    of = rows(12)
    for record in by_metric(model("a", of, 0.1, 1), model("b", of, 1.0, 2)).values():
        assert record["low"] is None
        assert "fewer than 20" in str(record["reason"])


def test_rows_alone_in_their_clusters_give_mcnemars_exact_test() -> None:
    this, other = np.array([1] * 9 + [0] * 3 + [1] * 20), np.array([0] * 9 + [1] * 3 + [1] * 20)
    expected = stats.binomtest(3, 12).pvalue
    assert clustered_mcnemar(this, other, np.arange(32)) == pytest.approx(expected)


def test_the_test_of_clusters_is_every_choice_of_their_signs() -> None:
    d = [3, -1, 2, 2, -1]
    this = np.concatenate([[1] * max(k, 0) + [0] * max(-k, 0) for k in d])
    clusters = np.repeat(np.arange(5), np.abs(d))
    sums = [abs(sum(sign * abs(k) for sign, k in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=5)]
    expected = np.mean([total >= abs(sum(d)) for total in sums])
    assert clustered_mcnemar(this, 1 - this, clusters) == pytest.approx(expected)


def test_many_clusters_give_the_limit_of_the_same_test() -> None:
    rng = np.random.default_rng(0)
    this, other = rng.random(25_000) < 0.505, rng.random(25_000) < 0.495
    clusters = np.arange(25_000)
    exact_sized = clustered_mcnemar(this[:19_000], other[:19_000], clusters[:19_000])
    d = this[:19_000].astype(int) - other[:19_000].astype(int)
    assert exact_sized == pytest.approx(stats.chi2.sf(d.sum() ** 2 / (d**2).sum(), 1), abs=0.01)
    assert 0 <= clustered_mcnemar(np.ones(25_000, bool), np.zeros(25_000, bool), clusters) < 1e-12


def test_rows_that_share_their_task_id_are_refused_and_counted() -> None:
    of = rows(30).with_columns(task_id=pl.col("task_id").replace("t7", "t3"))
    with pytest.raises(EvaluationError, match="2 of 60 rows of a share their task_id with another: t3"):
        by_metric(model("a", of, 0.1, 1), model("b", of, 0.1, 2))
