"""What is measured of a control that no other stamp of its galaxy is held against.

Belongs here: pixels and what the catalogue says of their galaxy to numbers. Galaxies differ in brightness, depth and seeing by
more than a fingerprint; so what the catalogue says of each is taken off where it says it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.survey.cutout_measures import APERTURE_RADIUS_ARCSEC, SKY_BEYOND_ARCSEC, aperture_mag, far_from
from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.stamp_features import feature_names, stamp_features
from lens_pipeline.survey.stamp_pairs import Row

_SKY_SHARE = 0.8
# What a stamp without light in the aperture has there.
_NO_LIGHT_MAG = 30.0
_OF_BAND = ("sky level", "noise", "brightness", "place along x", "place along y")


def catalogue_columns(bands: Sequence[str]) -> tuple[str, ...]:
    """Columns of the parent sample that are taken off where they are known."""
    of_bands = (f"{name}_{band}" for name in ("mag", "psfdepth", "psf_fwhm") for band in bands)
    return ("host_x_arcsec", "host_y_arcsec", "pixel_scale_arcsec", *of_bands)


def control_feature_names(bands: Sequence[str]) -> tuple[str, ...]:
    """Names of what `control_features` returns, in order."""
    return (
        *(f"{name} of the sky" for name in feature_names(bands)),
        *(f"{name} of the whole stamp" for name in feature_names(bands)),
        *(f"{name} in {band}" for band in bands for name in _OF_BAND),
    )


def control_features(pixels: NDArray[np.float32], host: Row, contract: DatasetContract) -> Image:
    """Measure a control: features of its sky and of all of it, each on its own scale, and what that scale leaves out.

    Of each band: level and log noise of the sky, this less what the depth says (noise ~ 1 / (sqrt(psfdepth) FWHM)); magnitude
    within 2.5 arcsec less the catalogue's; mean place of the light there less the catalogue's, in pixels.

    Parameters
    ----------
    pixels : (band, y, x) float32 array
        nanomaggy.
    host : dict
        `catalogue_columns` of its galaxy; what is missing or null is taken as unknown.
    """
    size, scale = contract.stamp_size, host.get("pixel_scale_arcsec") or contract.pixel_scale_arcsec
    sky = far_from(0, 0, size, min(SKY_BEYOND_ARCSEC / scale, _SKY_SHARE * size / 2))
    own = [_of_band(image, band, host, sky, scale) for image, band in zip(pixels, contract.bands, strict=True)]
    of_sky, of_all = (stamp_features(pixels[None], mask)[0] for mask in (sky, np.ones_like(sky)))
    return np.concatenate([of_sky, of_all, *own])


def _of_band(image: NDArray[np.float32], band: str, host: Row, sky: NDArray[np.bool_], scale: float) -> Image:
    level = float(np.median(image[sky]))
    spread = float(np.median(np.abs(image[sky] - level)))
    depth, fwhm = host.get(f"psfdepth_{band}"), host.get(f"psf_fwhm_{band}")
    noise = np.log(max(spread, np.finfo(float).tiny)) + (np.log(np.sqrt(depth) * fwhm) if depth and fwhm else 0.0)
    x, y = ((host.get(f"host_{axis}_arcsec") or 0.0) / scale for axis in "xy")
    mag = aperture_mag(image, x, y, scale, level)
    brightness = (_NO_LIGHT_MAG if mag is None else mag) - (host.get(f"mag_{band}") or 0.0)
    return np.array([level, noise, brightness, *_place(image - level, x, y, APERTURE_RADIUS_ARCSEC / scale)])


def _place(light: NDArray[np.float32], x: float, y: float, radius: float) -> tuple[float, float]:
    """Mean place of the light within a radius of a place, from there, in pixels."""
    inside = np.where(far_from(x, y, light.shape[-1], radius), 0.0, light)
    axis = np.arange(len(light)) - (len(light) - 1) / 2
    total = max(float(np.abs(inside).sum()), np.finfo(float).tiny)
    return float((inside.sum(axis=0) @ (axis - x)) / total), float((inside.sum(axis=1) @ (axis - y)) / total)
