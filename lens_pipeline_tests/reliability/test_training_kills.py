"""Some of the long figure: every rank and phase, steps of the whole run: ``python -m reliability training_kills`` has all."""

import pytest

from reliability.training_kills import SUBJECT, ambushes, kill


@pytest.mark.parametrize(
    "number", range(40), ids=lambda number: ", ".join(f"rank {a.victim} {a.phase} {a.step}" for a in ambushes(number))
)
def test_a_training_that_is_killed_goes_on_and_ends_with_the_bits_of_one_that_was_left_alone(number: int) -> None:
    case = kill(number)
    assert case.problem is None
    assert case.counts == {"kills": len(ambushes(number)), "points that a run doesn't reach": 0}
    assert all(value <= SUBJECT.bounds[name] for name, value in case.largest.items())
