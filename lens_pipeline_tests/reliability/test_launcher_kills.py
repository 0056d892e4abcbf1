"""A few cases of the long figure; the others are taken by ``python -m reliability launcher_kills``."""

import pytest

from reliability.launcher_kills import KINDS, TAKEN_OVER, disturbed


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", [("step", "SIGTERM"), TAKEN_OVER], ids=" ".join)
def test_a_run_under_the_real_launcher_that_is_disturbed_ends_as_an_undisturbed_one(kind: tuple[str, str]) -> None:
    case = disturbed(KINDS.index(kind))
    assert case.problem is None
    assert case.n == 1
