import numpy as np
import pytest

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.survey.densities import Density


@pytest.fixture
def stepped() -> Density:
    """Rises, falls to nothing, jumps, stays."""
    return Density.of([1, 2, 3, 3, 4], [0, 2, 0, 1, 1], "x")


def test_a_density_integrates_to_one_and_its_share_is_the_integral(stepped: Density) -> None:
    x = np.linspace(1, 4, 30_001)
    assert np.trapezoid(stepped.at(x), x) == pytest.approx(1, abs=1e-4)
    assert stepped.share(1, 4) == pytest.approx(1)
    assert stepped.share(3, 4) == pytest.approx(1 / 3)
    assert stepped.share(1.5, 2.5) == pytest.approx(1.5 / 3)
    assert stepped.at([0.5, 4.5]).tolist() == [0, 0]


def test_a_quantile_undoes_the_share_below_it(stepped: Density) -> None:
    for p in np.linspace(0.001, 0.999, 97):
        assert float(stepped.below(stepped.quantile(p))) == pytest.approx(p, abs=1e-12)
    assert (stepped.quantile(0.0), stepped.quantile(1.0)) == (pytest.approx(1), pytest.approx(4))


def test_draws_between_two_values_stay_there_and_follow_the_density(stepped: Density) -> None:
    drawn = np.array([stepped.between(1.5, 3.5, u) for u in (np.arange(4000) + 0.5) / 4000])
    assert (drawn.min() >= 1.5, drawn.max() <= 3.5) == (True, True)
    assert (drawn < 2).mean() == pytest.approx(stepped.share(1.5, 2) / stepped.share(1.5, 3.5), abs=1e-3)
    assert not np.any((drawn > 2.99) & (drawn < 3))


def test_a_uniform_density_of_no_width_is_a_point() -> None:
    point = Density.uniform(1.2, 1.2, "x")
    assert (point.quantile(0.3), point.between(1.0, 2.0, 0.7), point.share(1.0, 2.0)) == (1.2, 1.2, 1.0)


def test_what_is_held_out_has_no_density_and_the_rest_keeps_its_form() -> None:
    slope = Density.of([0, 4], [0, 1], "x")
    left = slope.without(1, 2, "x")
    assert left.share(1, 2) == 0
    assert left.share(0, 4) == pytest.approx(1)
    assert left.share(3, 4) / left.share(0, 1) == pytest.approx(slope.share(3, 4) / slope.share(0, 1))
    assert all(not 1 < left.between(0, 4, u) < 2 for u in np.linspace(0, 1, 301))
    assert slope.without(7, 9, "x") is slope
    assert slope.without(-1, 1, "x").edges[1] == 4
    with pytest.raises(ConfigError, match="what is left can't be normalised"):
        slope.without(0, 4, "what is left")


@pytest.mark.parametrize(
    ("knots", "heights", "said"),
    [
        ([1, 2], [0, 0], "its integral is 0"),
        ([1, 2], [1, -1], "negative or not finite: 1, -1"),
        ([1, 2], [1, float("nan")], "negative or not finite"),
        ([2, 1], [1, 1], "its knots fall or aren't finite: 2, 1"),
        ([1, float("inf")], [1, 1], "aren't finite"),
        ([1], [1], "it has 1 knots"),
        ([1, 2], [1, 1, 1], "2 knots have 3 heights"),
        ([1, 1], [1, 1], "its integral is 0"),
    ],
)
def test_what_is_no_density_is_refused_by_name(knots: list[float], heights: list[float], said: str) -> None:
    with pytest.raises(ConfigError, match=f"density of theta_e can't be normalised: .*{said}"):
        Density.of(knots, heights, "theta_e")
