"""What the logits of val_select say: ties and extremes are found, and the confusion at a threshold can be counted by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.logits import SelectedLogits, gain_error, logits_are_distinct, logits_are_moderate

N = 400


def store(tmp_path: Path, hashes: list[bytes]) -> Publication:
    with Home(tmp_path).stage("tried", "stamp_store") as staging:
        staging.write_table(None, pa.table({"pixel_hash": pa.array(hashes, pa.binary(16))}))
        return staging.commit()


def different(n: int = N) -> list[bytes]:
    return [number.to_bytes(16, "big") for number in range(n)]


def selected(scores: list[float] | np.ndarray, labels: list[int] | None = None) -> SelectedLogits:
    n = len(scores)
    label = np.array(labels if labels is not None else [row % 2 for row in range(n)], dtype=np.int64)
    return SelectedLogits(np.arange(n), label, np.asarray(scores, dtype=np.float64))


def spread() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, N).astype(np.float32).astype(np.float64)


def test_distinct_logits_are_green(tmp_path: Path) -> None:
    check = logits_are_distinct(selected(spread()), store(tmp_path, different()))
    assert check.passed
    assert check.blocking


def test_binary_scores_are_red(tmp_path: Path) -> None:
    check = logits_are_distinct(selected(np.sign(spread())), store(tmp_path, different()))
    assert not check.passed
    assert "share one logit" in check.first[0]


def test_many_small_ties_are_red(tmp_path: Path) -> None:
    check = logits_are_distinct(selected(np.repeat(spread()[: N // 2], 2)), store(tmp_path, different()))
    assert not check.passed
    assert check.count == N // 2


def test_repeats_of_one_stamp_tie_by_right(tmp_path: Path) -> None:
    scores = spread()
    scores[:50] = scores[0]
    hashes = [different()[0]] * 50 + different()[50:]
    assert logits_are_distinct(selected(scores), store(tmp_path, hashes)).passed
    assert not logits_are_distinct(selected(scores), store(tmp_path, different())).passed


def test_logits_beyond_what_float32_can_call_a_probability_are_red_and_advisory() -> None:
    assert logits_are_moderate(selected(spread())).passed
    check = logits_are_moderate(selected(10 * spread()))
    assert not check.passed
    assert not check.blocking


def test_confusion_counts_each_class_at_two_stated_thresholds() -> None:
    labels = [0] * 200 + [1] * 100
    scores = [
        *(-1.0 - row / 100 for row in range(198)),
        0.5,
        2.0,
        *(1.0 + row / 100 for row in range(90)),
        *([-3.0] * 10),
    ]
    rows = selected(scores, labels).confusion(["control", "lens"]).to_pylist()
    assert [(row["class"], row["n"], row["called_positive"]) for row in rows[:2]] == [
        ("control", 200, 2),
        ("lens", 100, 90),
    ]
    assert rows[0]["logit"] == 0.0
    # At most 1 % of 200 controls, 2, may lie above: the threshold is the third highest.
    assert rows[2]["logit"] == pytest.approx(-1.0)
    assert [(row["called_positive"], row["share"]) for row in rows[2:]] == [(2, 0.01), (90, 0.9)]


def test_a_rate_that_the_controls_cannot_resolve_is_null() -> None:
    rows = selected([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1]).confusion(["control", "lens"]).to_pylist()
    assert [row["called_positive"] for row in rows] == [2, 2, None, None]


def test_knowing_the_shares_alone_gives_their_entropy() -> None:
    assert selected([0.1] * 4, [0, 0, 1, 1]).constant_loss() == pytest.approx(np.log(2))
    rare = selected([0.1] * 40, [0] * 39 + [1])
    assert rare.constant_loss() == pytest.approx(-(39 * np.log(39 / 40) + np.log(1 / 40)) / 40)


def test_with_classes_that_weigh_the_same_no_constant_does_better_than_the_logarithm_of_their_number() -> None:
    assert selected([0.1] * 40, [0] * 39 + [1]).constant_loss(balanced=True) == pytest.approx(np.log(2))


def test_what_makes_a_row_hard_in_both_epochs_is_no_error_of_their_difference(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    first = random.normal(0, 3, N).astype(np.float32)
    second = (first + random.normal(0.2, 0.1, N) * np.where(np.arange(N) % 2, 1, -1)).astype(np.float32)
    with Home(tmp_path).stage("tried", "lens_classifier") as staging:
        rows = {"epoch": np.repeat([4, 7], N), "logical": np.tile(np.arange(N)[::-1], 2)}
        rows |= {"label": rows["logical"] % 2, "logit_0": np.concatenate([first[::-1], second[::-1]])}
        staging.write_table("validation_logits", pa.table({**rows, "epoch": pa.array(rows["epoch"], pa.int64())}))
        version = staging.commit()
    signed = np.where(np.arange(N) % 2, -1, 1)
    losses = [np.log1p(np.exp(signed * logits.astype(np.float64))) for logits in (first, second)]
    found = gain_error(version, 4, 7)
    assert found == pytest.approx(np.std(losses[0] - losses[1], ddof=1) / np.sqrt(N))
    assert found < 0.2 * np.std(losses[1], ddof=1) / np.sqrt(N)
