"""Many cells at once say what one cell at a time says."""

import numpy as np
import pytest

from lens_pipeline.evaluation import clustered_cells
from lens_pipeline.evaluation.clustered_cells import clustered_proportions
from lens_pipeline.evaluation.intervals import Estimate, clustered_proportion

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
    monkeypatch.setattr(clustered_cells, "_BLOCK", block)
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


def test_rows_in_another_order_than_their_galaxies_are_refused() -> None:
    with pytest.raises(ValueError, match="in the order of their galaxies"):
        clustered_proportions([np.ones(2, bool)], np.zeros(2, np.uint16), 1, np.array([1, 0]), np.ones(2))


def _same(got: Estimate, wanted: Estimate, where: str) -> None:
    assert (got.n, got.n_clusters, got.reason) == (wanted.n, wanted.n_clusters, wanted.reason), where
    for name in _NUMBERS:
        ours, theirs = getattr(got, name), getattr(wanted, name)
        assert (ours is None) == (theirs is None), (where, name)
        if ours is not None:
            assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12), (where, name)
