"""Stamps in FITS files: planes of one file, or a file a band; what a header says is held against the dataset contract.

A header that says another unit, pixel scale, size or band is refused, and so is one that doesn't say its unit or scale: a
score of other pixels than the model was trained on would mean nothing.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.storage.sources import lent

_ROWS = 256
# 0.263 arcsec (DES) passes for 0.262 (Legacy Surveys); the survey stage takes cutouts under the same tolerance.
SCALE_TOLERANCE = 0.005
_SPELLINGS = {"nanomaggies": "nanomaggy", "nmgy": "nanomaggy"}

Chunk = tuple[int, NDArray[np.float32]]


class InputRefusedError(Exception):
    """An input that can't be read or isn't what the model was trained on; becomes a row with this reason."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class FitsOptions:
    """What the user says of images beyond what they say of themselves.

    Attributes
    ----------
    flux_unit : str or None
        Unit of files whose header has no BUNIT.
    cut_centre : bool
        Take the central pixels of images that are larger than a stamp, instead of refusing them.
    """

    flux_unit: str | None = None
    cut_centre: bool = False


@dataclass(frozen=True)
class _Image:
    """The first image of a file; `section` reads only what is sliced."""

    name: str
    header: fits.Header
    shape: tuple[int, ...]
    section: Any


def read_planes(name: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Chunk]:
    """Read a file or object of shape (band, y, x) or (row, band, y, x), as (first row, pixels (n, band, y, x)).

    Planes are found by name where the header says ``BANDS`` (as cutout services do), and are else in the contract's order.

    Raises
    ------
    InputRefusedError
        With the reason.
    """
    with _opened(name) as image:
        if len(image.shape) not in (3, 4):
            raise InputRefusedError(
                "wrong_shape", f"an image of shape {image.shape}, wanted (band, y, x) or (row, band, y, x)"
            )
        _must_fit(image, contract, options)
        planes = _planes(image, contract)
        yield from cube_chunks(image.section, image.shape, planes, contract, options)


def read_bands(template: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Chunk]:
    """Read a file a band, each of shape (y, x) or (row, y, x), as (first row, pixels (n, band, y, x)).

    Parameters
    ----------
    template : str
        Path or s3:// address in which ``{band}`` stands for the name of a band.

    Raises
    ------
    InputRefusedError
        With the reason.
    """
    with ExitStack() as stack:
        images = []
        for band in contract.bands:
            image = stack.enter_context(_opened(template.replace("{band}", band)))
            says = str(image.header.get("BAND", band)).strip()
            if says != band:
                raise InputRefusedError("wrong_band", f"{image.name} says it is {says!r}, wanted {band!r}")
            if len(image.shape) not in (2, 3):
                raise InputRefusedError(
                    "wrong_shape", f"{image.name} has shape {image.shape}, wanted (y, x) or (row, y, x)"
                )
            _must_fit(image, contract, options)
            images.append(image)
        shapes = {image.shape for image in images}
        if len(shapes) > 1:
            said = ", ".join(f"{image.name} {image.shape}" for image in images)
            raise InputRefusedError("wrong_shape", f"the bands differ: {said}")
        (shape,) = shapes
        n = 1 if len(shape) == 2 else shape[0]
        window = _window(shape, contract, options)
        for start in range(0, n, _ROWS):
            rows = window if len(shape) == 2 else (slice(start, min(start + _ROWS, n)), *window)
            bands = [_native(image.section[rows]).reshape(-1, *contract.stamp_shape[1:]) for image in images]
            yield start, np.stack(bands, axis=1)


def cube_chunks(
    source: Any, shape: tuple[int, ...], planes: list[int], contract: DatasetContract, options: FitsOptions
) -> Iterator[Chunk]:
    """Slice (first row, pixels (n, band, y, x)) out of something of shape (row, plane, y, x) or (plane, y, x).

    Raises
    ------
    InputRefusedError
        If its images are smaller than a stamp, or larger and may not be cut.
    """
    y, x = _window(shape, contract, options)
    if len(shape) == 3:
        yield 0, _native(source[:, y, x])[planes][None]
        return
    for start in range(0, shape[0], _ROWS):
        yield start, _native(source[start : min(start + _ROWS, shape[0]), :, y, x])[:, planes]


@contextmanager
def _opened(name: str) -> Iterator[_Image]:
    with lent(name) as path, _opened_here(path, Path(name).name) as image:
        yield image


@contextmanager
def _opened_here(path: Path, name: str) -> Iterator[_Image]:
    """Open a file on this machine; `name` is what it is called in words."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputRefusedError("unreadable", f"{name}: {error.strerror}") from error
    if start != b"SIMPLE  =":
        raise InputRefusedError("not_fits", f"{name} starts with {start!r}; a compressed file must be unpacked first")
    try:
        with ExitStack() as stack:
            with warnings.catch_warnings():
                # Astropy warns of what is refused here.
                warnings.simplefilter("ignore")
                image = _first_image(path, name, stack.enter_context(fits.open(path, memmap=False)))
            yield image
    except InputRefusedError:
        raise
    except Exception as error:  # Whatever astropy meets in a file that somebody else wrote.
        raise InputRefusedError("not_fits", f"{name}: {error}") from error


def _first_image(path: Path, name: str, hdus: fits.HDUList) -> _Image:
    for hdu in hdus:
        if isinstance(hdu, fits.CompImageHDU):
            raise InputRefusedError("not_fits", f"{name} is tile-compressed: unpack it first (funpack)")
        if isinstance(hdu, fits.PrimaryHDU | fits.ImageHDU) and len(hdu.shape) > 0:
            claimed = abs(int(hdu.header["BITPIX"])) // 8 * int(np.prod(hdu.shape, dtype=object))
            there = path.stat().st_size - hdu.fileinfo()["datLoc"]
            if claimed > there:
                raise InputRefusedError("truncated", f"{name} claims {claimed:,} bytes of pixels, {there:,} are there")
            return _Image(name, hdu.header, tuple(hdu.shape), hdu.section)
    raise InputRefusedError("no_image", f"{name} has no image")


def _must_fit(image: _Image, contract: DatasetContract, options: FitsOptions) -> None:
    """Refuse another unit or pixel scale than the contract's, or none."""
    name = image.name
    unit = str(image.header.get("BUNIT") or options.flux_unit or "").strip().lower()
    if not unit:
        raise InputRefusedError(
            "no_unit", f"{name} has no BUNIT; if it is in {contract.flux_unit}, say --flux-unit {contract.flux_unit}"
        )
    if _SPELLINGS.get(unit, unit) != contract.flux_unit.lower():
        raise InputRefusedError("wrong_unit", f"{name} is in {unit!r}, the model knows {contract.flux_unit!r}")
    for scale in _scales(image):
        off = abs(scale / contract.pixel_scale_arcsec - 1)
        if not off <= SCALE_TOLERANCE:
            raise InputRefusedError(
                "wrong_scale",
                f"{name} has {scale:.4g} arcsec per pixel, {off:.1%} from the model's {contract.pixel_scale_arcsec:g}; "
                f"at most {SCALE_TOLERANCE:.1%} is accepted: resample it",
            )


def _scales(image: _Image) -> list[float]:
    """Arcsec per pixel along x and y: from the WCS, else from PIXSCALE."""
    with warnings.catch_warnings():
        # Of keywords that it mends in its copy of the header.
        warnings.simplefilter("ignore")
        wcs = WCS(image.header)
    if wcs.has_celestial:
        return [float(degrees) * 3600 for degrees in proj_plane_pixel_scales(wcs.celestial)]
    scale = image.header.get("PIXSCALE")
    if not isinstance(scale, int | float):
        raise InputRefusedError("no_scale", f"{image.name} has neither a celestial WCS nor PIXSCALE")
    return [float(scale)]


def _planes(image: _Image, contract: DatasetContract) -> list[int]:
    """Place of each of the contract's bands among the planes."""
    n = image.shape[-3]
    named = image.header.get("BANDS")
    if named is None:
        if n != len(contract.bands):
            raise InputRefusedError(
                "wrong_band",
                f"{image.name} has {n} planes and doesn't name them (BANDS); the model takes {', '.join(contract.bands)}",
            )
        return list(range(n))
    bands = str(named).replace(",", " ").split() if set(str(named)) & set(" ,") else list(str(named).strip())
    missing = [band for band in contract.bands if bands.count(band) != 1]
    if missing or len(bands) != n:
        raise InputRefusedError(
            "wrong_band",
            f"{image.name} names {bands} for {n} planes; the model takes each of {list(contract.bands)} once",
        )
    return [bands.index(band) for band in contract.bands]


def _window(shape: tuple[int, ...], contract: DatasetContract, options: FitsOptions) -> tuple[slice, slice]:
    """Return where the stamp lies in an image, as the survey stage cuts it."""
    size, (height, width) = contract.stamp_size, shape[-2:]
    fits_in = height >= size and width >= size
    if not fits_in or ((height, width) != (size, size) and not options.cut_centre):
        mend = "; --cut-centre takes the central pixels" if fits_in else ""
        raise InputRefusedError("wrong_size", f"images of {height} x {width} pixels, a stamp has {size} x {size}{mend}")
    y, x = (height - size) // 2, (width - size) // 2
    return slice(y, y + size), slice(x, x + size)


def _native(pixels: Any) -> NDArray[np.float32]:
    # A value beyond float32 becomes infinite, and is refused as not finite.
    with np.errstate(over="ignore"):
        return np.asarray(pixels).astype(np.float32)
