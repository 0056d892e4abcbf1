"""Intervals of a reliability diagram hold the share of lenses at even odds, however few rows one of the classes has."""

import numpy as np
import pytest
from scipy import special

from lens_pipeline.evaluation.reliability_bins import reliability_rows

SHIFT = 2.5
Row = dict[str, object]


def _drawn(seed: int, n_lenses: int, n_controls: int, n_galaxies: int) -> list[tuple[Row, float]]:
    """Rows of a diagram of exact log likelihood ratios, each with its truth: the laws' own share between the bin's edges."""
    rng = np.random.default_rng(seed)
    lens = np.arange(n_lenses + n_controls) < n_lenses
    galaxies = np.arange(lens.size) % n_galaxies
    common = 0.1 if n_galaxies < lens.size else 0.0
    noise = np.sqrt(common) * rng.normal(size=n_galaxies)[galaxies] + np.sqrt(1 - common) * rng.normal(size=lens.size)
    ratio = SHIFT * (noise + SHIFT * lens - SHIFT / 2)
    rows = reliability_rows("beta", ratio, lens, np.where(lens, rng.uniform(0.5, 1.5, lens.size), 1.0), galaxies, 10)
    lowest, highest = (special.logit([row[end] for row in rows]) for end in ("p_low", "p_high"))
    score = np.r_[-9.0, (highest[:-1] + lowest[1:]) / 2 / SHIFT + SHIFT / 2, 9.0 + SHIFT]
    # A normal law's share between two scores, on the side of 0 where it isn't a difference of numbers near 1.
    lenses, controls = np.diff(special.ndtr(score - SHIFT)), -np.diff(special.ndtr(-score))
    return list(zip(rows, lenses / (lenses + controls), strict=True))


@pytest.mark.parametrize(
    "counts", [(30, 5000, 5030), (5000, 30, 5030), (500, 500, 1000), (2000, 40, 40)], ids=lambda counts: str(counts)
)
def test_bins_hold_the_share_of_lenses_where_a_class_is_rare_or_absent_from_them(counts: tuple[int, int, int]) -> None:
    drawn = [found for seed in range(60) for found in _drawn(seed, *counts)]
    held = np.array([row["low"] <= truth <= row["high"] for row, truth in drawn])  # type: ignore[operator]
    place = np.array([row["bin"] for row, _ in drawn])
    assert held.mean() > 0.93
    assert min(held[place == number].mean() for number in np.unique(place)) > 0.85
    one_class = np.array([row["observed"] in (0.0, 1.0) for row, _ in drawn])
    assert one_class.sum() > 20
    assert held[one_class].mean() > 0.93


def test_a_class_of_one_galaxy_has_a_share_and_no_interval_but_the_reason() -> None:
    rng, lens = np.random.default_rng(0), np.arange(200) < 50
    galaxies = np.where(lens, 0, np.arange(200))
    for row in reliability_rows("beta", rng.normal(size=200) + lens, lens, np.ones(200), galaxies, 10):
        assert row["observed"] is not None
        assert (row["low"], row["high"], row["n_eff"]) == (None, None, None)
        assert row["reason"] == "no interval: of lenses all rows come from one galaxy, so their spread is unknown"


def test_equal_scores_are_one_bin_of_even_odds() -> None:
    lens = np.arange(330) < 30
    (row,) = reliability_rows("beta", np.zeros(330), lens, np.ones(330), np.arange(330), 10)
    assert row["observed"] == 0.5
    assert row["low"] < 0.5 < row["high"]  # type: ignore[operator]
    assert row["n_eff"] == 330


def test_rows_that_weigh_nothing_are_in_no_bin() -> None:
    rng, lens = np.random.default_rng(0), np.arange(400) < 100
    ratio = np.round(rng.normal(size=400) + lens)
    plain = reliability_rows("beta", ratio, lens, np.ones(400), np.arange(400), 10)
    # Between the ties of 0 and of 1, so that they would be a bin of their own.
    extra = np.full(50, 0.5)
    more = np.r_[ratio, extra], np.r_[lens, extra > 0], np.r_[np.ones(400), 0 * extra], np.arange(450)
    assert reliability_rows("beta", *more, 10) == plain


@pytest.mark.parametrize("weighs", [True, False], ids=["lenses alone", "controls alone"])
def test_there_is_no_diagram_where_a_class_weighs_nothing(weighs: bool) -> None:
    rng, lens = np.random.default_rng(0), np.arange(200) < 50
    weights = (lens == weighs).astype(float)
    assert reliability_rows("beta", rng.normal(size=200) + lens, lens, weights, np.arange(200), 10) == []
