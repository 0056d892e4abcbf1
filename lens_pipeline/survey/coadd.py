"""One brick of the Legacy Surveys' coadds: its planes, opened where they lie and read a window at a time.

Belongs here: file names, units and masks of a brick (https://www.legacysurvey.org/dr10/files and /dr10/bitmasks). Which brick
a galaxy is in, and what happens at a brick's edge, is in `mirror.py`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.contracts.errors import ContractError, StorageError
from lens_pipeline.storage.sources import lent
from lens_pipeline.survey.files_read import OnOpen
from lens_pipeline.survey.galaxy_images import CutoutRefusedError
from lens_pipeline.survey.image_units import unit_assumed
from lens_pipeline.survey.psf_image import PsfImage, read_psf_image
from lens_pipeline.survey.sky_grid import pixel_scale_of

# MASKBITS that make a pixel useless in one band: saturated (SATUR_*), or flagged in every exposure (ALLMASK_*).
_BAD_BITS = {"g": 1 << 2 | 1 << 5, "r": 1 << 3 | 1 << 6, "i": 1 << 14 | 1 << 15, "z": 1 << 4 | 1 << 7}
_UNITS = {"image": ("nanomaggy", "nanomaggies", "nmgy"), "invvar": ("1/nanomaggy^2", "nanomaggy^-2", "1/nmgy^2")}
_ALWAYS = ("image", "invvar")
_IMAGES = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)


@dataclass(frozen=True)
class Plane:
    """A two-dimensional image in an open file; slicing reads that part alone."""

    section: Any
    shape: tuple[int, int]
    header: fits.Header
    path: str

    def __getitem__(self, window: tuple[slice, slice]) -> NDArray[Any]:
        try:
            data = np.asarray(self.section[window])
        except (OSError, TypeError, ValueError, IndexError) as error:
            raise ContractError(f"{self.path} is cut off or damaged: {error}. Fetch it again.") from error
        return data.astype(data.dtype.newbyteorder("="), copy=False)


@dataclass(frozen=True)
class Brick:
    """An open brick; close it with its ExitStack.

    Attributes
    ----------
    planes : dict
        (kind, band) to Plane, kind ``image``, ``invvar`` and, where there, ``psfsize``; and (``maskbits``, ``""``).
    psf : dict
        Band to the PSF image of the brick, where there is one.
    files : tuple of str
        Everything that was opened.
    """

    name: str
    wcs: WCS
    pixel_scale_arcsec: float
    shape: tuple[int, int]
    planes: Mapping[tuple[str, str], Plane]
    psf: Mapping[str, PsfImage]
    files: tuple[str, ...]
    opened: ExitStack

    @property
    def assumed(self) -> tuple[str, ...]:
        """What the headers of its images don't say, in words."""
        images = {band: plane.header for (kind, band), plane in self.planes.items() if kind == "image"}
        return unit_assumed("Coadded images", images)

    def bad_bits(self, band: str) -> int:
        """Bits of ``maskbits`` that make a pixel useless in a band."""
        return _BAD_BITS[band]


def open_brick(
    name: str,
    files: Sequence[str],
    bands: Sequence[str],
    scale_arcsec: float,
    tolerance: float,
    on_open: OnOpen | None = None,
) -> Brick:
    """Open the files of one brick.

    Parameters
    ----------
    files : sequence of str
        Paths or s3:// addresses of everything in the brick's folder; objects are fetched whole, through the cache.
    scale_arcsec, tolerance : float
        Nominal pixel scale, and how far the brick's may be from it, relatively.
    on_open : callable, optional
        Is told which of them are about to be opened.

    Raises
    ------
    CutoutRefusedError
        ``missing_band`` if the brick wasn't observed in a band.
    ContractError
        If a file is missing beside others of its band, can't be read, or has another unit, zero point, shape or pixel scale.
    """
    there = {_short(file): file for file in files}
    if lacking := [band for band in bands if _find(there, name, "image", band) is None]:
        raise CutoutRefusedError("missing_band", f"brick {name} has no image in {', '.join(lacking)}")
    wanted = [(kind, band) for kind in (*_ALWAYS, "psfsize") for band in bands] + [("maskbits", "")]
    chosen = {}
    for kind, band in wanted:
        file = _find(there, name, kind, band)
        if file is None and kind != "psfsize":
            raise ContractError(
                f"brick {name} has no {_stem(name, kind, band)}.fits.fz beside its images: a cutout needs image, invvar and "
                f"maskbits. Fetch it."
            )
        if file is not None:
            chosen[kind, band] = file
    psf_files = {band: file for band in bands if (file := _find(there, name, "psf", band))}
    read = (*chosen.values(), *psf_files.values())
    if on_open is not None:
        on_open(read)
    with ExitStack() as stack:
        planes = {(kind, band): _open_plane(stack, file, kind) for (kind, band), file in chosen.items()}
        first = planes["image", bands[0]]
        for (kind, _), plane in planes.items():
            if plane.shape != first.shape:
                raise ContractError(
                    f"{plane.path} has {plane.shape} pixels, {first.path} has {first.shape}: {kind} isn't of that image."
                )
        wcs, scale = _grid(planes, bands, scale_arcsec, tolerance)
        psf = {}
        for band, file in psf_files.items():
            with lent(file) as path:
                psf[band] = read_psf_image(path)
        return Brick(name, wcs, scale, first.shape, planes, psf, read, stack.pop_all())


def _short(file: str) -> str:
    name = file.rsplit("/", 1)[-1]
    return name.removesuffix(".fz").removesuffix(".gz")


def _stem(brick: str, kind: str, band: str) -> str:
    return f"legacysurvey-{brick}-{kind}" + (f"-{band}" if band else "")


def _find(there: Mapping[str, str], brick: str, kind: str, band: str) -> str | None:
    return there.get(f"{_stem(brick, kind, band)}.fits")


def _open_plane(stack: ExitStack, file: str, kind: str) -> Plane:
    try:
        path = stack.enter_context(lent(file))
        hdus = stack.enter_context(fits.open(path))
        hdu = next(hdu for hdu in hdus if isinstance(hdu, _IMAGES) and hdu.header.get("NAXIS") == 2)
    except StopIteration:
        raise ContractError(f"{file} holds no image of two dimensions. Fetch it again.") from None
    except StorageError:
        raise
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{file} can't be read as FITS: {error}. Fetch it again.") from error
    header = hdu.header
    unit = str(header.get("BUNIT", "")).strip().lower()
    if kind in _UNITS and unit and unit not in _UNITS[kind]:
        raise ContractError(
            f"{file} is in {unit!r} (BUNIT), wanted {_UNITS[kind][0]}. Multiply by 10^((22.5 - zero point) / 2.5), squared for "
            f"a variance, and set BUNIT."
        )
    zero_point = header.get("MAGZERO", NANOMAGGY_ZERO_POINT_AB)
    if kind == "image" and zero_point != NANOMAGGY_ZERO_POINT_AB:
        raise ContractError(f"{file} has the zero point {zero_point} (MAGZERO), wanted {NANOMAGGY_ZERO_POINT_AB}.")
    return Plane(hdu.section, tuple(hdu.shape), header.copy(), file)


def _grid(
    planes: Mapping[tuple[str, str], Plane], bands: Sequence[str], scale_arcsec: float, tolerance: float
) -> tuple[WCS, float]:
    """Return the one grid of all bands."""
    grids = {band: WCS(planes["image", band].header) for band in bands}
    first, where = grids[bands[0]], planes["image", bands[0]]
    if not first.has_celestial:
        raise ContractError(f"{where.path} has no celestial WCS: where its galaxies are isn't known. Fetch it again.")
    height, width = where.shape
    corners = np.array([[0, 0], [width - 1, height - 1], [0, height - 1]], dtype=float)
    for band, grid in grids.items():
        path = planes["image", band].path
        if not grid.has_celestial or not np.allclose(
            first.wcs_world2pix(grid.wcs_pix2world(corners, 0), 0), corners, atol=0.05
        ):
            raise ContractError(f"{path} has another WCS than {where.path}: bands would be shifted. Fetch both again.")
    scale = pixel_scale_of(first, where.path)
    off = abs(scale / scale_arcsec - 1)
    if not off <= tolerance:
        raise ContractError(
            f"{where.path} has {scale:.5g} arcsec per pixel, {off:.2%} from the nominal {scale_arcsec:g}; at most "
            f"{tolerance:.2%} is accepted. Resample it, or set the nominal scale to its own."
        )
    return first, scale
