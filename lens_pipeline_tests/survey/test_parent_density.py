"""Galaxies per square degree: what is counted, over which area, and how sure."""

import numpy as np
import pytest
from scipy.stats import poisson

from lens_pipeline.survey.parent_density import galaxy_density


def test_galaxies_left_out_near_a_border_or_without_an_image_and_known_lenses_count_and_rows_that_are_none_do_not() -> (
    None
):
    left_out = {"near_border": 12, "known_lens": 2, "no_image": 3, "not_primary": 40, "repeated": 9, "no_position": 1}
    density = galaxy_density(280, {"left_out": left_out, "area_deg2": 0.5})
    assert (density.n, density.value) == (297, 594.0)
    assert density.low < density.value < density.high


def test_the_interval_is_the_published_one_of_four_and_of_no_galaxies() -> None:
    # Gehrels 1986 (ApJ 303, 336), for 97.5 % on a side; 3.689 is -ln 0.025.
    four, none = (galaxy_density(n, {"left_out": {}, "area_deg2": 2.0}) for n in (4, 0))
    assert (four.low * 2, four.high * 2) == pytest.approx((1.0899, 10.2416), abs=1e-4)
    assert (none.value, none.low, none.high * 2) == pytest.approx((0, 0, -np.log(0.025)))


@pytest.mark.parametrize("mean", [0.5, 3.0, 30.0, 300.0])
def test_the_interval_holds_the_truth_in_95_of_100_surveys_or_more(mean: float) -> None:
    n = np.arange(int(mean + 12 * mean**0.5) + 20)
    held = [(found := galaxy_density(int(k), {"left_out": {}, "area_deg2": 1.0})).low <= mean <= found.high for k in n]
    assert poisson.pmf(n, mean)[held].sum() >= 0.95
