"""Some of the long figure, each manner twice: ``python -m reliability stamps_kills`` has all."""

import pytest

from reliability.stamps_kills import case


@pytest.mark.parametrize("number", range(6))
def test_stamps_whose_rendering_was_killed_are_gone_on_with_and_end_in_the_same_bytes(number: int) -> None:
    assert case(number).problem is None
