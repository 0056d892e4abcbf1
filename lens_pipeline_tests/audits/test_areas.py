"""The area of two sets that come in pairs: scikit-learn's value, and an interval that knows what it rests on."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from lens_pipeline.audits.areas import paired_area


def test_the_area_is_scikit_learn_s_with_ties() -> None:
    first, second = np.random.default_rng(3).integers(0, 9, (2, 70)).astype(float)
    wanted = roc_auc_score([1] * 70 + [0] * 70, np.concatenate([first, second]))
    assert paired_area(first, second)[0] == pytest.approx(wanted, abs=1e-12)


def test_the_area_of_pairs_is_that_of_all_rows_and_its_interval_knows_that_pairs_are_alike() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        host = rng.standard_normal(150)
        first, second = (host + 0.3 * rng.standard_normal(150) for _ in range(2))
        value, low, high = paired_area(first, second)
        assert value == pytest.approx((first[:, None] > second).mean())
        covered += low < 0.5 < high
        assert high - low < 0.06
    assert covered >= 180


def test_pairs_of_which_none_or_few_differ_leave_open_what_others_may_do() -> None:
    same = np.arange(100.0)
    value, low, high = paired_area(same, same)
    assert (value, low, high) == pytest.approx((0.5, 0.398, 0.602), abs=1e-3)
    assert paired_area(same + 1000, same)[:2] == pytest.approx((1.0, 0.964), abs=1e-3)
    few = same.copy()
    few[:3] += 0.5
    assert paired_area(few, same)[1] < 0.45
