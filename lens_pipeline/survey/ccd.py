"""Single exposures of one CCD, calibrated by the survey's table of CCDs: image, weight, data quality, sky, PSF and WCS.

Belongs here: counts to nanomaggy and the cutout at a place. Files lie as the Legacy Surveys' legacypipe lays them:
``survey-ccds*.fits*``, ``images/...ooi...`` (with ``oow`` and ``ood`` beside), and ``calib/.../{psfex,splinesky}``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.interpolate import RectBivariateSpline

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few, no_folder
from lens_pipeline.survey.ccd_files import beside, calibration_file, ccd_rows, files_of, known_number, read_plane
from lens_pipeline.survey.files_read import OnOpen
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.psfex import PsfExModel, read_psfex
from lens_pipeline.survey.sky_grid import Window, are_one_way, pixel_scale_of, sky_to_pixels_of

# The weight map's median against the survey's own noise of the CCD.
_SIG1_TOLERANCE = 0.1

Plane = NDArray[np.float32]


@dataclass(frozen=True)
class Ccd:
    """One CCD of one exposure.

    Attributes
    ----------
    pixels, ivar : (y, x) float32 arrays
        Sky-subtracted, nanomaggy; and inverse variance, nanomaggy^-2.
    bad : (y, x) bool array
        Any flag of the data quality plane.
    electrons_per_nanomaggy : float or None
        Gain times ADU per nanomaggy; None where the table has no gain.
    sig1 : float
        Median sigma of a pixel, nanomaggy.
    assumed : tuple of str
        What the files don't say.
    files : tuple of str
        Its planes and calibrations, and the table that lists it.
    """

    name: str
    band: str
    pixels: Plane
    ivar: Plane
    bad: NDArray[np.bool_]
    wcs: WCS
    pixel_scale_arcsec: float
    psf: PsfExModel | None
    fwhm_arcsec: float | None
    electrons_per_nanomaggy: float | None
    sig1: float
    assumed: tuple[str, ...]
    files: tuple[str, ...] = ()


def read_field(folder: Path, on_open: OnOpen | None = None) -> tuple[Ccd, ...]:
    """Read every CCD that the folder's table of CCDs lists.

    Parameters
    ----------
    on_open : callable, optional
        Is told which files are about to be opened.

    Raises
    ------
    ConfigError
        If there is no such folder.
    ContractError
        If there is no table, it lacks a photometric zero point or another column, or a CCD's files can't be used.
    """
    if not folder.is_dir():
        raise ConfigError(f"{no_folder(folder)}. Name the one that holds survey-ccds*.fits and images/.")
    paths = sorted(path for path in folder.glob("survey-ccds*.fits*"))
    if not paths:
        raise ContractError(
            f"{folder} has no survey-ccds*.fits: without ccdzpt its counts can't be calibrated to nanomaggy. Put the "
            f"survey's table of CCDs beside images/."
        )
    ccds = []
    for path in paths:
        if on_open is not None:
            on_open([str(path)])
        for row in ccd_rows(path):
            if on_open is not None:
                on_open(str(file) for file in files_of(folder, row))
            ccd = read_ccd(folder, row)
            ccds.append(replace(ccd, files=(str(path), *ccd.files)))
    return tuple(ccds)


def read_ccd(folder: Path, row: Mapping[str, Any]) -> Ccd:
    """Read one CCD and calibrate it: nanomaggy = (ADU - sky) / 10^((ccdzpt + 2.5 log10(exptime) - 22.5) / 2.5).

    The WCS is shifted by the table's astrometric offset, as legacypipe does.

    Parameters
    ----------
    row : mapping
        Of the table of CCDs, names in lower case.

    Raises
    ------
    ContractError
        If a plane is missing or of another shape, a weight is negative, or the noise isn't the table's ``sig1``.
    """
    name = f"{row['camera']}-{int(row['expnum']):08d}-{row['ccdname']}"
    zero_point, exposure = known_number(row, "ccdzpt"), known_number(row, "exptime")
    if zero_point is None or exposure is None:
        raise ContractError(
            f"{name} has ccdzpt = {row['ccdzpt']} and exptime = {row['exptime']}: it can't be calibrated. Leave it out of the "
            f"table."
        )
    adu_per_nmgy = 10 ** ((zero_point + 2.5 * np.log10(exposure) - NANOMAGGY_ZERO_POINT_AB) / 2.5)
    image = folder / "images" / str(row["image_filename"])
    counts, header = read_plane(image, row)
    weight, quality = (read_plane(beside(image, kind), row)[0] for kind in ("oow", "ood"))
    if not counts.shape == weight.shape == quality.shape:
        raise ContractError(
            f"the planes of {name} differ in shape: image {counts.shape}, weight {weight.shape}, quality {quality.shape}. "
            f"Fetch them again."
        )
    if wrong := int((~(weight >= 0)).sum()):
        raise ContractError(f"{beside(image, 'oow')} holds {wrong} weights that are negative or not finite.")
    bad = quality != 0
    sky, assumed = _sky(folder, row, counts, bad | (weight == 0))
    ivar = weight * adu_per_nmgy**2
    wcs = _wcs(header, row, name)
    scale = pixel_scale_of(wcs, str(image))
    fwhm = known_number(row, "fwhm")
    gain = known_number(row, "gain")
    return Ccd(
        name=name,
        band=str(row["filter"]),
        pixels=((counts - sky) / adu_per_nmgy).astype(np.float32),
        ivar=ivar.astype(np.float32),
        bad=bad,
        wcs=wcs,
        pixel_scale_arcsec=scale,
        psf=_psf(folder, row),
        fwhm_arcsec=None if fwhm is None else fwhm * scale,
        electrons_per_nanomaggy=None if gain is None else gain * adu_per_nmgy,
        sig1=_sig1(ivar, row, name),
        assumed=assumed,
        files=tuple(str(path) for path in files_of(folder, row)),
    )


def cut_from_ccds(ccds: Sequence[Ccd], bands: Sequence[str], ra: float, dec: float, stamp_size: int) -> GalaxyImage:
    """Cut a galaxy out of single exposures, each band from the one that holds most of it, the deepest of several.

    No pixel is resampled: the cutout keeps the CCD's own pixels and orientation, and the place stands up to half a pixel from
    the middle, in each band elsewhere (`offset_arcsec`). Pixels beyond the CCD's border are bad.

    Raises
    ------
    CutoutRefusedError
        ``outside`` if a band has no exposure of the place, ``wrong_scale`` if the bands' pixels differ by more than 1 %,
        ``wrong_shape`` if they are turned or mirrored against each other by more than a degree.
    """
    chosen = [_best(ccds, band, ra, dec, stamp_size) for band in bands]
    scales = [ccd.pixel_scale_arcsec for ccd, _ in chosen]
    if max(scales) > 1.01 * min(scales):
        raise CutoutRefusedError("wrong_scale", f"the bands' pixels have {scales} arcsec: resample them to one")
    scale = float(np.mean(scales))
    ways = [sky_to_pixels_of(ccd.wcs, ra, dec) for ccd, _ in chosen]
    if not all(are_one_way(way, ways[0]) for way in ways):
        raise CutoutRefusedError(
            "wrong_shape",
            "the bands' pixels are turned or mirrored against each other: resample them to one orientation",
        )
    names = ", ".join(f"{ccd.band} {ccd.name}" for ccd, _ in chosen)
    return GalaxyImage.of(
        tuple(bands),
        np.stack([window.cut(ccd.pixels, 0) for ccd, window in chosen]),
        np.stack([window.cut(ccd.ivar, 0) for ccd, window in chosen]),
        np.stack([window.cut(ccd.bad, True) for ccd, window in chosen]),
        pixel_scale_arcsec=scale,
        offset_arcsec=np.array([window.offset_pixels for _, window in chosen]) * scale,
        sky_to_pixels=ways[0],
        psf=tuple(ccd.psf and ccd.psf.at(window.x, window.y) for ccd, window in chosen),
        psf_fwhm_arcsec=tuple(ccd.fwhm_arcsec for ccd, _ in chosen),
        electrons_per_nanomaggy=tuple(ccd.electrons_per_nanomaggy for ccd, _ in chosen),
        is_resampled=False,
        assumed=(
            f"Single exposures ({names}) in their own pixels and orientation, not resampled: bands are shifted against each "
            "other by up to a pixel.",
            *dict.fromkeys(text for ccd, _ in chosen for text in ccd.assumed),
        ),
        files=tuple(dict.fromkeys(file for ccd, _ in chosen for file in ccd.files)),
    )


def _best(ccds: Sequence[Ccd], band: str, ra: float, dec: float, stamp_size: int) -> tuple[Ccd, Window]:
    windows = [(ccd, Window.around(ccd.wcs, ra, dec, stamp_size)) for ccd in ccds if ccd.band == band]
    held = [(ccd, window) for ccd, window in windows if window.holds_place(ccd.pixels.shape)]
    if not held:
        tried = first_few(ccd.name for ccd, _ in windows) or "there is none in this band"
        raise CutoutRefusedError(
            "outside", f"none of {len(windows)} exposures in {band} holds ({ra:.5f}, {dec:.5f}): {tried}"
        )
    return min(held, key=lambda pair: (-pair[1].share_inside(pair[0].pixels.shape), pair[0].sig1))


def _wcs(header: fits.Header, row: Mapping[str, Any], name: str) -> WCS:
    wcs = WCS(header)
    if not wcs.has_celestial:
        raise ContractError(f"the image of {name} has no celestial WCS: where its galaxies are isn't known.")
    if unknown := [place for place in ("ccdraoff", "ccddecoff") if row[place] is None or not np.isfinite(row[place])]:
        raise ContractError(
            f"{name} has no {first_few(unknown)}: where its galaxies are isn't known. Leave it out of the table."
        )
    ra, dec = wcs.wcs.crval
    wcs.wcs.crval = [
        ra + float(row["ccdraoff"]) / 3600 / np.cos(np.radians(dec)),
        dec + float(row["ccddecoff"]) / 3600,
    ]
    wcs.wcs.set()
    return wcs


def _sig1(ivar: NDArray[np.float64], row: Mapping[str, Any], name: str) -> float:
    if not (ivar > 0).any():
        raise ContractError(f"{name} has no pixel with a weight. Leave it out of the table.")
    found = float(1 / np.sqrt(np.median(ivar[ivar > 0])))
    said = known_number(row, "sig1")
    if said is not None and not abs(found / said - 1) <= _SIG1_TOLERANCE:
        raise ContractError(
            f"{name}: calibrated weights give a noise of {found:.4g} nanomaggy a pixel, the table's sig1 says {said:.4g}. "
            f"ccdzpt, exptime and weight don't belong together."
        )
    return found


def _sky(
    folder: Path, row: Mapping[str, Any], counts: NDArray[Any], hidden: NDArray[np.bool_]
) -> tuple[NDArray[np.float64] | float, tuple[str, ...]]:
    """Sky of each pixel: the spline that legacypipe fitted to the whole CCD, or else one level."""
    path = calibration_file(folder, row, "splinesky")
    if path is None:
        level = float(np.median(counts[~hidden]))
        return level, ("The sky is the median of the CCD's unmasked pixels: galaxies' faint outskirts are in it.",)
    with fits.open(path, memmap=False) as hdus:
        grid = hdus[1].data[0]
    order = int(grid["order"])
    spline = RectBivariateSpline(grid["xgrid"], grid["ygrid"], np.asarray(grid["gridvals"]).T, kx=order, ky=order)
    height, width = counts.shape
    return np.asarray(spline(np.arange(width) + int(grid["x0"]), np.arange(height) + int(grid["y0"])).T), ()


def _psf(folder: Path, row: Mapping[str, Any]) -> PsfExModel | None:
    path = calibration_file(folder, row, "psfex")
    return None if path is None else read_psfex(path, ccdname=str(row["ccdname"]))
