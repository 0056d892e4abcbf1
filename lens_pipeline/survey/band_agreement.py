"""Whether the bands of a cutout show one galaxy: its place, its brightness and its colours.

Belongs here: what one band says against another, or against the catalogue. What is wrong with one band alone is for
`image_judgement.py`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.cutout_measures import (
    APERTURE_RADIUS_ARCSEC,
    aperture_flux,
    centroid,
    core_of,
    sky_noise,
)
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage

# Between a band's core and that of r: the shared galaxies have up to 0.21 where it can be measured.
_MOST_APART_ARCSEC = 0.65
# Magnitude within the aperture less the catalogue's total one: of a galaxy, and of a sample's median.
_MAG_DIFFERENCE, _MEDIAN_MAG_DIFFERENCE, _LEAST_FOR_MEDIAN = (-1.0, 2.5), (-0.5, 1.2), 5
# Colours of a galaxy within the aperture, and of a sample's median. The shared galaxies have g - r of 1.4 to 2.1 and r - z of 0.8
# to 1.4; of 1,001 real targets, quasars and blue galaxies among them, 99 % have -0.7 to 2.8 and 0.0 to 2.1, medians 0.5 and 0.8.
_COLOURS = {"g - r": (-1.0, 4.0), "r - z": (-1.0, 3.0)}
_MEDIAN_COLOURS = (-0.3, 2.5)
# What an aperture's noise may do: 3 sigma, of pixels that correlate, which makes a sum 1.6 times as noisy as they say.
_SIGMAS = 5


def bands_must_agree(image: GalaxyImage, known: Mapping[str, Any]) -> None:
    """Refuse a cutout whose bands show different galaxies, or another one than its catalogue says.

    Parameters
    ----------
    known : mapping
        ``mag_g``, ``mag_r`` and ``mag_z``, total AB magnitudes, where the catalogue has them.

    Raises
    ------
    CutoutRefusedError
        ``no_galaxy`` or ``off_centre`` as `centroid` does, and ``no_galaxy`` if the light in r within the aperture isn't above 0;
        ``bands_apart`` if another band's core stands out and is more than 0.65 arcsec from that of r; ``mag_unlike_catalogue`` if
        a band is more than 1 brighter or 2.5 fainter than the catalogue's total: a neighbour in the aperture may brighten it, and
        a large galaxy's light is mostly beyond; ``absurd_colour`` if g - r or r - z is none that galaxies have. Magnitudes and
        colours are refused where noise doesn't account for it.
    """
    _cores_must_coincide(image)
    fluxes = {band: _light(image, i) for i, band in enumerate(image.bands)}
    if fluxes["r"][0] <= 0:
        raise CutoutRefusedError(
            "no_galaxy", f"the pixels in r within {APERTURE_RADIUS_ARCSEC:g} arcsec sum to no light above the sky"
        )
    for band, flux in fluxes.items():
        _must_be_as_bright(band, *flux, known.get(f"mag_{band}"))
    for blue, red in pairwise(image.bands):
        _must_be_a_colour(blue, red, fluxes[blue], fluxes[red])


def sample_must_agree(rows: Sequence[Mapping[str, Any]], bands: Sequence[str]) -> None:
    """Refuse a sample whose pixels are as a whole of another brightness than its catalogue says, or of a colour no sample has.

    Parameters
    ----------
    rows : sequence of dict
        mag_aperture_* of each galaxy, and mag_* where the catalogue has it.

    Raises
    ------
    ContractError
        Of 5 galaxies or more, if the median of mag_aperture - mag of a band is outside -0.5 to 1.2, or that of g - r or r - z
        within the aperture outside -0.3 to 2.5.
    """
    for band in bands:
        off, (low, high) = _differences(rows, f"mag_aperture_{band}", f"mag_{band}"), _MEDIAN_MAG_DIFFERENCE
        if len(off) >= _LEAST_FOR_MEDIAN and not low <= np.median(off) <= high:
            raise ContractError(
                f"mag_aperture_{band} - mag_{band} of {len(off):,} galaxies is {np.median(off):.2f} in the median, wanted "
                f"{low:g} to {high:g}: the pixels are of another brightness than the catalogue says. Look at the images' unit "
                f"and zero point (nanomaggy has 22.5), or leave mag_{band} out of the catalogue."
            )
    for blue, red in pairwise(bands):
        colours, (low, high) = _differences(rows, f"mag_aperture_{blue}", f"mag_aperture_{red}"), _MEDIAN_COLOURS
        if len(colours) >= _LEAST_FOR_MEDIAN and not low <= np.median(colours) <= high:
            raise ContractError(
                f"{blue} - {red} of {len(colours):,} galaxies within {APERTURE_RADIUS_ARCSEC:g} arcsec is "
                f"{np.median(colours):.2f} in the median, wanted {low:g} to {high:g}: one of the bands has another zero point. "
                f"Multiply its pixels by 10^((22.5 - zero point) / 2.5)."
            )


def _differences(rows: Sequence[Mapping[str, Any]], one: str, other: str) -> list[float]:
    pairs = ((row.get(one), row.get(other)) for row in rows)
    return [float(a - b) for a, b in pairs if a is not None and b is not None]


def _cores_must_coincide(image: GalaxyImage) -> None:
    scale, r = image.pixel_scale_arcsec, image.bands.index("r")
    here = scale * np.array(centroid(image.pixels[r], scale)) - image.offset_arcsec[r]
    for i, band in enumerate(image.bands):
        if i == r:
            continue
        core = core_of(image.pixels[i], scale)
        apart = float(np.hypot(*(scale * np.array((core.x, core.y)) - image.offset_arcsec[i] - here)))
        if core.stands_out and not apart <= _MOST_APART_ARCSEC:
            raise CutoutRefusedError(
                "bands_apart",
                f"the light in {band} is brightest {apart:.2f} arcsec from that in r, at most {_MOST_APART_ARCSEC:g} may be: the "
                "bands were cut elsewhere or in another order, or a neighbour is brighter there",
            )


def _light(image: GalaxyImage, i: int) -> tuple[float, float]:
    """Flux within the aperture in one band, and by how much noise may change it, nanomaggy."""
    scale = image.pixel_scale_arcsec
    x, y = image.offset_arcsec[i] / scale
    level, sigma = sky_noise(image.pixels[i], x, y, scale)
    flux, n_pixels = aperture_flux(image.pixels[i], x, y, scale, level)
    return flux, float(_SIGMAS * sigma * np.sqrt(n_pixels))


def _must_be_as_bright(band: str, flux: float, noise: float, mag: float | None) -> None:
    low, high = _MAG_DIFFERENCE
    if mag is None:
        return
    total = 10 ** ((NANOMAGGY_ZERO_POINT_AB - mag) / 2.5)
    if flux - noise <= total * 10 ** (-low / 2.5) and flux + noise >= total * 10 ** (-high / 2.5):
        return
    raise CutoutRefusedError(
        "mag_unlike_catalogue",
        f"the pixels have {_said(flux)} in {band} within {APERTURE_RADIUS_ARCSEC:g} arcsec, the catalogue says "
        f"{mag:.2f}: the unit, the zero point or the place is another",
    )


def _must_be_a_colour(blue: str, red: str, of_blue: tuple[float, float], of_red: tuple[float, float]) -> None:
    name = f"{blue} - {red}"
    low, high = _COLOURS[name]
    too_red = of_red[0] - of_red[1] > 10 ** (high / 2.5) * (of_blue[0] + of_blue[1])
    too_blue = of_blue[0] - of_blue[1] > 10 ** (-low / 2.5) * (of_red[0] + of_red[1])
    if too_red or too_blue:
        raise CutoutRefusedError(
            "absurd_colour",
            f"the pixels have {_said(of_blue[0])} in {blue} and {_said(of_red[0])} in {red} within {APERTURE_RADIUS_ARCSEC:g} "
            f"arcsec: galaxies have {name} of {low:g} to {high:g}. A band has another zero point or shows another place",
        )


def _said(flux: float) -> str:
    return f"{NANOMAGGY_ZERO_POINT_AB - 2.5 * np.log10(flux):.2f} mag" if flux > 0 else "no light"
