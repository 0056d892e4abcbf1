"""What is measured on a cutout whose galaxy stands in its middle: sky, noise, its correlation, place and brightness.

Belongs here: numbers from pixels (band, y, x) in nanomaggy, whatever file they came from.
"""

from collections.abc import Mapping, Sequence
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
# Magnitude within the aperture less the catalogue's total one: of a galaxy, and of a sample's median.
_MAG_DIFFERENCE, _MEDIAN_MAG_DIFFERENCE, _LEAST_FOR_MEDIAN = (-1.0, 2.5), (-0.5, 1.2), 5
# Of a galaxy's brightest place, in sigmas; of noise alone it has 1.6 in the median, and in one of a thousand cutouts 4.0.
_LEAST_PEAK = 5

Pixels = NDArray[np.float32]


def far_from(x: float, y: float, size: int, radius: float) -> NDArray[np.bool_]:
    """Mark the pixels further than a radius from a place, pixels from the middle of a square."""
    axis = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(axis[:, None] - y, axis - x) > radius)


def _sky(x: float, y: float, size: int, scale: float) -> NDArray[np.bool_]:
    return far_from(x, y, size, min(SKY_BEYOND_ARCSEC / scale, _SKY_BEYOND_SHARE * size / 2))


def sky_noise(pixels: NDArray[np.floating[Any]], x: float, y: float, scale: float) -> tuple[float, float]:
    """Level and sigma (MAD) of the sky in one band; the galaxy stands at (x, y) pixels from the middle."""
    background = pixels[_sky(x, y, pixels.shape[-1], scale)].astype(float)
    level = float(np.median(background))
    return level, float(_MAD_TO_SIGMA * np.median(np.abs(background - level)))


def aperture_mag(pixels: Pixels, x: float, y: float, scale: float, level: float) -> float | None:
    """AB magnitude within `APERTURE_RADIUS_ARCSEC` in one band; None where there is no light."""
    inside = ~far_from(x, y, pixels.shape[-1], APERTURE_RADIUS_ARCSEC / scale)
    flux = float((pixels[inside] - level).sum())
    return float(22.5 - 2.5 * np.log10(flux)) if flux > 0 else None


def mag_must_agree(mag_r: float | None, mag_aperture_r: float | None) -> None:
    """Refuse a galaxy without light, or whose pixels are of another brightness than its catalogue says, where it says one.

    Raises
    ------
    CutoutRefusedError
        ``no_galaxy`` if the light within the aperture isn't above 0, so that it has no magnitude; ``mag_unlike_catalogue`` if
        that is more than 1 brighter or 2.5 fainter than the total one. A neighbour in the aperture may brighten it, and a large
        galaxy's light is mostly beyond.
    """
    if mag_aperture_r is None:
        raise CutoutRefusedError(
            "no_galaxy", f"the pixels in r within {APERTURE_RADIUS_ARCSEC:g} arcsec sum to no light above the sky"
        )
    low, high = _MAG_DIFFERENCE
    if mag_r is None or low <= mag_aperture_r - mag_r <= high:
        return
    raise CutoutRefusedError(
        "mag_unlike_catalogue",
        f"the pixels have {mag_aperture_r:.2f} mag in r within {APERTURE_RADIUS_ARCSEC:g} arcsec, the catalogue says "
        f"{mag_r:.2f}: the unit, the zero point or the place is another",
    )


def mags_must_agree(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a sample whose pixels are as a whole of another brightness than its catalogue says.

    Raises
    ------
    ContractError
        If the median of mag_aperture_r - mag_r is outside -0.5 to 1.2, of 5 galaxies or more.
    """
    off = [row["mag_aperture_r"] - row["mag_r"] for row in rows if row["mag_r"] is not None]
    low, high = _MEDIAN_MAG_DIFFERENCE
    if len(off) >= _LEAST_FOR_MEDIAN and not low <= np.median(off) <= high:
        raise ContractError(
            f"mag_aperture_r - mag_r of {len(off):,} galaxies is {np.median(off):.2f} in the median, wanted {low:g} to "
            f"{high:g}: the pixels are of another brightness than the catalogue says. Look at the images' unit and zero point "
            f"(nanomaggy has 22.5), or leave mag_r out of the catalogue."
        )


def centroid(pixels: Pixels, scale: float) -> tuple[float, float]:
    """Light-weighted centre (x, y) of the galaxy in pixels from the stamp's centre, in one band.

    Taken in a small box around the brightest place of the stamp's middle, so that a neighbour doesn't pull it. Places are
    compared by their mean over 1.3 arcsec, the seeing: of a faint galaxy single pixels are noise.

    Raises
    ------
    CutoutRefusedError
        ``no_galaxy`` if that place isn't 5 sigma above the sky, as such means scatter there; ``off_centre`` if the light still
        rises where the middle ends, an arcsec from the centre.
    """
    size = pixels.shape[0]
    known = np.where(np.isfinite(pixels), pixels, np.float32(0))
    means = _seeing_means(known, scale)
    reach = _middle(size, scale)
    y, x = _brightest(means, scale)
    rows, columns = (place + np.arange(-2, 3) for place in (y, x))
    weight = np.maximum(known[np.ix_(rows, columns)].astype(float) - np.median(known), 0)
    level, sigma = sky_noise(means, 0, 0, scale)
    if not (means[y, x] - level > _LEAST_PEAK * sigma and weight.any()):
        raise CutoutRefusedError("no_galaxy", "no light stands out in r in the middle of the cutout")
    if {size // 2 - reach, size // 2 + reach - 1} & {y, x}:
        raise CutoutRefusedError(
            "off_centre",
            f"the brightest of the {2 * reach} x {2 * reach} pixels in the middle is at their edge in r: the galaxy stands "
            "elsewhere, or a brighter neighbour beside it. Give its own place, or cut it out around that",
        )
    origin, total = (size - 1) / 2, weight.sum()
    return float(weight.sum(axis=0) @ columns / total - origin), float(weight.sum(axis=1) @ rows / total - origin)


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
