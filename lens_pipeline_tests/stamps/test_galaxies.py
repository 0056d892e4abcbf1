"""Rows without a galaxy name are one galaxy where they share a place on the sky."""

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.stamps.galaxies import Positions

ARCSEC = 1 / 3600


def ids(names: list[str | None] | None, positions: list[tuple[float, float]], match: float = 1.0) -> list[str | None]:
    ra, dec = np.array(positions, dtype=np.float64).reshape(-1, 2).T
    named = pa.nulls(len(ra), pa.string()) if names is None else pa.array(names, pa.string())
    seen = Positions()
    for row in range(0, len(ra), 3):
        seen.add(named[row : row + 3], ra[row : row + 3], dec[row : row + 3])
    found: list[str | None] = seen.match(match).complete(named, ra, dec).to_pylist()
    return found


def test_positions_within_the_radius_are_one_galaxy_and_others_are_not() -> None:
    near, far = (10.0, 60.0 + 0.8 * ARCSEC), (10.0, 60.0 + 2.5 * ARCSEC)
    first, second, third = ids(None, [(10.0, 60.0), near, far])
    assert first == second != third
    assert first == "J010.000000+60.000000"


@pytest.mark.parametrize("dec", [0.0, 60.0, 89.0])
def test_right_ascension_shrinks_with_declination_and_wraps_around(dec: float) -> None:
    apart = 0.9 * ARCSEC / np.cos(np.radians(dec))
    assert len(set(ids(None, [(0.0, dec), (360.0 - apart, dec)]))) == 1
    assert len(set(ids(None, [(0.0, dec), (360.0 - 1.5 * apart, dec)]))) == 2


def test_names_are_kept_and_rows_without_one_take_the_name_beside_them() -> None:
    positions = [(10.0, 0.0), (10.0, 0.1 * ARCSEC), (20.0, 0.0)]
    assert ids(["b", None, ""], positions) == ["b", "b", "J020.000000+00.000000"]
    assert ids(["b", "a", None], [*positions[:2], (10.0, 0.0)]) == ["b", "a", "a"]


def test_a_row_with_neither_name_nor_position_has_no_galaxy() -> None:
    assert ids([None, "x"], [(np.nan, np.nan), (np.nan, np.nan)]) == [None, "x"]
    assert ids(None, []) == []


def test_the_order_of_rows_changes_nothing() -> None:
    random = np.random.default_rng(0)
    base = random.uniform(0, 360, (50, 2)) * [1, 0.2]
    positions = np.repeat(base, 4, axis=0) + random.normal(0, 0.1 * ARCSEC, (200, 2))
    order = random.permutation(200)
    listed = ids(None, [tuple(p) for p in positions])
    shuffled = ids(None, [tuple(p) for p in positions[order]])
    assert shuffled == [listed[i] for i in order]
    assert len(set(listed)) == 50
