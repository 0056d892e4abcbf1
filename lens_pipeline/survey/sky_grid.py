"""Places on the sky and pixels of an image: the scale and the directions of a WCS, and the window of pixels around a place."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import offset_by
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError

_SQUARE = 0.01
_FAR = -1e9
# A mass is scattered about its light's angle by ten times as much, and bricks turn by less from their middle to their edge.
_UPRIGHT_DEGREES = 1.0
_STEP_ARCSEC = 1.0


@dataclass(frozen=True)
class Window:
    """A square of whole pixels whose middle is the nearest to a place.

    Attributes
    ----------
    x, y : float
        The place in pixels, counted from 0.
    x0, y0 : int
        The window's first pixel; it may lie outside the image.
    """

    x: float
    y: float
    x0: int
    y0: int
    size: int

    @classmethod
    def around(cls, wcs: WCS, ra: float, dec: float, size: int) -> "Window":
        """Return the window around a place, ICRS degrees; far outside where the projection doesn't show it."""
        x, y = (float(place) for place in wcs.celestial.world_to_pixel_values(ra, dec))
        if not (np.isfinite(x) and np.isfinite(y)):
            x = y = _FAR
        middle = (size - 1) / 2
        return cls(x, y, round(x - middle), round(y - middle), size)

    @property
    def offset_pixels(self) -> tuple[float, float]:
        """The place (x, y) from the window's middle; at most half a pixel each."""
        middle = (self.size - 1) / 2
        return self.x - self.x0 - middle, self.y - self.y0 - middle

    def holds_place(self, shape: tuple[int, ...]) -> bool:
        """Whether the place lies on a pixel of an image of this shape (y, x)."""
        return -0.5 <= self.x < shape[1] - 0.5 and -0.5 <= self.y < shape[0] - 0.5

    def share_inside(self, shape: tuple[int, ...]) -> float:
        """Share of the window's pixels that an image of this shape (y, x) has."""
        rows, columns = self._on_image(shape)
        n: int = max(0, rows.stop - rows.start) * max(0, columns.stop - columns.start)
        return n / self.size**2

    def cut(self, image: Any, fill: Any) -> NDArray[Any]:
        """Cut the window out of an image (y, x), or of anything that has a shape and is sliced like one.

        Returns
        -------
        (size, size) array
            `fill` where the image has no pixel.
        """
        rows, columns = self._on_image(image.shape)
        if rows.stop <= rows.start or columns.stop <= columns.start:
            return np.full((self.size, self.size), fill)
        inside = np.asarray(image[rows, columns])
        if inside.shape == (self.size, self.size):
            return inside.copy()
        cut = np.full((self.size, self.size), fill, dtype=inside.dtype)
        down, along = rows.start - self.y0, columns.start - self.x0
        cut[down : down + inside.shape[0], along : along + inside.shape[1]] = inside
        return cut

    def _on_image(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        def along(start: int, n: int) -> slice:
            return slice(max(0, start), min(n, start + self.size))

        return along(self.y0, shape[0]), along(self.x0, shape[1])


def pixel_scale_of(wcs: WCS, name: str) -> float:
    """Side of a pixel, arcsec.

    Raises
    ------
    ContractError
        If pixels aren't square to 1 %: a lens would be an ellipse.
    """
    x, y = (float(scale) for scale in proj_plane_pixel_scales(wcs.celestial) * 3600)
    if not abs(x / y - 1) <= _SQUARE:
        raise ContractError(f"pixels of {name} are {x:.4g} x {y:.4g} arcsec, wanted square ones. Resample the image.")
    return float(np.sqrt(x * y))


def sky_to_pixels_of(wcs: WCS, ra: float, dec: float) -> NDArray[np.float64]:
    """Matrix from a step (west, north) on the sky at a place, ICRS degrees, to its direction (x, y) in pixels.

    Its scale is left out, so that it is a turn, with a mirror where east isn't left of north; the unit matrix is north up, east
    left.
    """
    directions = np.array([270.0, 0.0]) * units.deg
    places = offset_by(ra * units.deg, dec * units.deg, directions, _STEP_ARCSEC * units.arcsec)
    steps = np.array(wcs.celestial.world_to_pixel_values(*(angle.deg for angle in places)))
    matrix = steps - np.array(wcs.celestial.world_to_pixel_values(ra, dec))[:, None]
    return np.asarray(matrix / np.sqrt(np.abs(np.linalg.det(matrix))))


def north_is_up(sky_to_pixels: NDArray[np.float64]) -> bool:
    """Whether north is up and east left within a degree."""
    return are_one_way(sky_to_pixels, np.eye(2))


def are_one_way(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """Whether two images show the sky the same way round, within a degree."""
    return bool(np.allclose(one, other, rtol=0, atol=np.sin(np.radians(_UPRIGHT_DEGREES))))


def angle_in_pixels(phi_rad: float | None, sky_to_pixels: NDArray[np.float64]) -> float | None:
    """Turn the angle of an axis, from west to north, into that from x to y; it stays as it is where north is up."""
    if phi_rad is None or north_is_up(sky_to_pixels):
        return phi_rad
    x, y = sky_to_pixels @ (np.cos(phi_rad), np.sin(phi_rad))
    return float(np.arctan2(y, x) % np.pi)
