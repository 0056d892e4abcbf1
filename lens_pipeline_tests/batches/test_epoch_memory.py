"""The smallest case of the long figure: opening and an epoch stay within the bound that the largest is held to."""

from reliability.epoch_memory import SIZES, SUBJECT


def test_the_smallest_store_of_the_long_figure_is_read_within_its_bound() -> None:
    case = SUBJECT.case(0)
    assert case.problem is None
    assert case.counts["rows"] == SIZES[0]
    assert 0 <= case.largest["grown_mb"] < SUBJECT.bounds["grown_mb"]
