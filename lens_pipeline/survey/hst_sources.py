"""Real galaxies as lensed sources: HST images of a GalSim RealGalaxy catalogue, freed of noise and neighbours.

Belongs here: reading the catalogue and making light of its images. What is done to an image, and what is not:

* The sky (median of the stamp's border) is subtracted and noise removed by thresholding starlet coefficients at three times
  their own noise, four times at the finest scale (Starck & Murtagh 2006, *Astronomical Image and Data Analysis*, ch. 2); the
  noise of each scale is measured in the border, since drizzled pixels correlate.
* What isn't connected with the galaxy above an isophote is set to 0, so that neighbours and sky aren't lensed: half a pixel's
  noise, or more, up to twice it, where the galaxy would reach the border of its image.
* The image is *not* deconvolved: these data have no PSF. ACS's 0.1 arcsec stays in; behind a seeing of 1 arcsec it widens an
  unmagnified source by 0.5 %, and an arc by 0.1 arcsec times the root of the local stretch, in quadrature.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.survey.files_read import OnOpen
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, Quarantine

_WANTED = ("ident", "mag", "band", "gal_filename", "gal_hdu", "pixel_scale", "noise_variance")
# By starlet scale, finest first: thresholds in units of the scale's noise, and that noise for white noise of sigma 1 (Starck &
# Murtagh 2006, table 2.1).
_THRESHOLDS, _WHITE_NOISE = (4.0, 3.0, 3.0, 3.0), (0.889, 0.200, 0.086, 0.041)
_BORDER = 8
_ISOPHOTES = (0.5, 1.0, 1.5, 2.0)
_LEAST_SIGNAL_TO_NOISE = 20.0
# Images are in electrons a second; F814W's AB zero point of COSMOS (Leauthaud et al. 2007; GalSim, COSMOSCatalog).
_ZERO_POINT = {"F814W": 25.94}
# Of the flux that the catalogue says: less is a galaxy without its outskirts, more has a neighbour in it.
_FLUX_BOUNDS = (0.9, 1.3)
_SPLINE = np.array([1.0, 4, 6, 4, 1]) / 16
_MAD_TO_SIGMA = 1.4826

Image = NDArray[np.float64]


@dataclass(frozen=True)
class HstSource:
    """A galaxy's light in the source plane.

    Attributes
    ----------
    source_id : str
        Names this galaxy wherever it is used; a source stays within one split.
    light : (y, x) float64 array
        Share of the flux in each pixel: not negative, sums to 1, 0 far from the galaxy. Its light's centroid is the middle
        to half a pixel.
    band, mag : str, float
        Where and how bright it was seen, AB.
    half_light_radius_arcsec : float
        Of the circle about the centroid that holds half of `light`; the PSF is in it.
    redshift : float or None
        Photometric; None where the catalogue has none.
    flux_kept : float
        `light` before its normalisation over the flux of the catalogue's magnitude; below 1 by what the isophote cut off.
    file : str
        Name of the file that its image stands in.
    """

    source_id: str
    light: Image
    pixel_scale_arcsec: float
    band: str
    mag: float
    half_light_radius_arcsec: float
    redshift: float | None
    flux_kept: float
    file: str


def read_hst_sources(
    catalogue: Path, quarantine: Quarantine, *, prefix: str = "cosmos", on_open: OnOpen = lambda _: None
) -> tuple[HstSource, ...]:
    """Read every usable galaxy of a RealGalaxy catalogue; the others stand in the quarantine with their reasons.

    Parameters
    ----------
    catalogue : path
        ``NAME.fits``; its images lie beside it, and ``NAME_fits.fits``, if there, gives redshifts.
    on_open : callable, optional
        Is told which files are about to be opened.

    Raises
    ------
    ConfigError
        If there is no such file.
    ContractError
        If the catalogue or its images can't be used, names a galaxy twice, or no galaxy is usable.
    """
    if not catalogue.is_file():
        raise ConfigError(
            f"there is no catalogue {catalogue}. Name a GalSim RealGalaxy catalogue (real_galaxy_catalog_*.fits)."
        )
    on_open(str(path) for path in (catalogue, redshifts_path(catalogue)) if path.is_file())
    rows = _rows(catalogue)
    redshifts = _redshifts(catalogue)
    sources = []
    for name in sorted({str(row["gal_filename"]).strip() for row in rows}):
        path = catalogue.parent / name
        if path.is_file():
            on_open([str(path)])
        images = _images(path, [int(r["gal_hdu"]) for r in rows if str(r["gal_filename"]).strip() == name])
        for row in (row for row in rows if str(row["gal_filename"]).strip() == name):
            source_id = f"{prefix}-{int(row['ident'])}"
            try:
                sources.append(_source(source_id, row, images[int(row["gal_hdu"])], redshifts.get(int(row["ident"]))))
            except CutoutRefusedError as error:
                quarantine.add(source_id, error)
    if not sources:
        raise ContractError(f"{catalogue} holds no usable galaxy of {len(rows)}: {quarantine.counts}.")
    return tuple(sorted(sources, key=lambda source: source.source_id))


def denoise(image: Image, sigma: float) -> Image:
    """Remove sky and noise; what remains may still be negative.

    Parameters
    ----------
    image : (y, x) array
        A galaxy with sky around it.
    sigma : float
        Noise of a pixel; a scale's own noise is at least what white noise of it has there.
    """
    border = _border(image.shape)
    left = image - np.median(image[border])
    result = np.zeros_like(left)
    for scale, (threshold, white) in enumerate(zip(_THRESHOLDS, _WHITE_NOISE, strict=True)):
        smoother = _smoothed(left, 2**scale)
        detail, left = left - smoother, smoother
        noise = max(_mad(detail[border]), sigma * white)
        result += np.where(np.abs(detail) > threshold * noise, detail, 0)
    return result + left


def _source(source_id: str, row: dict[str, Any], image: Image, redshift: float | None) -> HstSource:
    if not np.isfinite(image).all():
        raise CutoutRefusedError("not_finite", f"{int((~np.isfinite(image)).sum())} pixels aren't finite")
    sigma, scale = float(np.sqrt(row["noise_variance"])), float(row["pixel_scale"])
    if not (sigma > 0 and scale > 0):
        raise CutoutRefusedError("bad_catalogue", f"noise_variance {row['noise_variance']}, pixel_scale {scale}")
    clean = denoise(image, sigma)
    mine = _galaxy(clean, sigma)
    light = np.where(mine, np.maximum(clean, 0), 0)
    total = float(light.sum())
    noise = sigma * np.sqrt(mine.sum())
    if total < _LEAST_SIGNAL_TO_NOISE * noise:
        raise CutoutRefusedError(
            "too_faint", f"S/N {total / noise:.1f} in all, at least {_LEAST_SIGNAL_TO_NOISE:g} is asked for"
        )
    kept = total / _catalogue_flux(row)
    low, high = _FLUX_BOUNDS
    if not low <= kept <= high:
        raise CutoutRefusedError(
            "cut_off" if kept < low else "blended",
            f"the galaxy's isophote holds {kept:.2f} of the flux of its magnitude, wanted {low:g} to {high:g}",
        )
    light = _centred(light / total)
    return HstSource(
        source_id=source_id,
        light=light,
        pixel_scale_arcsec=scale,
        band=str(row["band"]).strip(),
        mag=float(row["mag"]),
        half_light_radius_arcsec=_half_light_radius(light) * scale,
        redshift=redshift,
        flux_kept=kept,
        file=str(row["gal_filename"]).strip(),
    )


def _catalogue_flux(row: dict[str, Any]) -> float:
    band = str(row["band"]).strip()
    if band not in _ZERO_POINT or not np.isfinite(row["mag"]):
        raise CutoutRefusedError(
            "bad_catalogue", f"band {band}, mag {row['mag']}; bands with a zero point: {[*_ZERO_POINT]}"
        )
    return float(10 ** (0.4 * (_ZERO_POINT[band] - float(row["mag"]))))


def _galaxy(clean: Image, sigma: float) -> NDArray[np.bool_]:
    """Mark the pixels of the galaxy in the middle, within the faintest isophote that doesn't reach the border."""
    for isophote in _ISOPHOTES:
        regions, _ = ndimage.label(clean > isophote * sigma)
        own = regions[tuple(n // 2 for n in clean.shape)]
        if not own:
            raise CutoutRefusedError("not_centred", "there is no light in the middle of the image")
        mine = ndimage.binary_fill_holes(regions == own)
        if not (mine[[0, -1]].any() or mine[:, [0, -1]].any()):
            return np.asarray(mine)
    raise CutoutRefusedError(
        "cut_off", f"at {_ISOPHOTES[-1]:g} times a pixel's noise the galaxy still reaches the border of its image"
    )


def _border(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Mark the outermost eighth of a stamp's height and width on each side."""
    border = np.ones(shape, dtype=bool)
    down, along = (max(1, n // _BORDER) for n in shape)
    border[down:-down, along:-along] = False
    return border


def _smoothed(image: Image, step: int) -> Image:
    kernel = np.zeros(4 * step + 1)
    kernel[::step] = _SPLINE
    return np.asarray(ndimage.convolve1d(ndimage.convolve1d(image, kernel, axis=0), kernel, axis=1))


def _mad(values: Image) -> float:
    return float(_MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def _centred(light: Image) -> Image:
    """Pad so that the light's centroid is within half a pixel of the middle."""
    for axis in (0, 1):
        n = light.shape[axis]
        off = round(float(light.sum(axis=1 - axis) @ (np.arange(n) - (n - 1) / 2)))
        pad = [(0, 0), (0, 0)]
        pad[axis] = (max(0, -2 * off), max(0, 2 * off))
        light = np.pad(light, pad)
    return light


def _half_light_radius(light: Image) -> float:
    """Radius of the circle about the centroid that holds half the light, pixels."""
    places = [light.sum(axis=1 - axis) @ np.arange(light.shape[axis]) for axis in (0, 1)]
    y, x = (np.arange(n) - place for n, place in zip(light.shape, places, strict=True))
    radius = np.hypot(y[:, None], x).ravel()
    order = np.argsort(radius, kind="stable")
    return float(np.interp(0.5, np.cumsum(light.ravel()[order]), radius[order]))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        table = Table.read(path, hdu=1, format="fits")
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{path} can't be read as a FITS table: {error}. Fetch it again.") from error
    table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
    if missing := [name for name in _WANTED if name not in table.colnames]:
        raise ContractError(f"{path} lacks {first_few(missing)}: it isn't a GalSim RealGalaxy catalogue.")
    idents = [int(ident) for ident in table["ident"]]
    if twice := sorted({ident for ident in idents if idents.count(ident) > 1}):
        raise ContractError(f"{path} names galaxies more than once: {first_few(twice)}. A source_id names one galaxy.")
    return [{name: row[name] for name in table.colnames} for row in table]


def redshifts_path(catalogue: Path) -> Path:
    """Where a catalogue's redshifts stand, if it has any."""
    return catalogue.with_name(f"{catalogue.stem}_fits.fits")


def _redshifts(catalogue: Path) -> dict[int, float]:
    path = redshifts_path(catalogue)
    if not path.is_file():
        return {}
    with fits.open(path, memmap=False) as hdus:
        table = hdus[1].data
        known = zip(table["IDENT"].tolist(), table["zphot"].tolist(), strict=True)
        return {int(ident): float(z) for ident, z in known if np.isfinite(z) and z > 0}


def _images(path: Path, hdus: list[int]) -> dict[int, Image]:
    try:
        with fits.open(path, memmap=False) as file:
            return {hdu: np.asarray(file[hdu].data, dtype=np.float64) for hdu in hdus}
    except FileNotFoundError:
        raise ContractError(f"there is no {path}, which the catalogue names. Put its images beside it.") from None
    except (OSError, TypeError, ValueError, IndexError) as error:
        raise ContractError(f"the images in {path} can't be read: {error}. Fetch it again.") from error
