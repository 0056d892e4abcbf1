import numpy as np
import polars as pl
import pytest

from lens_pipeline.evaluation.fpr_bound import fpr_bound
from lens_pipeline.evaluation.intervals import Estimate, clopper_pearson

NONE_SO_HIGH = Estimate(0.0, None, None, 50, 50, None)


def rows(logits_of_controls: np.ndarray, galaxies: list[str], **columns: list[str]) -> pl.DataFrame:
    """A hundred lenses of logits 1 to 100, and controls below the lenses' median."""
    logits = np.concatenate([np.arange(1.0, 101.0), logits_of_controls])
    is_lens = np.arange(logits.size) < 100
    names = [f"lens {n}" for n in range(100)] + galaxies
    return pl.DataFrame({"logit": logits, "is_lens": is_lens, "galaxy_id": names} | columns)


def controls(galaxies: list[str], **columns: list[str]) -> pl.DataFrame:
    """Fifty controls, of which 3 lie as high as the lens of rank 61, one of them at its very logit."""
    return rows(np.concatenate([[40.0, 45.0, 49.0], np.linspace(-20, 39.9, 47)]), galaxies, **columns)


# Of 100 lenses 60 lie above the true threshold for TPR 0.5 at most, in 97.5 % of draws.
def test_controls_are_counted_down_to_the_lens_that_is_surely_as_low_as_the_threshold() -> None:
    bound = fpr_bound(controls([f"control {n}" for n in range(50)]), 0.5, NONE_SO_HIGH)
    assert bound.high == pytest.approx(clopper_pearson(3, 50)[1])
    assert (bound.value, bound.low, bound.n_eff) == (None, 0.0, 50.0)
    assert bound.reason is not None
    assert bound.reason.startswith(
        "0 of 50 distinct controls lie as high; 3 lie as high as the lens of rank 61 of 100, which is surely as low"
    )
    assert "regions" not in bound.reason


def test_controls_of_unequal_galaxies_count_for_as_many_equal_ones() -> None:
    bound = fpr_bound(controls([f"control {n // 2 if n < 10 else n}" for n in range(50)]), 0.5, NONE_SO_HIGH)
    # Five galaxies of two controls and forty of one: 50^2 / (5 x 4 + 40).
    assert bound.n_eff == 41
    assert bound.high == pytest.approx(clopper_pearson(3 / 50 * 41, 41)[1])


def test_a_bound_says_that_it_leaves_out_how_much_regions_differ() -> None:
    galaxies = [f"control {n}" for n in range(50)]
    bound = fpr_bound(controls(galaxies, region_id=[f"region {n % 10}" for n in range(150)]), 0.5, NONE_SO_HIGH)
    assert bound.reason is not None
    assert bound.reason.endswith(
        "the interval leaves out how much regions differ, which isn't known: no false positive tells it"
    )
