"""What is measured on a cutout whose galaxy stands in its middle: sky, noise, its correlation, place and brightness.

Belongs here: numbers from pixels (band, y, x) in nanomaggy, whatever file they came from.
"""

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, noise_per_pixel

_MAD_TO_SIGMA = 1.4826
# The sky is looked for in the stamp's outer part, this far from the galaxy; in a small stamp this share of its half width.
SKY_BEYOND_ARCSEC, _SKY_BEYOND_SHARE = 6.0, 0.8
APERTURE_RADIUS_ARCSEC = 2.5
_CENTROID_PIXELS = 4
# Of a galaxy's brightest pixel, in sigmas of a pixel's noise; the brightest of the middle's 64 pixels of noise alone has 2.4.
_LEAST_PEAK = 4

Pixels = NDArray[np.float32]


def far_from(x: float, y: float, size: int, radius: float) -> NDArray[np.bool_]:
    """Mark the pixels further than a radius from a place, pixels from the middle of a square."""
    axis = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(axis[:, None] - y, axis - x) > radius)


def _sky(x: float, y: float, size: int, scale: float) -> NDArray[np.bool_]:
    return far_from(x, y, size, min(SKY_BEYOND_ARCSEC / scale, _SKY_BEYOND_SHARE * size / 2))


def sky_noise(pixels: Pixels, x: float, y: float, scale: float) -> tuple[float, float]:
    """Level and sigma (MAD) of the sky in one band; the galaxy stands at (x, y) pixels from the middle."""
    background = pixels[_sky(x, y, pixels.shape[-1], scale)].astype(float)
    level = float(np.median(background))
    return level, float(_MAD_TO_SIGMA * np.median(np.abs(background - level)))


def aperture_mag(pixels: Pixels, x: float, y: float, scale: float, level: float) -> float | None:
    """AB magnitude within `APERTURE_RADIUS_ARCSEC` in one band; None where there is no light."""
    inside = ~far_from(x, y, pixels.shape[-1], APERTURE_RADIUS_ARCSEC / scale)
    flux = float((pixels[inside] - level).sum())
    return float(22.5 - 2.5 * np.log10(flux)) if flux > 0 else None


def centroid(pixels: Pixels) -> tuple[float, float]:
    """Light-weighted centre (x, y) of the galaxy in pixels from the stamp's centre.

    Taken in a small box around the brightest pixel of the stamp's middle, so that a neighbour doesn't pull it.

    Raises
    ------
    CutoutRefusedError
        ``no_galaxy`` if nothing is above the median there; ``off_centre`` if the light still rises where the middle ends.
    """
    reach, middle = _CENTROID_PIXELS, pixels.shape[0] // 2
    start = middle - reach
    known = np.where(np.isfinite(pixels), pixels, np.float32(0))
    near = known[start : middle + reach, start : middle + reach]
    y, x = np.unravel_index(int(near.argmax()), near.shape)
    rows, columns = (start + int(place) + np.arange(-2, 3) for place in (y, x))
    weight = np.maximum(known[np.ix_(rows, columns)].astype(float) - np.median(known), 0)
    origin = (pixels.shape[0] - 1) / 2
    total = weight.sum()
    if not total > 0 or near[y, x] < _LEAST_PEAK * noise_per_pixel(known, known == 0):
        raise CutoutRefusedError("no_galaxy", "no light stands out in r in the middle of the cutout")
    if {0, near.shape[0] - 1} & {int(y), int(x)}:
        raise CutoutRefusedError(
            "off_centre",
            f"the brightest of the {near.shape[0]} x {near.shape[0]} pixels in the middle is at their edge in r: the galaxy "
            "stands elsewhere. Cut it out around its own place",
        )
    return float(weight.sum(axis=0) @ columns / total - origin), float(weight.sum(axis=1) @ rows / total - origin)


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
