"""The probe: rarely above chance where there is nothing, above it where there is something, and honest about what it can see."""

import numpy as np
import pytest
from scipy.special import ndtr

from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.probe import area, area_interval, paired_probe, unpaired_probe
from lens_pipeline.survey.stamp_features import feature_names, stamp_features


def correlated(rng: np.random.Generator, n: int, p: int) -> Image:
    """Heavy-tailed features that hang together, each on a scale of its own."""
    mixing = np.eye(p) + 0.3 * rng.standard_normal((p, p))
    return np.asarray(rng.standard_t(3, (n, p)) @ mixing * np.geomspace(1e-3, 1e3, p))


@pytest.mark.parametrize(("n", "p"), [(60, 100), (200, 20)])
def test_pairs_without_a_difference_are_above_chance_as_seldom_as_stated(n: int, p: int) -> None:
    rng = np.random.default_rng(7)
    alarms = [paired_probe(correlated(rng, n, p), false_alarms=0.02, seed=i).above_chance for i in range(300)]
    assert sum(alarms) <= 13  # 6 are expected; more than 13 come up once in 300.


def test_sets_without_a_difference_are_above_chance_as_seldom_as_stated() -> None:
    rng = np.random.default_rng(8)
    sets = [correlated(rng, 40, 10) for _ in range(40)]
    alarms = [
        unpaired_probe(one[:15], one[15:], false_alarms=0.05, seed=i)[0].above_chance for i, one in enumerate(sets)
    ]
    assert sum(alarms) <= 6


def test_what_the_probe_says_it_would_see_it_sees_nine_times_in_ten() -> None:
    rng = np.random.default_rng(9)
    seen = []
    for i in range(60):
        quiet = paired_probe(rng.standard_normal((150, 8)), false_alarms=5e-4, seed=i)
        shift = 2.0 * (quiet.least_seen() - 0.5) * np.sqrt(np.pi / 2)
        loud = rng.standard_normal((150, 8))
        loud[:, 0] += shift
        seen.append(paired_probe(loud, false_alarms=5e-4, seed=i).above_chance)
    assert np.mean(seen) > 0.8


def test_the_feature_that_differs_is_named_first() -> None:
    differences = np.random.default_rng(1).standard_normal((100, 5))
    differences[:, 3] += 1.0
    probed = paired_probe(differences, false_alarms=5e-4)
    assert probed.above_chance
    assert probed.features[0] == 3
    assert probed.contrast[3] > 5


def test_features_that_never_differ_are_chance_and_not_an_error() -> None:
    probed = paired_probe(np.zeros((60, 4)), false_alarms=5e-4)
    assert probed.auroc == 0.5
    assert not probed.above_chance


def test_two_sets_are_told_apart_by_their_means() -> None:
    rng = np.random.default_rng(2)
    probed, (low, high) = unpaired_probe(
        rng.standard_normal((40, 6)) + 1, rng.standard_normal((300, 6)), false_alarms=5e-4
    )
    assert 0.85 < low < probed.auroc < high < 1
    assert probed.above_chance


def test_the_interval_of_an_area_covers_it_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(5)
    truth = float(ndtr(1 / np.sqrt(2)))
    label = np.arange(150) < 50
    intervals = [area_interval(rng.standard_normal(150) + label, label) for _ in range(400)]
    assert 0.92 < np.mean([low < truth < high for low, high in intervals]) < 0.98
    assert area_interval(label.astype(float), label)[1] == 1.0
    assert 0.9 < area_interval(label.astype(float), label)[0] < 0.95


def test_the_area_counts_ties_half() -> None:
    assert area(np.array([1.0, 1.0, 0.0]), np.array([True, False, False])) == 0.75


def test_features_have_a_name_each_and_see_only_the_mask() -> None:
    rng = np.random.default_rng(3)
    stamps = rng.standard_normal((2, 3, 32, 32)).astype(np.float32)
    mask = np.ones((32, 32), bool)
    mask[10:20, 10:20] = False
    inside = stamps.copy()
    inside[:, :, 10:20, 10:20] = 1e3
    found = stamp_features(stamps, mask)
    assert found.shape == (2, len(feature_names("grz")))
    assert np.array_equal(found, stamp_features(inside, mask))
