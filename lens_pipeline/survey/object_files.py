"""Galaxies in files of their own: a cube with a plane a band, as the Legacy Surveys' cutout service writes, or a file a band.

``NAME.fits`` holds planes (band, y, x) in the order of its keyword BANDS (``grz``; else BAND0, BAND1, ...), ``NAME-g.fits``,
``NAME-r.fits`` and ``NAME-z.fits`` an image each. The galaxy is NAME. Its place is the catalogue's, or else the middle of the
image; the stamp is cut there, to the nearest pixel. Pixels are nanomaggy: such files often don't say so, and then the sample says
that it is assumed.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few, no_folder
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.galaxy_table import Known
from lens_pipeline.survey.image_units import unit_assumed
from lens_pipeline.survey.mirror import Galaxy
from lens_pipeline.survey.sky_grid import Window, pixel_scale_of, sky_to_pixels_of

_UNITS = ("", "nanomaggy", "nanomaggies", "nmgy")
_NAME = re.compile(r"(?P<galaxy>.+?)(-(?P<band>[a-zA-Z]))?\.fits?(\.gz|\.fz)?", re.IGNORECASE)
_ASSUMED = (
    "The files of single galaxies carry no inverse variance, mask or PSF: a pixel that is exactly 0 or not finite is taken for "
    "one that saw nothing, any other counts as good."
)

Files = Mapping[str, Mapping[str, Path]]
Planes = dict[str, tuple[NDArray[Any], fits.Header]]


def object_files(folder: Path, bands: Sequence[str]) -> Files:
    """Return each galaxy's files by band, sorted by name; a cube stands under the band ``""``.

    Raises
    ------
    ConfigError
        If there is no such folder, or no FITS file in it.
    ContractError
        If a file is a symbolic link, or a galaxy has two files for one band, or both a cube and a file a band.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"{no_folder(folder)}. Set parent_sample.folder to the folder that holds the galaxies' images."
        )
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (match := _NAME.fullmatch(path.name)) is None or path.is_dir():
            continue
        if path.is_symlink():
            raise ContractError(f"{path} is a symbolic link; data are read only from regular files. Copy it there.")
        is_of_a_band = match["band"] in bands
        galaxy = match["galaxy"] if is_of_a_band or not match["band"] else f"{match['galaxy']}-{match['band']}"
        own, band = found.setdefault(galaxy, {}), match["band"] if is_of_a_band else ""
        if band in own:
            raise ContractError(
                f"{own[band].name} and {path.name} in {folder} are both of galaxy {galaxy}{band and f' in {band}'}. Leave one of "
                "them, or give the other a name of its own."
            )
        own[band] = path
    if not found:
        raise ConfigError(
            f"{folder} holds neither {', '.join(f'{band}.fits' for band in bands)}, nor coadd/ or survey-ccds*.fits, nor a FITS "
            f"file a galaxy. Set parent_sample.folder to the folder that holds them."
        )
    if both := [galaxy for galaxy, files in found.items() if "" in files and len(files) > 1]:
        raise ContractError(
            f"{len(both)} galaxies in {folder} have both a cube and files a band: {first_few(both)}. Leave one of them."
        )
    return found


def with_places(files: Files, catalogue: Sequence[Known], where: str, bands: Sequence[str]) -> list[Known]:
    """Return what is known of every galaxy that has files: its row in the catalogue, or else the place that its files say.

    Without a place, as in a file without a WCS, ra and dec are NaN, and cutting says so.

    Raises
    ------
    ContractError
        If a catalogue is there and names other galaxies than the files.
    """
    if catalogue:
        named = {str(row.get("galaxy_id")) for row in catalogue}
        for what, strangers in (("no file", named - set(files)), ("no row", set(files) - named)):
            if strangers:
                raise ContractError(
                    f"{len(strangers)} galaxies have {what}: {first_few(sorted(strangers))}. {where} and the folder's files must "
                    f"name the same galaxies (galaxy_id, and NAME.fits or NAME-{bands[0]}.fits)."
                )
        return [*catalogue]
    known = []
    for galaxy in files:
        ra, dec = _middle(files[galaxy], bands)
        known.append({"galaxy_id": galaxy, "ra": ra, "dec": dec})
    return known


def objects_at(
    files: Files, bands: Sequence[str], stamp_size: int, scale_arcsec: float, tolerance: float
) -> Callable[[Galaxy], GalaxyImage]:
    """Return the function that cuts a galaxy out of its files; see `read_object`."""

    def cut(galaxy: Galaxy) -> GalaxyImage:
        return read_object(files[galaxy.galaxy_id], bands, galaxy.ra, galaxy.dec, stamp_size, scale_arcsec, tolerance)

    return cut


def read_object(
    files: Mapping[str, Path],
    bands: Sequence[str],
    ra: float,
    dec: float,
    stamp_size: int,
    scale_arcsec: float,
    tolerance: float,
) -> GalaxyImage:
    """Cut a galaxy out of its own files.

    Raises
    ------
    CutoutRefusedError
        ``unreadable``, ``missing_band``, ``wrong_shape``, ``no_wcs``, ``wrong_unit``, ``wrong_scale`` or ``outside``.
    """
    planes = _planes(files, bands)
    wcs = _grid(planes, bands)
    try:
        scale = pixel_scale_of(wcs, str(next(iter(files.values()))))
    except ContractError as error:
        raise CutoutRefusedError("wrong_scale", str(error)) from error
    off = abs(scale / scale_arcsec - 1)
    if not off <= tolerance:
        raise CutoutRefusedError(
            "wrong_scale", f"{scale:.5g} arcsec per pixel, {off:.2%} from the nominal {scale_arcsec:g}"
        )
    window = Window.around(wcs, ra, dec, stamp_size)
    shape = planes[bands[0]][0].shape
    if window.share_inside(shape) < 1:
        raise CutoutRefusedError(
            "outside",
            f"its image has {shape[1]} x {shape[0]} pixels, which don't hold {stamp_size} around ({ra:.5f}, {dec:.5f})",
        )
    pixels = np.stack([window.cut(planes[band][0], np.nan) for band in bands])
    return GalaxyImage.of(
        tuple(bands),
        pixels,
        None,
        pixels == 0,
        pixel_scale_arcsec=scale,
        offset_arcsec=np.array([window.offset_pixels] * len(bands)) * scale,
        sky_to_pixels=sky_to_pixels_of(wcs, ra, dec),
        assumed=(_ASSUMED, *unit_assumed("Images of single galaxies", {band: planes[band][1] for band in bands})),
        files=tuple(str(path) for path in files.values()),
    )


def _planes(files: Mapping[str, Path], bands: Sequence[str]) -> Planes:
    planes: Planes = {}
    for named, path in files.items():
        data, header = _open(path)
        unit = str(header.get("BUNIT", "")).strip().lower()
        if unit not in _UNITS:
            raise CutoutRefusedError("wrong_unit", f"{path.name} is in {unit!r} (BUNIT), wanted nanomaggy")
        zero_point = header.get("MAGZERO", NANOMAGGY_ZERO_POINT_AB)
        if zero_point != NANOMAGGY_ZERO_POINT_AB:
            said = f"{path.name} has the zero point {zero_point} (MAGZERO), wanted {NANOMAGGY_ZERO_POINT_AB}"
            raise CutoutRefusedError("wrong_unit", said)
        if named:
            if data.ndim != 2:
                raise CutoutRefusedError("wrong_shape", f"{path.name} has {data.ndim} dimensions, wanted (y, x)")
            planes[named] = data, header
            continue
        order = _bands_of(header)
        if data.ndim != 3 or len(order) != len(data):
            said = f"{path.name} has pixels {data.shape} and BANDS {''.join(order) or 'nowhere'}"
            raise CutoutRefusedError("wrong_shape", f"{said}: wanted (band, y, x) with a letter a plane")
        planes |= {band: (plane, header) for band, plane in zip(order, data, strict=True)}
    if lacking := [band for band in bands if band not in planes]:
        raise CutoutRefusedError(
            "missing_band", f"no image in {', '.join(lacking)}: {first_few(p.name for p in files.values())}"
        )
    return planes


def _grid(planes: Planes, bands: Sequence[str]) -> WCS:
    """Return the one grid of all bands."""
    first, shape = WCS(planes[bands[0]][1]), planes[bands[0]][0].shape
    corners = np.array([[0, 0], [shape[1] - 1, shape[0] - 1]], dtype=float)
    for band in bands:
        grid = WCS(planes[band][1])
        if not grid.has_celestial:
            raise CutoutRefusedError("no_wcs", f"the image in {band} has no celestial WCS: its pixel scale isn't known")
        same = first.celestial.wcs_world2pix(grid.celestial.wcs_pix2world(corners, 0), 0)
        if planes[band][0].shape != shape or not np.allclose(same, corners, atol=0.05):
            raise CutoutRefusedError("wrong_shape", f"{band} has other pixels on the sky than {bands[0]}")
    return first


def _bands_of(header: fits.Header) -> list[str]:
    """Bands of a cube's planes: BANDS = 'grz' or 'g,r,z', else BAND0, BAND1, ..."""
    said = str(header.get("BANDS", "")).strip()
    if said:
        return [part.strip() for part in said.split(",")] if "," in said else list(said.replace(" ", ""))
    numbered: list[str] = []
    while (key := f"BAND{len(numbered)}") in header:
        numbered.append(str(header[key]).strip())
    return numbered


def _middle(files: Mapping[str, Path], bands: Sequence[str]) -> tuple[float, float]:
    """Return the place of the middle of a galaxy's image, NaN where its files don't say it; the cut then says what is wrong."""
    try:
        planes = _planes(files, bands)
        wcs, shape = _grid(planes, bands), planes[bands[0]][0].shape
    except CutoutRefusedError:
        return np.nan, np.nan
    ra, dec = wcs.celestial.pixel_to_world_values((shape[1] - 1) / 2, (shape[0] - 1) / 2)
    return float(ra), float(dec)


def _open(path: Path) -> tuple[NDArray[Any], fits.Header]:
    try:
        with fits.open(path, memmap=False) as hdus:
            hdu = next((hdu for hdu in hdus if hdu.header.get("NAXIS", 0) in (2, 3) and hdu.is_image), None)
            if hdu is None:
                raise CutoutRefusedError("wrong_shape", f"{path.name} holds no image")
            return np.asarray(hdu.data, dtype=np.float32), hdu.header.copy()
    except (OSError, TypeError, ValueError) as error:
        raise CutoutRefusedError("unreadable", f"{path.name} can't be read as FITS: {error}") from error
