"""Real galaxies as hosts: FITS cubes of cutouts, one a band, with an optional catalogue; or other images of them.

Belongs here: reading and refusing the cubes, and what must be assumed because they don't say it. The pixels that stamps are made
of are published beside the parent sample, so that nothing later depends on the user's folder.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import PARENT_LEFT_OUT
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.band_agreement import bands_must_agree, sample_must_agree
from lens_pipeline.survey.conditions import BANDS, SEEING_OVER_R
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.cutout_measures import (
    APERTURE_RADIUS_ARCSEC,
    SKY_BEYOND_ARCSEC,
    aperture_mag,
    centroid,
    pixel_correlation,
    sky_noise,
)
from lens_pipeline.survey.cutout_places import Placed, left_out_rows, place_galaxies, regions_must_not_overlap
from lens_pipeline.survey.cutouts import create_bad, write_cutouts
from lens_pipeline.survey.files_read import FilesRead
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.galaxy_table import COLUMNS, Known, place_of, read_galaxies
from lens_pipeline.survey.image_judgement import bands_must_be_seen, must_be_usable
from lens_pipeline.survey.image_parents import image_parents
from lens_pipeline.survey.images_at import holds_images
from lens_pipeline.survey.mirror import twins_of
from lens_pipeline.survey.same_pixels import SeenPixels

_UNIT = "nanomaggy"
_R = BANDS.index("r")

Cubes = NDArray[np.float32]


def real_parents(config: ParentSampleConfig, staging: Staging) -> pa.Table:
    """Read the cubes, or images and files of single galaxies (`image_parents`), and describe the galaxies in them.

    Writes the centre of every cutout to ``cutouts.npy``, (galaxy, band, y, x) float32 in nanomaggy, which pixels are bad to
    ``bad_pixels.npy``, and the galaxies that can't be used to the table ``left_out``.

    Returns
    -------
    pyarrow.Table
        One row a galaxy, under the contract PARENT_SAMPLE, with what rendering needs beside. A galaxy without a catalogue
        is its own region. What the cubes don't say is null, and what is assumed instead stands in columns and in
        attributes that say so.

    Raises
    ------
    ConfigError
        If the folder or a cube is missing.
    ContractError
        If cubes differ in shape or are too small, have another unit or pixel scale, no galaxy can be used, or the stamps of two
        regions could show the same sky.
    """
    folder = Path(config.folder).expanduser().absolute()
    paths = cube_paths(folder)
    if holds_images(config.folder) or not any(path.exists() for path in paths.values()):
        return image_parents(config, _catalogue(config, None, staging), staging)
    # Hashed before they are read, and looked at again after: what is published is the hash of the bytes that were used.
    read = FilesRead()
    read.add(str(path) for path in paths.values() if path.exists())
    cubes, scale = _read_cubes(config, folder, paths)
    pixels, (y0, x0) = _centre(cubes, config.stamp_size, folder)
    catalogue = _named(config, _catalogue(config, len(pixels), staging))
    placed = place_galaxies(config, catalogue, staging)
    usable = _usable(placed, pixels, scale)
    write_cutouts(staging.folder, np.where(np.isfinite(pixels), pixels, np.float32(0)))
    bad = create_bad(staging.folder, pixels.shape)
    for number, image in usable.items():
        bad[number] = image.bad
    bad.flush()
    staging.write_table("left_out", left_out_rows(placed.quarantine, catalogue, str(folder)), PARENT_LEFT_OUT)
    staging.attributes["left_out"] = placed.quarantine.counts
    if not usable:
        raise ContractError(
            f"none of {len(pixels):,} galaxies in {folder} can be used: {placed.quarantine.counts}. First: "
            f"{placed.quarantine.rows[0]['detail']}."
        )
    rho = pixel_correlation(np.stack([image.pixels for image in usable.values()]), scale)
    known = dict(zip(placed.numbers, placed.rows, strict=True))
    rows = [_row(config, known[number], number, image, rho) for number, image in usable.items()]
    sample_must_agree(rows, BANDS)
    regions_must_not_overlap(rows, config.stamp_size)
    staging.attributes["folder"] = str(folder)
    staging.attributes["files"] = read.entries()
    staging.attributes["pixel_scale_measured_arcsec"] = scale
    staging.attributes["cutout_corner"] = [y0, x0]
    staging.attributes["assumptions"] = _assumptions(config, scale, rho, rows)
    return pa.Table.from_pylist(rows)


def cube_paths(folder: Path) -> dict[str, Path]:
    """Return where the cube of each band is looked for."""
    return {band: folder / f"{band}.fits" for band in BANDS}


def refuse_missing_cubes(folder: Path, paths: dict[str, Path]) -> None:
    """Refuse a folder with cubes of some bands only."""
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise ConfigError(
            f"{folder} lacks {first_few(missing)}: real_cutouts reads one FITS cube a band, named {', '.join(BANDS)}.fits, with "
            f"the same galaxies in the same order. Set parent_sample.folder to the folder that holds them."
        )


def _read_cubes(config: ParentSampleConfig, folder: Path, paths: dict[str, Path]) -> tuple[Cubes, float]:
    refuse_missing_cubes(folder, paths)
    cubes, scales = {}, {}
    for band, path in paths.items():
        cubes[band], scales[band] = _read_cube(config, path)
    shapes = {band: cube.shape for band, cube in cubes.items()}
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{band}.fits {shape}" for band, shape in shapes.items())
        raise ContractError(
            f"the cubes in {folder} differ in shape (galaxies, y, x): {said}. A galaxy must have the same place and size in "
            f"each band; cut them again from one list of galaxies."
        )
    if len(set(scales.values())) > 1:
        raise ContractError(f"the cubes in {folder} differ in pixel scale: {scales} arcsec. Resample them to one.")
    return np.stack([cubes[band] for band in BANDS], axis=1), scales[BANDS[0]]


def _read_cube(config: ParentSampleConfig, path: Path) -> tuple[Cubes, float]:
    if path.is_symlink():
        raise ContractError(f"{path} is a symbolic link; data are read only from regular files. Copy the cube there.")
    try:
        with fits.open(path, memmap=False) as hdus:
            header, data = hdus[0].header.copy(), hdus[0].data
    except (OSError, TypeError, ValueError) as error:
        raise ContractError(f"{path} can't be read as FITS: {error}. Fetch or write it again.") from error
    if data is None or data.ndim != 3:
        found = "no image" if data is None else f"{data.ndim} dimensions"
        raise ContractError(
            f"the first HDU of {path} has {found}, wanted a cube (galaxies, y, x). Stack the cutouts in one."
        )
    unit = str(header.get("BUNIT", "")).strip()
    if unit.lower() not in (_UNIT, "nanomaggies", "nmgy"):
        raise ContractError(
            f"{path} is in {unit!r} (BUNIT), wanted {_UNIT} (AB zero point 22.5). Multiply by "
            f"10^((22.5 - zero point) / 2.5) and set BUNIT."
        )
    scale = header.get("PIXSCALE")
    if not isinstance(scale, int | float):
        raise ContractError(f"{path} doesn't say its pixel scale: PIXSCALE is {scale!r}, wanted arcsec per pixel.")
    off = abs(float(scale) / config.pixel_scale_arcsec - 1)
    if not off <= config.pixel_scale_tolerance:
        raise ContractError(
            f"{path} has {scale} arcsec per pixel, {off:.2%} from the nominal {config.pixel_scale_arcsec}; at most "
            f"{config.pixel_scale_tolerance:.2%} is accepted. Resample it, or set parent_sample.pixel_scale_arcsec or "
            f"parent_sample.pixel_scale_tolerance."
        )
    return data.astype(np.float32), float(scale)


def _centre(cubes: Cubes, stamp_size: int, folder: Path) -> tuple[Cubes, tuple[int, int]]:
    height, width = cubes.shape[-2:]
    if min(height, width) < stamp_size:
        raise ContractError(
            f"the cutouts in {folder} are {height} x {width} pixels, a stamp has {stamp_size}: cut them larger."
        )
    y0, x0 = (height - stamp_size) // 2, (width - stamp_size) // 2
    return np.ascontiguousarray(cubes[..., y0 : y0 + stamp_size, x0 : x0 + stamp_size]), (y0, x0)


def _row(config: ParentSampleConfig, known: Known, number: int, image: GalaxyImage, rho: float) -> dict[str, Any]:
    pixels, scale = image.pixels, image.pixel_scale_arcsec
    x, y = image.offset_arcsec[0] / scale
    row: dict[str, Any] = {name: known.get(name) for name in COLUMNS}
    row |= {
        "cutout_row": number,
        "host_x_arcsec": x * scale,
        "host_y_arcsec": y * scale,
        "pixel_scale_arcsec": scale,
        "noise_correlation": rho,
        "bad_pixel_frac": image.bad_pixel_frac,
        "psf_is_assumed": True,
    }
    for i, band in enumerate(BANDS):
        row[f"pixel_sigma_{band}"] = sky_noise(pixels[i], x, y, scale)[1]
        row[f"psf_fwhm_assumed_{band}"] = config.assumed_psf_fwhm_arcsec * SEEING_OVER_R[band]
    return row | _aperture_mags(image)


def _aperture_mags(image: GalaxyImage) -> dict[str, float | None]:
    scale = image.pixel_scale_arcsec
    x, y = image.offset_arcsec[0] / scale
    levels = [sky_noise(pixels, x, y, scale)[0] for pixels in image.pixels]
    return {
        f"mag_aperture_{band}": aperture_mag(pixels, x, y, scale, level)
        for band, pixels, level in zip(BANDS, image.pixels, levels, strict=True)
    }


def _named(config: ParentSampleConfig, catalogue: list[Known]) -> list[Known]:
    return [
        {**known, "galaxy_id": known.get("galaxy_id") or f"{config.galaxy_prefix}-{number:04d}"}
        for number, known in enumerate(catalogue)
    ]


def _usable(placed: Placed, pixels: Cubes, scale: float) -> dict[int, GalaxyImage]:
    """Return each galaxy that arcs can be injected into, by its place in the cubes; the others are quarantined."""
    usable: dict[int, GalaxyImage] = {}
    seen = SeenPixels(pixels)
    twins = twins_of([place_of(row) for row in placed.rows])
    for i, (number, known) in enumerate(zip(placed.numbers, placed.rows, strict=True)):
        try:
            if i in twins:
                raise CutoutRefusedError("same_place", f"within 1 arcsec of {placed.rows[twins[i]]['galaxy_id']}")
            image = must_be_usable(_image(pixels[number], scale))
            bands_must_agree(image, known)
            seen.must_be_new(known["galaxy_id"], number, image)
            usable[number] = image
        except CutoutRefusedError as error:
            placed.quarantine.add(known["galaxy_id"], error)
    return usable


def _image(pixels: Cubes, scale: float) -> GalaxyImage:
    """Return a galaxy's cutout. Cubes carry no mask: a pixel that is exactly 0 or not finite is one that saw nothing."""
    image = bands_must_be_seen(GalaxyImage.of(BANDS, pixels, None, pixels == 0, pixel_scale_arcsec=scale))
    x, y = centroid(image.pixels[_R], scale)
    return replace(image, offset_arcsec=np.full((len(BANDS), 2), (x * scale, y * scale)))


def _catalogue(config: ParentSampleConfig, n_galaxies: int | None, staging: Staging) -> list[Known]:
    """Read what the optional catalogue knows of each galaxy; without one nothing. None where it says how many there are.

    Its path, size and SHA-256 are published as ``catalogue``, the names of columns that aren't read as ``columns_not_read``.
    """
    if not config.catalogue:
        return [{} for _ in range(n_galaxies or 0)]
    unread: list[str] = []
    read = FilesRead()
    path = Path(config.catalogue).expanduser().absolute()
    if path.is_file():
        read.add([str(path)])
    galaxies = read_galaxies(config.catalogue, n_galaxies, unread)
    staging.attributes["columns_not_read"] = unread
    (staging.attributes["catalogue"],) = read.entries()
    return galaxies


def _assumptions(config: ParentSampleConfig, scale: float, rho: float, rows: list[dict[str, Any]]) -> list[str]:
    upright = ["The cubes carry no WCS: phi_rad is used as if north were up and east left."]
    return [
        f"The cubes carry no PSF: arcs are rendered with a Moffat of {config.assumed_psf_fwhm_arcsec:g} arcsec FWHM in r "
        "(g and z scaled as in DR10). psf_fwhm_used_* and psfdepth_* stay null, so there is no seeing axis.",
        f"The pixel scale is {scale:g} arcsec, taken for the nominal {config.pixel_scale_arcsec:g} within "
        f"{config.pixel_scale_tolerance:.2%}; arcs are rendered with {scale:g}.",
        "The cubes carry no mask: a pixel that is exactly 0 or not finite is taken for one that saw nothing.",
        "The cubes carry no gain: the arc's Poisson noise follows from the measured sky noise and DECam's nominal dark sky.",
        f"Sky noise is each galaxy's own (MAD beyond {SKY_BEYOND_ARCSEC:g} arcsec); pixels correlate at {rho:.2f} (measured).",
        f"mag_aperture_* are within {APERTURE_RADIUS_ARCSEC:g} arcsec, not total magnitudes.",
        *(upright if any(row["phi_rad"] is not None for row in rows) else ()),
    ]
