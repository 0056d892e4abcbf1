"""Stamps that took their pixels from the same real cutout as their controls: what of the two must be equal, stamp by stamp.

Belongs here: how far apart such pixels may be, and what all light added to them may be off by. Which pixels hold next to none of
that light is said in `pair_evidence.py`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.survey.conditions import sky_per_pixel, transmission
from lens_pipeline.survey.optics import smoothing_loss
from lens_pipeline.survey.stamp_features import share_of_round_numbers
from lens_pipeline.survey.stamp_pairs import Row, source_mag

# A pixel is off by more than this many sigmas, in more than this share of the pixels; or their mean is in a band; or half of them
# are; or one is by the last. What is left of an arc below 0.003 sigma, with its Poisson noise, stays within half of each.
OFF_SIGMA, _OFF_SHARE, _OFF_MEAN, _OFF_MEDIAN, _OFF_ANYWHERE = 0.1, 1e-3, 0.005, 0.005, 1.0
# So many more of its pixels are round numbers than of the control's.
_ROUNDER = 0.1
# Of the Poisson noise of all light that was added; beyond it is one stamp in 500 million. And of the light itself: what bands may
# spread unlike beyond the stamp.
_LIGHT_SIGMAS, _BEYOND = 6.0, 0.05


def pixels_off(pixels: NDArray[np.float32], sigma: NDArray[np.float64]) -> list[str]:
    """Say in what pixels that must be equal, but for what is left of an arc, aren't.

    Parameters
    ----------
    pixels : (2, band, pixel) float32 array
        Of a stamp and of its control.
    sigma : (band,) array
        Noise of a pixel, nanomaggy.
    """
    difference = (pixels[0].astype(float) - pixels[1]) / sigma[:, None]
    share, mean = float((np.abs(difference) > OFF_SIGMA).mean()), float(np.abs(difference.mean(axis=1)).max())
    median, worst = float(np.median(np.abs(difference))), float(np.abs(difference).max())
    said = []
    if share > _OFF_SHARE or mean > _OFF_MEAN or median > _OFF_MEDIAN or worst > _OFF_ANYWHERE:
        said.append(
            f"{share:.2%} of its pixels outside the arc are off by more than {OFF_SIGMA:g} sigma, half of them by more than "
            f"{median:.2g}, their mean by {mean:.2g}, the worst by {worst:.2g}"
        )
    ours, theirs = share_of_round_numbers(pixels).mean(axis=1)
    if ours > theirs + _ROUNDER:
        said.append(f"{ours:.0%} of them are round numbers, {theirs:.0%} of the control's")
    return said


def bad_off(pixels: NDArray[np.float32], bad: NDArray[np.bool_] | None) -> list[str]:
    """Say how many bad pixels, (band, y, x) where they are known, a stamp and its control, (2, band, y, x), have unlike."""
    if bad is None or not (changed := int((pixels[0] != pixels[1])[bad].sum())):
        return []
    return [f"{changed:,} of {int(bad.sum()):,} bad pixels aren't the cutout's own"]


def light_off(
    pixels: NDArray[np.float32],
    row: Row,
    host: Row,
    bands: Sequence[str],
    pixel_scale_arcsec: float,
    bad: NDArray[np.bool_] | None,
) -> list[str]:
    """Say in which bands all light that a stamp has more than its control is other than what was injected.

    In r the row says how much that is; in other bands its source's colours do, but for what PSFs spread beyond the stamp, unless
    bad pixels hide some. Its Poisson noise has a variance of 1 / electrons in a nanomaggy, or sigma^2 / sky where the gain isn't
    known, sigma being that of the sky before its smoothing. It is smoothed as the image's noise is, which keeps its sum.

    Parameters
    ----------
    pixels : (2, band, y, x) float32 array
        Of a stamp and of its control.
    row, host : dict
        What is known of the stamp and of its galaxy; where that isn't enough, nothing is said.
    """
    said = []
    for band, (ours, theirs) in zip(bands, pixels.swapaxes(0, 1), strict=True):
        injected = injected_light(row, host, band) if band == "r" or bad is None or not bad.any() else None
        sigma, rho, electrons = (
            host.get(name) for name in (f"pixel_sigma_{band}", "noise_correlation", f"electrons_per_nanomaggy_{band}")
        )
        if injected is None or sigma is None or rho is None:
            continue
        white = sigma / smoothing_loss(rho)
        a_nanomaggy = 1 / electrons if electrons else white**2 / sky_per_pixel(band, pixel_scale_arcsec)
        noise = float(np.sqrt(injected * a_nanomaggy))
        too_much = float((ours.astype(float) - theirs).sum()) - injected
        rounding = float(np.finfo(np.float32).eps * np.abs(ours).sum())
        beyond = spread_beyond(injected, band)
        if abs(too_much) > _LIGHT_SIGMAS * noise + beyond + rounding:
            said.append(
                f"{too_much:+.3g} nanomaggy in {band} beside the {injected:.3g} injected, whose noise is {noise:.2g}"
            )
    return said


def injected_light(row: Row, host: Row, band: str) -> float | None:
    """Light that was injected in a band, nanomaggy: the row's own word of r, at the colour of the source behind the dust.

    None where the row doesn't say enough to know.
    """
    in_r = row.get("total_injected_flux_r")
    if in_r is None or not np.isfinite(in_r):
        return None
    if band == "r" or not in_r:
        return float(in_r)
    mag, mag_r, ebv = source_mag(row, band), source_mag(row, "r"), host.get("ebv")
    if mag is None or mag_r is None:
        return None
    return float(in_r * 10 ** (-0.4 * (mag - mag_r)) * transmission(band, ebv) / transmission("r", ebv))


def spread_beyond(injected: float, band: str) -> float:
    """Say by how much `injected_light` may be off, nanomaggy: PSFs of other bands than r spread more or less beyond the stamp."""
    return 0.0 if band == "r" else _BEYOND * injected
