"""Bricks and HEALPix cells against the survey's own tables and the reference code's values, and the rule at their borders."""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from lens_pipeline.survey.config import RegionKind
from lens_pipeline.survey.regions import (
    N_BRICKS,
    SKY_DEG2,
    Regions,
    brick_area_deg2,
    brick_ids,
    brick_names,
    healpix_nested,
)
from lens_pipeline.survey.tractor import Catalogue, catalogue_files

BRICKS, CELLS = Regions(RegionKind.brick), Regions(RegionKind.healpix, nside=64)


def on_the_sky(n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


@pytest.mark.parametrize(
    ("ra", "dec", "name", "number"),
    # Rows of survey-bricks.fits, and bricks of the shared Tractor files.
    [(28.52, -16.5, "0285m165", 236687), (9.13, 3.5, "0091p035", 350562), (330.42, -0.1254, "3303m002", 330249),
     (330.42, -0.1246, "3303p000", 331689), (0.1, 0.0, "0001p000", 330368)],
)  # fmt: skip
def test_bricks_have_the_names_and_numbers_of_the_survey(ra: float, dec: float, name: str, number: int) -> None:
    found = brick_ids(np.array([ra]), np.array([dec]))
    assert brick_names(found) == [name]
    assert found[0] == number


def test_bricks_cover_the_sky_once() -> None:
    assert N_BRICKS == 662174
    assert brick_area_deg2(np.arange(1, N_BRICKS + 1)).sum() == pytest.approx(SKY_DEG2, rel=1e-9)
    ra, dec = on_the_sky(20000)
    ids = brick_ids(ra, dec)
    assert 1 <= ids.min() <= ids.max() <= N_BRICKS
    assert len(set(brick_names(np.unique(ids)))) == len(np.unique(ids))


# healpy's documentation: nest2ring(2, 0..9) = 13, 5, 4, 0, 15, 7, 6, 1, 17, 9, and nest2ring(16, 1130) = 1504.
NESTED_OF_RING = {13: 0, 5: 1, 4: 2, 0: 3, 15: 4, 7: 5, 6: 6, 1: 7, 17: 8, 9: 9}


def centre_of_ring(nside: int, ring: int) -> tuple[float, float]:
    """Centre of a cell in the ring scheme, north of or on the equator (Gorski et al. 2005, eqs. 4 to 9), degrees."""
    cap = 2 * nside * (nside - 1)
    if ring < cap:
        i = int((1 + np.sqrt(1 + 2 * ring)) // 2)
        j = ring + 1 - 2 * i * (i - 1)
        z, phi = 1 - i * i / (3 * nside * nside), np.pi / (2 * i) * (j - 0.5)
    else:
        i, j = (ring - cap) // (4 * nside) + nside, (ring - cap) % (4 * nside) + 1
        s = 1 if (i + nside) % 2 == 0 else 2
        z, phi = 4 / 3 - 2 * i / (3 * nside), np.pi / (2 * nside) * (j - s / 2)
    return float(np.degrees(phi)), float(np.degrees(np.arcsin(z)))


def test_cells_have_the_numbers_of_the_reference_code() -> None:
    for nside, ring, nested in [(2, ring, nested) for ring, nested in NESTED_OF_RING.items()] + [(16, 1504, 1130)]:
        ra, dec = centre_of_ring(nside, ring)
        assert healpix_nested(nside, np.array([ra]), np.array([dec]))[0] == nested


@pytest.mark.parametrize("nside", [1, 2, 8, 64])
def test_cells_are_nested_in_the_coarser_ones_and_of_one_area(nside: int) -> None:
    ra, dec = on_the_sky(200_000)
    cells = healpix_nested(nside, ra, dec)
    assert (healpix_nested(2 * nside, ra, dec) // 4 == cells).all()
    assert 0 <= cells.min() <= cells.max() < 12 * nside**2
    if nside <= 8:
        counts = np.bincount(cells, minlength=12 * nside**2)
        expected = len(ra) / counts.size
        assert (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


@pytest.mark.parametrize("regions", [BRICKS, CELLS], ids=["brick", "healpix"])
def test_a_galaxy_is_near_a_border_exactly_where_its_margin_leaves_the_region(regions: Regions) -> None:
    ra, dec = on_the_sky(3000, seed=5)
    keep = np.abs(dec) < 85
    ra, dec = ra[keep], dec[keep]
    near = regions.near_border(ra, dec, 60.0)
    assert 0 < near.mean() < 0.5
    # Of a far finer circle, a little smaller and a little larger.
    rng = np.random.default_rng(2)
    own = regions.cells(ra, dec)
    leaves_small = np.zeros(len(ra), dtype=bool)
    for angle in rng.uniform(0, 2 * np.pi, 400):
        east = ra + 58.0 / 3600 * np.cos(angle) / np.cos(np.radians(dec))
        leaves_small |= regions.cells(east % 360, dec + 58.0 / 3600 * np.sin(angle)) != own
    assert not (leaves_small & ~near).any()
    assert not (near & ~regions.near_border(ra, dec, 62.0)).any()


@pytest.mark.parametrize(
    "regions",
    [BRICKS, Regions(RegionKind.healpix, 1024), Regions(RegionKind.healpix, 4096)],
    ids=["brick", "1024", "4096"],
)
def test_no_point_within_the_margin_of_a_galaxy_that_is_kept_lies_in_another_region(regions: Regions) -> None:
    margin = 12.0
    ra, dec = on_the_sky(4000, seed=11)
    kept = ~regions.near_border(ra, dec, margin)
    assert kept.sum() > 500
    places, own = SkyCoord(ra[kept], dec[kept], unit="deg"), regions.cells(ra[kept], dec[kept])
    for angle in np.linspace(0, 360, 240, endpoint=False):
        there = places.directional_offset_by(angle * u.deg, margin * u.arcsec)
        assert (regions.cells(there.ra.deg, there.dec.deg) == own).all()


def test_a_margin_takes_no_galaxy_that_is_more_than_a_hundredth_farther_from_a_border() -> None:
    # A brick's border in declination is as far as the difference in declination.
    beyond = np.array([11.9, 11.999, 12.1, 12.2]) / 3600
    near = BRICKS.near_border(np.full(4, 0.1), 0.125 - beyond, 12.0)
    assert near[:2].all()
    assert not near[3]


def test_galaxies_of_two_bricks_that_are_kept_show_no_common_sky() -> None:
    # Around a corner of four bricks, far from the equator, where bricks of two rows don't line up.
    rng = np.random.default_rng(3)
    ra, dec = 150.0 + rng.uniform(-0.05, 0.05, 4000), 60.125 + rng.uniform(-0.02, 0.02, 4000)
    margin = 12.0
    kept = ~BRICKS.near_border(ra, dec, margin)
    ra, dec, own = ra[kept], dec[kept], BRICKS.cells(ra, dec)[kept]
    x, y = ra * np.cos(np.radians(60.125)), dec
    for number in np.unique(own):
        inside, outside = own == number, own != number
        gap = np.hypot(x[inside][:, None] - x[outside], y[inside][:, None] - y[outside]).min() * 3600
        assert gap >= 2 * margin


def test_right_ascension_wraps_and_the_poles_have_regions() -> None:
    for regions in (BRICKS, CELLS):
        a, b = regions.cells([360.0, 0.0], [10.1, 10.1])
        assert a == b
        assert regions.names(regions.cells([10.0, 10.0], [90.0, -90.0]))
    assert CELLS.names(np.array([7])) == ["hp64-7"]


@pytest.mark.real_data
def test_real_tractor_rows_lie_in_the_brick_that_they_name_or_are_not_primary(real_data: Path) -> None:
    inside = outside = 0
    for path in catalogue_files(str(real_data / "desi_targets")):
        if path.name == "targets.fits":
            continue
        names = ("RA", "DEC", "BRICKID", "BRICKNAME", "MASKBITS")
        rows = pl.DataFrame(pa.Table.from_batches(Catalogue.open(path).batches(names)))
        ids = rows["BRICKID"].to_numpy().astype(np.int64)
        assert brick_names(ids) == rows["BRICKNAME"].to_list()
        own = BRICKS.cells(rows["RA"].to_numpy(), rows["DEC"].to_numpy()) == ids
        inside, outside = inside + own.sum(), outside + (~own).sum()
        # Bit 0: the source touches pixels outside its brick's unique area.
        assert (rows["MASKBITS"].to_numpy()[~own] & 1 == 1).all()
    assert (inside, outside) == (24, 12)


@pytest.mark.real_data
def test_bricks_have_the_borders_of_the_surveys_own_table(real_data: Path) -> None:
    for path in sorted((real_data / "decam_ccds").glob("*/survey-bricks.fits.gz")):
        for brick in Table.read(path):
            assert brick_names(np.array([brick["brickid"]])) == [brick["brickname"]]
            tiny = 1e-6
            corners = [(brick[ra] + side, brick[dec] + up) for ra, side in (("ra1", tiny), ("ra2", -tiny))
                       for dec, up in (("dec1", tiny), ("dec2", -tiny))]  # fmt: skip
            ra, dec = np.array(corners).T
            assert (brick_ids(ra, dec) == brick["brickid"]).all()
            beyond = [(brick["ra1"] - tiny, brick["dec"]), (brick["ra2"] + tiny, brick["dec"]),
                      (brick["ra"], brick["dec1"] - tiny), (brick["ra"], brick["dec2"] + tiny)]  # fmt: skip
            ra, dec = np.array(beyond).T
            assert (brick_ids(ra, dec) != brick["brickid"]).all()
