"""Regions of the sky, the units of splitting: Legacy Surveys bricks or HEALPix cells, and which galaxies are near a border.

Belongs here: geometry alone. A galaxy is near a border where a circle around it leaves its region. If the circle is as wide as
half a stamp's diagonal, stamps of galaxies that are not near a border show no sky of another region, so no pixel is seen from
two splits, whatever the angle between stamp and border.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lens_pipeline.survey.config import RegionKind

Degrees = NDArray[np.float64]
Cells = NDArray[np.int64]

_BRICK_DEG = 0.25
# The circle is tried at so many corners of the polygon around it: it lies within, and the corners 0.5 % beyond it.
_DIRECTIONS = 32
SKY_DEG2 = 4 * np.pi * np.degrees(1) ** 2


@dataclass(frozen=True)
class Regions:
    """One way to cut the sky.

    Attributes
    ----------
    nside : int
        HEALPix cells on a side of a base pixel, a power of 2; not used for bricks.
    """

    kind: RegionKind
    nside: int = 64

    def cells(self, ra: ArrayLike, dec: ArrayLike) -> Cells:
        """Find the region that holds each position (ICRS, degrees): a BRICKID or a nested HEALPix index."""
        ra, dec = np.asarray(ra, dtype=float), np.asarray(dec, dtype=float)
        return brick_ids(ra, dec) if self.kind is RegionKind.brick else healpix_nested(self.nside, ra, dec)

    def names(self, cells: Cells) -> list[str]:
        """Names of regions: a BRICKNAME, or HEALPix resolution and index."""
        if self.kind is RegionKind.brick:
            return brick_names(cells)
        return [f"hp{self.nside}-{cell}" for cell in cells.tolist()]

    def near_border(self, ra: ArrayLike, dec: ArrayLike, margin_arcsec: float) -> NDArray[np.bool_]:
        """Whether a circle around each position leaves its region.

        The corners of a polygon around the circle are looked at: where a straight border cuts the circle, one of them is
        beyond. Some positions up to 0.5 % farther from a border than the margin count as near to it, none that is nearer is
        missed.
        """
        ra, dec = np.asarray(ra, dtype=float), np.asarray(dec, dtype=float)
        own, radius = self.cells(ra, dec), np.radians(margin_arcsec / 3600) / np.cos(np.pi / _DIRECTIONS)
        sin_ra, cos_ra, sin_dec, cos_dec = (f(np.radians(x)) for x in (ra, dec) for f in (np.sin, np.cos))
        near = np.zeros(own.shape, dtype=bool)
        for angle in np.arange(_DIRECTIONS) * 2 * np.pi / _DIRECTIONS:
            # In the plane of the position's meridian and across it; near a pole right ascensions alone won't do.
            north, east = np.sin(radius) * np.cos(angle), np.sin(radius) * np.sin(angle)
            outward, up = np.cos(radius) * cos_dec - north * sin_dec, np.cos(radius) * sin_dec + north * cos_dec
            x, y = outward * cos_ra - east * sin_ra, outward * sin_ra + east * cos_ra
            there = np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arctan2(up, np.hypot(x, y)))
            near |= self.cells(*there) != own
        return near


def _brick_rows() -> tuple[NDArray[np.float64], Cells, Cells]:
    """Centre, number of bricks and first BRICKID of every row of bricks, as in desiutil.brick of the Legacy Surveys."""
    centre = np.arange(-90, 90 + _BRICK_DEG / 2, _BRICK_DEG)
    widest = np.cos(np.radians(np.abs(centre) - _BRICK_DEG / 2))
    count = (np.ceil(360 / _BRICK_DEG * widest / 2) * 2).astype(np.int64)
    count[0] = count[-1] = 1
    return centre, count, np.concatenate([[0], np.cumsum(count)[:-1]]) + 1


_ROW_CENTRE, _ROW_COUNT, _ROW_FIRST = _brick_rows()
N_BRICKS = int(_ROW_COUNT.sum())


def brick_ids(ra: Degrees, dec: Degrees) -> Cells:
    """BRICKID of the brick whose unique area holds each position (degrees)."""
    row = np.floor((dec + 90 + _BRICK_DEG / 2) / _BRICK_DEG).astype(np.int64).clip(0, len(_ROW_COUNT) - 1)
    column = np.floor(ra % 360 / 360 * _ROW_COUNT[row]).astype(np.int64).clip(0, _ROW_COUNT[row] - 1)
    return np.asarray(_ROW_FIRST[row] + column)


def brick_names(ids: Cells) -> list[str]:
    """BRICKNAME of bricks: tenths of a degree of the centre's right ascension and declination."""
    ra, dec = _brick_centres(ids)
    return [
        f"{int(10 * east):04d}{'m' if north < 0 else 'p'}{int(10 * abs(north)):03d}"
        for east, north in zip(ra.tolist(), dec.tolist(), strict=True)
    ]


def brick_area_deg2(ids: Cells) -> Degrees:
    """Area of bricks' unique parts, square degrees."""
    row = _row_of(ids)
    low, high = (np.clip(_ROW_CENTRE[row] + half, -90, 90) for half in (-_BRICK_DEG / 2, _BRICK_DEG / 2))
    height = np.degrees(np.sin(np.radians(high)) - np.sin(np.radians(low)))
    return np.asarray(360 / _ROW_COUNT[row] * height)


def _row_of(ids: Cells) -> Cells:
    return np.asarray(np.searchsorted(_ROW_FIRST, ids, side="right") - 1)


def _brick_centres(ids: Cells) -> tuple[Degrees, Degrees]:
    row = _row_of(ids)
    return (ids - _ROW_FIRST[row] + 0.5) * 360 / _ROW_COUNT[row], _ROW_CENTRE[row]


def healpix_nested(nside: int, ra: Degrees, dec: Degrees) -> Cells:
    """HEALPix index in the nested scheme (Gorski et al. 2005, ApJ 622, 759, sect. 5 and the reference code).

    Parameters
    ----------
    nside : int
        A power of 2.
    """
    z, quarter = np.sin(np.radians(dec)), (ra % 360) / 90
    equatorial = np.abs(z) <= 2 / 3
    # Between the polar caps cells lie between lines that rise and fall with right ascension.
    up, down = nside * (0.5 + quarter), nside * z * 0.75
    falling, rising = np.floor(up - down).astype(np.int64), np.floor(up + down).astype(np.int64)
    face_f, face_r = falling // nside, rising // nside
    face = np.where(face_f == face_r, face_f | 4, np.where(face_f < face_r, face_f, face_r + 8))
    x, y = rising % nside, nside - 1 - falling % nside
    # In a cap they narrow towards the pole.
    base = np.minimum(quarter.astype(np.int64), 3)
    along, reach = quarter - base, nside * np.cos(np.radians(dec)) * np.sqrt(3 / (1 + np.abs(z)))
    a = np.minimum(np.floor(along * reach).astype(np.int64), nside - 1)
    b = np.minimum(np.floor((1 - along) * reach).astype(np.int64), nside - 1)
    north = z >= 0
    face = np.where(equatorial, face, np.where(north, base, base + 8))
    x = np.where(equatorial, x, np.where(north, nside - 1 - b, a))
    y = np.where(equatorial, y, np.where(north, nside - 1 - a, b))
    return np.asarray(face * nside * nside + _spread(x) + 2 * _spread(y))


def _spread(values: Cells) -> Cells:
    """Put a zero bit between every two bits of numbers below 2^16."""
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        values = (values | (values << shift)) & mask
    return values
