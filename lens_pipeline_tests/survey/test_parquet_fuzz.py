"""A slice of the damaged and crafted parquet files that `python -m reliability parquet_fuzz` tries by the thousand."""

import pytest

from reliability.compact_thrift import tokens
from reliability.parquet_fuzz import SUBJECT, _sound, _split


@pytest.mark.parametrize("family", [0, 1, 2, 3], ids=["flipped", "footer", "page", "after publication"])
def test_damaged_and_crafted_parquet_is_refused_by_name_or_read_as_it_was(family: int) -> None:
    cases = {number: SUBJECT.case(number) for number in range(family, 200, 4)}
    assert {number: case.problem for number, case in cases.items() if case.problem} == {}
    outcomes = {name for case in cases.values() for name in case.counts}
    assert outcomes & {"refused", "refused_after_publication"}


def test_a_footer_that_made_arrow_end_the_whole_process_is_a_refusal() -> None:
    # Two numbers of its size statistics: Arrow 25 throws where nobody catches.
    case = SUBJECT.case(345)
    assert case.problem is None
    assert case.counts["refused"] == 1


def test_the_lies_are_told_where_the_footer_has_its_numbers() -> None:
    sound, table = _sound(0)
    _, footer = _split(sound)
    found, end = tokens(footer)
    assert end == len(footer)
    assert [token.value for token in found if token.path == (3,)] == [table.num_rows]
