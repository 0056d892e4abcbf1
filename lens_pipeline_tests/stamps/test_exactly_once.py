"""A slice of the combinations that `python -m reliability exactly_once` tries in full."""

import pytest

from reliability.exactly_once import SUBJECT


# One of every order, every number of ranks and of threads.
@pytest.mark.parametrize("number", [6, 45, 63, 87, 225])
def test_any_ranks_threads_batch_and_order_taken_up_at_every_step_feed_the_same_rows(number: int) -> None:
    assert SUBJECT.case(number).problem is None
