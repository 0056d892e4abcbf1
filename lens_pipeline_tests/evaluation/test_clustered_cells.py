"""Many cells at once say what one cell at a time says."""

import numpy as np
import pytest
from scipy import special

from lens_pipeline.evaluation import cell_sums
from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.intervals import Estimate, clustered_proportion
from lens_pipeline.evaluation.metrics import Clusters, over_clusters

_NUMBERS = ("value", "low", "high", "n_eff")


def _rows(case: int) -> tuple[list[np.ndarray], np.ndarray, int, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(case)
    n, n_cells = int(rng.integers(1, 400)), int(rng.integers(1, 9))
    galaxies = np.sort(rng.integers(0, rng.integers(1, n + 1), n))
    if case % 5 == 0:
        galaxies = np.arange(n)
    cells = rng.integers(0, rng.integers(1, n_cells + 1), n).astype(np.uint16)
    weights = rng.lognormal(0, 1, n) if case % 2 else np.ones(n)
    weights[rng.random(n) < (0.1 if case % 7 == 1 else 0.0)] = 0.0
    outcomes = [rng.random(n) < rate for rate in (0.0, 0.02, 0.5, 0.97, 1.0)]
    return outcomes, cells, n_cells, galaxies, weights


@pytest.mark.parametrize("block", [7, 65_536])
def test_each_cell_is_what_it_would_be_alone(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(cell_sums, "_BLOCK", block)
    for case in range(120):
        outcomes, cells, n_cells, galaxies, weights = _rows(case)
        exact = case % 3 == 0
        found = clustered_proportions(outcomes, cells, n_cells, galaxies, weights, exact=exact)
        for outcome, of_outcome in zip(outcomes, found, strict=True):
            for cell, (n_recovered, got) in enumerate(of_outcome):
                mine = cells == cell
                assert n_recovered == outcome[mine].sum()
                _same(
                    got,
                    clustered_proportion(outcome[mine], galaxies[mine], weights[mine], exact=exact),
                    f"{case} {cell}",
                )


@pytest.mark.parametrize("block", [7, 65_536])
def test_each_cell_over_its_regions_is_what_it_would_be_alone(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(cell_sums, "_BLOCK", block)
    for case in range(120):
        outcomes, cells, n_cells, galaxies, weights = _rows(case)
        regions = 1 + galaxies * (3, 8, 40)[case % 3] // (galaxies.max() + 1)
        regions -= case % 4 == 3
        found = clustered_proportions(outcomes, cells, n_cells, galaxies, weights, regions=regions)
        for outcome, of_outcome in zip(outcomes, found, strict=True):
            for cell, (_, got) in enumerate(of_outcome):
                mine = cells == cell
                y, w = outcome[mine], weights[mine]
                wanted = over_clusters(
                    Clusters(galaxies[mine], regions[mine]),
                    lambda clusters, whole: clustered_proportion(y, clusters, w, whole_where_few=whole),  # noqa: B023
                )
                assert got.cluster == wanted.cluster
                _same(got, wanted, f"{case} {cell}", of_galaxies=np.unique(galaxies[mine]).size if w.any() else 0)


@pytest.mark.parametrize(("n_regions", "rows"), [(6, 100), (15, 24), (15, 400), (60, 24)])
def test_cells_of_whole_regions_that_differ_hold_the_truth(n_regions: int, rows: int) -> None:
    rng = np.random.default_rng([n_regions, rows])
    spread, middle = 0.3, 0.4
    nodes, mass = np.polynomial.hermite_e.hermegauss(41)
    truth = mass @ special.expit(middle + spread * nodes) / mass.sum()
    n_cells, draws = 40, 10
    region = np.repeat(np.arange(n_cells * n_regions), rows)
    cells = (region // n_regions).astype(np.uint16)
    held = {None: 0, "regions": 0}
    for _ in range(draws):
        chance = special.expit(middle + rng.normal(0, spread, n_cells * n_regions))
        y = [rng.random(region.size) < chance[region]]
        for name, regions in ((None, None), ("regions", 1 + region)):
            found = clustered_proportions(
                y, cells, n_cells, np.arange(region.size), np.ones(region.size), regions=regions
            )
            held[name] += sum(one.low <= truth <= one.high for _, one in found[0])  # type: ignore[operator]
    # Of 400 intervals that hold in 95 of 100, fewer than 366 do by chance in 1 of 20 such runs.
    assert held["regions"] >= 366 > held[None]


def test_rows_in_another_order_than_their_galaxies_are_refused() -> None:
    with pytest.raises(ValueError, match="in the order of their galaxies"):
        clustered_proportions([np.ones(2, bool)], np.zeros(2, np.uint16), 1, np.array([1, 0]), np.ones(2))


def test_rows_in_another_order_than_their_regions_are_refused() -> None:
    here = [np.ones(2, bool)], np.zeros(2, np.uint16), 1, np.arange(2), np.ones(2)
    with pytest.raises(ValueError, match="in the order of their regions"):
        clustered_proportions(*here, regions=np.array([2, 1]))


def _same(got: Estimate, wanted: Estimate, where: str, *, of_galaxies: int | None = None) -> None:
    n_clusters = wanted.n_clusters if of_galaxies is None else of_galaxies
    assert (got.n, got.n_clusters, got.reason) == (wanted.n, n_clusters, wanted.reason), where
    for name in _NUMBERS:
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert (ours is None) == (theirs is None), (where, name)
        if ours is not None:
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12), (where, name)
