import numpy as np
import polars as pl
import pytest
from sklearn import metrics as oracle

from lens_pipeline.contracts.catalogue import CONFUSION
from lens_pipeline.evaluation.decision_metrics import ABOVE, Decisions, confusion_table, decision_metrics
from lens_pipeline.evaluation.metrics import Metric

NAMES = ("none", "lens", "ring", "spiral", "merger")


def _rows(k: int, n: int = 400, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[label]
    columns = {f"logit_{name}": logits[:, i] for i, name in enumerate(NAMES[:k])} if k > 2 else {}
    score = np.logaddexp.reduce(logits[:, 1:], axis=1) - logits[:, 0] if k > 1 else logits[:, 0]
    return pl.DataFrame({"logit": score, "label": label, "is_lens": label > 0, **columns}).with_columns(
        galaxy_id=pl.Series([f"g{i // 2}" for i in range(n)]), region_id=pl.Series([f"r{i // 10}" for i in range(n)])
    )


def _by_name(metrics: list[Metric]) -> dict[tuple[str, str], Metric]:
    return {(metric.metric.removesuffix("_at_p"), metric.stratum): metric for metric in metrics}


@pytest.mark.parametrize("k", [2, 3, 5])
def test_what_is_decided_at_a_threshold_is_measured_as_scikit_learn_does(k: int) -> None:
    rows = _rows(k)
    decisions = Decisions.at(rows, 0.3, NAMES[:k])
    actual, decided = rows["label"].to_numpy(), decisions.decided
    found = _by_name(decision_metrics(decisions, "test", "p"))
    one = oracle.precision_recall_fscore_support(actual > 0, decided > 0, average="binary")
    assert [found[name, "all"].value for name in ("precision", "f1")] == pytest.approx([one[0], one[2]], abs=1e-12)
    balanced = oracle.balanced_accuracy_score(actual > 0, decided > 0)
    assert found["balanced_accuracy", "all"].value == pytest.approx(balanced, abs=1e-12)
    assert found["accuracy", "all"].value == pytest.approx(oracle.accuracy_score(actual, decided), abs=1e-12)
    of_class = oracle.precision_recall_fscore_support(actual, decided, labels=range(k))
    for place, name in enumerate(NAMES[:k]):
        ours = [found[kind, f"class {name}"].value for kind in ("precision", "recall", "f1")]
        assert ours == pytest.approx([of_class[i][place] for i in range(3)], abs=1e-12)
        others = found["specificity", f"class {name}"].value
        assert others == pytest.approx(oracle.recall_score(actual != place, decided != place), abs=1e-12)
    for i, kind in enumerate(("precision", "recall", "f1")):
        metric = found[f"macro_{kind}", "all"]
        assert metric.value == pytest.approx(np.mean(of_class[i]), abs=1e-12)
        assert metric.low is not None
        assert metric.high is not None
        assert metric.low < metric.value < metric.high  # type: ignore[operator]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_confusion_table_is_that_of_scikit_learn_for_any_number_of_classes(k: int) -> None:
    rows = _rows(k)
    decisions = Decisions.at(rows, 0.3, NAMES[:k])
    table = confusion_table(decisions, "test", "p")
    CONFUSION.validate(table, where="here")
    n = np.array(table["n"].to_pylist()).reshape(k, k)
    np.testing.assert_array_equal(n, oracle.confusion_matrix(rows["label"], decisions.decided, labels=range(k)))
    assert sum(table["share"].to_pylist()) == pytest.approx(k)


def test_a_class_that_nothing_is_taken_for_has_no_precision_and_no_macro_mean() -> None:
    rows = _rows(2)
    found = _by_name(decision_metrics(Decisions.at(rows, 1e9, NAMES[:2]), "test", "p"))
    for key in (("precision", "all"), ("precision", "class lens"), ("macro_precision", "all")):
        assert (found[key].value, found[key].status) == (None, "undefined")
        assert found[key].reason == "no row was taken for lens"
    assert found["f1", "all"].value == 0
    assert found["recall", "class lens"].value == 0


def test_a_class_without_rows_is_undefined_and_never_zero() -> None:
    rows = _rows(2).filter(pl.col("label") == 0)
    decisions = Decisions.at(rows, 0.3, NAMES[:2])
    found = _by_name(decision_metrics(decisions, "test", "p"))
    assert found["recall", "class lens"].value is None
    assert found["balanced_accuracy", "all"].reason == "no row is of class lens"
    lenses = pl.DataFrame(confusion_table(decisions, "test", "p")).filter(pl.col("actual") == "lens")
    assert lenses["share"].null_count() == 2
    assert set(lenses["reason"]) == {"no row is of class lens"}


def test_several_classes_without_logits_of_their_own_are_told_from_the_first_alone() -> None:
    rows = _rows(3).drop("logit_none", "logit_lens", "logit_ring")
    decisions = Decisions.at(rows, 0.3, NAMES[:3])
    table = confusion_table(decisions, "test", "p")
    assert set(table["decided"].to_pylist()) == {"none", ABOVE}
    assert sum(table["n"].to_pylist()) == rows.height
    found = _by_name(decision_metrics(decisions, "test", "p"))
    assert found["macro_f1", "all"].value is None
    assert "carry no logit of each class" in str(found["macro_f1", "all"].reason)
    assert found["f1", "all"].value is not None


def test_the_interval_of_balanced_accuracy_covers_for_clustered_rows() -> None:
    rng = np.random.default_rng(2)
    galaxies, copies, draws, covered = 40, 10, 300, 0
    chance, icc = np.array([0.9, 0.6]), 0.1
    a, b = chance * (1 - icc) / icc, (1 - chance) * (1 - icc) / icc
    label = np.tile(np.arange(copies) % 2, galaxies)
    rows = pl.DataFrame(
        {"label": label, "is_lens": label > 0, "galaxy_id": np.repeat(np.arange(galaxies), copies).astype(str)}
    )
    for _ in range(draws):
        right = rng.random((galaxies, copies)) < rng.beta(a, b, (galaxies, 2))[:, label[:copies]]
        decided = np.where(right.ravel(), label, 1 - label)
        found = _by_name(decision_metrics(Decisions(rows, decided, NAMES[:2]), "test", "p"))["balanced_accuracy", "all"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= chance.mean() <= found.high
    assert covered / draws >= 0.92


def test_galaxies_that_win_lenses_where_they_lose_controls_leave_less_open_in_the_mean_of_both() -> None:
    rng, label = np.random.default_rng(4), np.tile(np.arange(2), 5000)
    galaxy = np.arange(label.size) // 50
    logit = rng.normal(size=label.size) + rng.normal(size=200)[galaxy] + 2 * label
    rows = pl.DataFrame({"label": label, "is_lens": label > 0, "galaxy_id": galaxy.astype(str)})
    found = _by_name(decision_metrics(Decisions(rows, (logit > 1).astype(np.int64), NAMES[:2]), "test", "p"))
    parts = [found["recall", "class lens"], found["specificity", "all"]]
    half = [(part.high - part.low) / 2 for part in [*parts, found["balanced_accuracy", "all"]]]  # type: ignore[operator]
    right = np.where(label > 0, logit > 1, logit <= 1)
    of_galaxies = [right[(galaxy == number) & (label == k)].mean() for number in range(200) for k in (0, 1)]
    spread = np.reshape(of_galaxies, (200, 2)).mean(axis=1).std(ddof=1) / np.sqrt(200)
    assert half[2] == pytest.approx(1.96 * spread, rel=0.05)
    assert half[2] < 0.7 * np.hypot(*half[:2]) / 2


def _by_chance(n: list[int], right: list[float], rng: np.random.Generator) -> Decisions:
    """Rows of so many of each class, each in a galaxy of its own and right by chance, else taken for the next class."""
    label = np.repeat(np.arange(len(n)), n)
    decided = np.where(rng.random(label.size) < np.array(right)[label], label, (label + 1) % len(n))
    galaxies = np.arange(label.size).astype(str)
    rows = pl.DataFrame({"label": label, "is_lens": label > 0, "galaxy_id": galaxies})
    return Decisions(rows, decided, NAMES[: len(n)])


def test_a_mean_of_shares_is_no_surer_than_the_class_of_few_rows_that_are_all_right() -> None:
    decisions = _by_chance([2000, 30], [0.99, 1.0], np.random.default_rng(0))
    found = _by_name(decision_metrics(decisions, "test", "p"))
    recall = found["recall", "class lens"]
    assert recall.value == 1
    for name in ("balanced_accuracy", "macro_recall"):
        mean = found[name, "all"]
        assert mean.value - mean.low >= (recall.value - recall.low) / 2 > 0.05  # type: ignore[operator]
        assert mean.n_eff is None


@pytest.mark.parametrize(
    ("n", "right"), [([2000, 30], [0.9995, 0.977]), ([2000, 60], [0.99, 0.97]), ([1000, 60, 30], [0.99, 0.95, 0.93])]
)
def test_means_of_shares_of_classes_of_unlike_numbers_hold_the_truth(n: list[int], right: list[float]) -> None:
    rng, draws, covered = np.random.default_rng(len(n) + n[1]), 120, 0
    for _ in range(draws):
        found = _by_name(decision_metrics(_by_chance(n, right, rng), "test", "p"))["macro_recall", "all"]
        covered += found.low <= np.mean(right) <= found.high  # type: ignore[operator]
    # Of 120 intervals that hold in 95 of 100, 107 or fewer do by chance in 1 of 100 such runs.
    assert covered >= 108
