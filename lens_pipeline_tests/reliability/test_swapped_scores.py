"""Some of the long figure, each move once: ``python -m reliability swapped_scores`` has all."""

import numpy as np
import pytest

import reliability.swapped_scores
from reliability.swapped_scores import MOVES, case


@pytest.mark.parametrize("number", range(len(MOVES)), ids=[*MOVES])
def test_scores_that_moved_on_their_way_into_the_table_are_red_and_others_green(number: int) -> None:
    assert case(number).problem is None


def test_a_check_that_sees_nothing_would_fail_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lens_pipeline.scoring.checks.score_digests",
        lambda rows, logits, classifiers: np.zeros(len(rows), np.uint64),
    )
    monkeypatch.setattr(reliability.swapped_scores, "score_digests", lambda rows, *_: np.zeros(len(rows), np.uint64))
    assert case(0).problem == "two swapped: green"
