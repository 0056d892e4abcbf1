"""What is measured on a cutout whose galaxy stands in its middle: sky, noise, its correlation, place and brightness.

Belongs here: numbers from pixels (band, y, x) in nanomaggy, whatever file they came from.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.galaxy_images import CutoutRefusedError

_MAD_TO_SIGMA = 1.4826
# The sky is looked for in the stamp's outer part, this far from the galaxy; in a small stamp this share of its half width.
SKY_BEYOND_ARCSEC, _SKY_BEYOND_SHARE = 6.0, 0.8
APERTURE_RADIUS_ARCSEC = 2.5
_SEEING_ARCSEC, _MIDDLE_ARCSEC = 1.3, 1.0
# Radii, in half widths of the stamp, from where to the corners a galaxy's own light is seen to fall.
_FALL_FROM = (0.7, 0.85)
# Of a galaxy's brightest place, in sigmas; of noise alone it has 1.6 in the median, and in one of a thousand cutouts 4.0.
_LEAST_PEAK = 5

Pixels = NDArray[np.float32]


def far_from(x: float, y: float, size: int, radius: float) -> NDArray[np.bool_]:
    """Mark the pixels further than a radius from a place, pixels from the middle of a square."""
    axis = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(axis[:, None] - y, axis - x) > radius)


def _sky(x: float, y: float, size: int, scale: float) -> NDArray[np.bool_]:
    return far_from(x, y, size, min(SKY_BEYOND_ARCSEC / scale, _SKY_BEYOND_SHARE * size / 2))


def noise_per_pixel(pixels: Pixels, bad: NDArray[np.bool_]) -> float:
    """Sigma of a pixel's noise, from second differences of pixels two apart: smooth light and a sky level drop out.

    1.4826 median(abs(a - 2 b + c)) / sqrt(6), the mean of rows and columns; low by a few percent where pixels two apart
    still correlate. NaN where no three good pixels stand in a line.
    """
    sigmas = []
    for image, mask in ((pixels, bad), (pixels.T, bad.T)):
        difference = (image[4:] - 2 * image[2:-2] + image[:-4])[~(mask[4:] | mask[2:-2] | mask[:-4])]
        sigmas.append(float(np.median(np.abs(difference))) if difference.size else np.nan)
    return float(_MAD_TO_SIGMA * np.mean(sigmas) / np.sqrt(6))


def sky_left(pixels: Pixels, bad: NDArray[np.bool_]) -> float:
    """Sky that wasn't subtracted from one band of a stamp: a level, nanomaggy a pixel, which its galaxy doesn't account for.

    The median of good pixels in the second darkest of the four corners that the inscribed circle leaves: a neighbour, or a hollow
    of a sky fitted too closely, takes one. A galaxy's own light falls outwards: off a level above 0 as much is taken, at most
    all, as the light falls from the ring before to the corners. That is more than a de Vaucouleurs profile with a half-light
    radius below 11 arcsec leaves in the corners of 64 pixels, or an exponential one with a scale length below 4.5. NaN where no
    good pixel stands in a corner.
    """
    half = pixels.shape[-1] / 2
    axis = (np.arange(pixels.shape[-1]) + 0.5 - half) / half
    radius, west, south = np.hypot(axis[:, None], axis), axis < 0, axis[:, None] < 0
    outside = ~bad & (radius > 1)
    corners = [pixels[outside & (west == w) & (south == s)] for w in (True, False) for s in (True, False)]
    levels = sorted(float(np.median(corner)) for corner in corners if corner.size)
    if not levels:
        return float("nan")
    level = levels[min(1, len(levels) - 1)]
    ring = pixels[~bad & (radius > _FALL_FROM[0]) & (radius < _FALL_FROM[1])]
    fall = max(float(np.median(ring)) - level, 0.0) if ring.size else 0.0
    return level if level < 0 else max(level - fall, 0.0)


def sky_noise(pixels: NDArray[np.floating[Any]], x: float, y: float, scale: float) -> tuple[float, float]:
    """Level and sigma (MAD) of the sky in one band; the galaxy stands at (x, y) pixels from the middle."""
    background = pixels[_sky(x, y, pixels.shape[-1], scale)].astype(float)
    level = float(np.median(background))
    return level, float(_MAD_TO_SIGMA * np.median(np.abs(background - level)))


def aperture_flux(pixels: Pixels, x: float, y: float, scale: float, level: float) -> tuple[float, int]:
    """Flux within `APERTURE_RADIUS_ARCSEC` in one band, nanomaggy, and the number of pixels there."""
    inside = ~far_from(x, y, pixels.shape[-1], APERTURE_RADIUS_ARCSEC / scale)
    return float((pixels[inside] - level).sum()), int(inside.sum())


def aperture_mag(pixels: Pixels, x: float, y: float, scale: float, level: float) -> float | None:
    """AB magnitude within `APERTURE_RADIUS_ARCSEC` in one band; None where there is no light."""
    flux, _ = aperture_flux(pixels, x, y, scale, level)
    return float(22.5 - 2.5 * np.log10(flux)) if flux > 0 else None


@dataclass(frozen=True)
class Core:
    """Where one band's light is brightest in the stamp's middle.

    Attributes
    ----------
    x, y : float
        Light-weighted centre, pixels from the stamp's centre; taken in a small box around the brightest place, so that a
        neighbour doesn't pull it. NaN where that holds no light.
    stands_out : bool
        Whether that place is 5 sigma above the sky, as means over the seeing scatter there.
    at_edge : bool
        Whether the light still rises where the middle ends, an arcsec from the centre.
    """

    x: float
    y: float
    stands_out: bool
    at_edge: bool


def core_of(pixels: Pixels, scale: float) -> Core:
    """Find a galaxy's core. Places are compared by their mean over 1.3 arcsec, the seeing: of a faint galaxy pixels are noise."""
    size = pixels.shape[0]
    known = np.where(np.isfinite(pixels), pixels, np.float32(0))
    means = _seeing_means(known, scale)
    reach = _middle(size, scale)
    y, x = _brightest(means, scale)
    rows, columns = (place + np.arange(-2, 3) for place in (y, x))
    weight = np.maximum(known[np.ix_(rows, columns)].astype(float) - np.median(known), 0)
    level, sigma = sky_noise(means, 0, 0, scale)
    at_edge = bool({size // 2 - reach, size // 2 + reach - 1} & {y, x})
    if not weight.any():
        return Core(np.nan, np.nan, False, at_edge)
    origin, total = (size - 1) / 2, weight.sum()
    return Core(
        float(weight.sum(axis=0) @ columns / total - origin),
        float(weight.sum(axis=1) @ rows / total - origin),
        bool(means[y, x] - level > _LEAST_PEAK * sigma),
        at_edge,
    )


def centroid(pixels: Pixels, scale: float) -> tuple[float, float]:
    """Centre (x, y) of the galaxy's core in pixels from the stamp's centre, in the band that says where it stands, r.

    Raises
    ------
    CutoutRefusedError
        ``no_galaxy`` if the core doesn't stand out; ``off_centre`` if the light still rises where the middle ends.
    """
    core = core_of(pixels, scale)
    if not core.stands_out:
        raise CutoutRefusedError("no_galaxy", "no light stands out in r in the middle of the cutout")
    if core.at_edge:
        side = 2 * _middle(pixels.shape[0], scale)
        raise CutoutRefusedError(
            "off_centre",
            f"the brightest of the {side} x {side} pixels in the middle is at their edge in r: the galaxy stands "
            "elsewhere, or a brighter neighbour beside it. Give its own place, or cut it out around that",
        )
    return core.x, core.y


def brightest_place(pixels: Pixels, scale: float) -> tuple[int, int]:
    """Pixel (y, x) in the stamp's middle around which there is most light within the seeing, in one band."""
    size = pixels.shape[0]
    edge = max(size // 2 - _middle(size, scale) - _seeing_pixels(scale), 0)
    inner = pixels[edge : size - edge, edge : size - edge]
    y, x = _brightest(_seeing_means(np.where(np.isfinite(inner), inner, np.float32(0)), scale), scale)
    return edge + y, edge + x


def _seeing_pixels(scale: float) -> int:
    return 2 * max(1, round(_SEEING_ARCSEC / 2 / scale)) + 1


def _seeing_means(pixels: Pixels, scale: float) -> NDArray[np.float64]:
    return np.asarray(ndimage.uniform_filter(pixels.astype(float), _seeing_pixels(scale), mode="nearest"))


def _middle(size: int, scale: float) -> int:
    """Pixels to each side of the stamp's centre among which its galaxy is looked for."""
    return min(max(3, int(np.ceil(_MIDDLE_ARCSEC / scale))), size // 2 - 2)


def _brightest(means: NDArray[np.float64], scale: float) -> tuple[int, int]:
    reach = _middle(means.shape[0], scale)
    start = means.shape[0] // 2 - reach
    near = means[start : start + 2 * reach, start : start + 2 * reach]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    return start + int(y), start + int(x)


def pixel_correlation(pixels: Pixels, scale: float) -> float:
    """Correlation of neighbouring pixels of the sky: the median over galaxies and bands, at least 0 and at most 0.45.

    Raises
    ------
    ContractError
        If no band of any galaxy has a sky of pixels that differ.
    """
    sky = _sky(0, 0, pixels.shape[-1], scale)
    values = []
    for band in pixels.reshape(-1, *pixels.shape[-2:]).astype(float):
        level = np.median(band[sky])
        sigma = _MAD_TO_SIGMA * np.median(np.abs(band[sky] - level))
        clean = sky & (np.abs(band - level) < 3 * sigma)
        both = clean[:, 1:] & clean[:, :-1]
        left, right = band[:, :-1][both], band[:, 1:][both]
        if left.size > 1 and left.std() > 0 and right.std() > 0:
            values.append(float(np.corrcoef(left, right)[0, 1]))
    if not values:
        raise ContractError("no cutout has a sky whose noise could be measured: its pixels are all alike.")
    return float(np.clip(np.median(values), 0.0, 0.45))
