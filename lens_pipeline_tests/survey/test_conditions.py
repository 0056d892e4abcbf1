import numpy as np
import pytest

from lens_pipeline.survey.conditions import (
    DEPTH_R_MAG,
    SEEING_R_ARCSEC,
    draw_percentile,
    flux_of_mag,
    psfdepth_of_mag,
    transmission,
)


@pytest.mark.parametrize("values", [SEEING_R_ARCSEC, DEPTH_R_MAG])
def test_drawn_conditions_have_the_measured_percentiles(values: np.ndarray) -> None:
    drawn = draw_percentile(np.linspace(0, 1, 200_001), values)
    # 2 % of regions lie outside the measured percentiles and are not made up: inside, quantiles move by that little.
    assert np.percentile(drawn, [16, 50, 84]) == pytest.approx(values[1:4], abs=0.02)
    assert (drawn.min(), drawn.max()) == (values[0], values[-1])


def test_depth_is_the_inverse_variance_whose_five_sigma_flux_has_that_magnitude() -> None:
    assert 5 / np.sqrt(psfdepth_of_mag(24.5)) == pytest.approx(flux_of_mag(24.5))
    assert flux_of_mag(22.5) == pytest.approx(1.0)


def test_dust_dims_blue_light_more_and_unknown_dust_dims_nothing() -> None:
    assert transmission("g", 0.1) < transmission("z", 0.1) < 1
    assert transmission("r", None) == 1
