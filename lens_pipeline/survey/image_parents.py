"""Real galaxies as hosts, cut out of coadds, single exposures or files of their own: other inputs of real_cutouts than cubes.

Belongs here: a catalogue's galaxies to a parent sample with published pixels and PSFs. Reading images is in `mirror.py` and
`ccd.py`; what the files don't say is null, and what is assumed instead stands in columns and attributes that say so.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.catalogue import IMAGE_FILES, PARENT_LEFT_OUT
from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.storage.s3_address import is_address
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.band_agreement import bands_must_agree, sample_must_agree
from lens_pipeline.survey.conditions import BANDS, SEEING_OVER_R
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.cutout_measures import aperture_mag, pixel_correlation, sky_noise
from lens_pipeline.survey.cutout_places import left_out_rows, place_galaxies, regions_must_not_overlap
from lens_pipeline.survey.cutouts import PSF_PIXELS, create_bad, create_cutouts, create_psfs
from lens_pipeline.survey.files_read import FilesRead
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage, Quarantine
from lens_pipeline.survey.galaxy_table import COLUMNS, PLACE, Known, places_of
from lens_pipeline.survey.image_assumptions import Assumptions
from lens_pipeline.survey.image_judgement import must_be_usable, psf_must_agree
from lens_pipeline.survey.images_at import holds_images, images_at, is_mirror, open_mirror
from lens_pipeline.survey.mirror import Galaxy, galaxy_ids_must_differ, twins_of
from lens_pipeline.survey.object_files import Files, object_files, objects_at, with_places
from lens_pipeline.survey.same_pixels import SeenPixels
from lens_pipeline.survey.sky_grid import angle_in_pixels

_R = BANDS.index("r")


def image_parents(config: ParentSampleConfig, catalogue: list[Known], staging: Staging) -> pa.Table:
    """Cut every galaxy of the catalogue and describe those that could be cut.

    Writes their pixels to ``cutouts.npy``, (galaxy, band, y, x) float32 in nanomaggy, which of these are bad to
    ``bad_pixels.npy``, their PSFs to ``psfs.npy`` and the others, each with its reason, to the table ``left_out``.

    Parameters
    ----------
    catalogue : list of dict
        galaxy_id, ra, dec of each galaxy, and what else is known under the names of PARENT_SAMPLE. May be empty where galaxies
        have files of their own, which then say where they are.

    Returns
    -------
    pyarrow.Table
        One row a galaxy, under the contract PARENT_SAMPLE, with what rendering needs beside.

    Raises
    ------
    ConfigError
        If there is no catalogue, and no galaxy has files of its own.
    ContractError
        If the catalogue lacks a column or value, the survey's files can't be used, no galaxy is left, or the stamps of two
        regions could show the same sky.
    """
    files, read = None, FilesRead()
    if not holds_images(config.folder):
        files = object_files(Path(config.folder).expanduser().absolute(), BANDS)
        read.add(str(path) for of_one in files.values() for path in of_one.values())
        catalogue = with_places(files, catalogue, config.catalogue, BANDS)
    elif not config.catalogue:
        raise ConfigError(
            f"{config.folder} holds a survey's images: set parent_sample.catalogue to a table of the galaxies to cut, with "
            f"{', '.join(PLACE)}."
        )
    galaxies = places_of(catalogue, config.catalogue or config.folder)
    placed = place_galaxies(config, catalogue, staging)
    kept = [galaxies[number] for number in placed.numbers]
    found = cut_sample(config, config.folder, kept, placed.rows, staging, files, placed.quarantine, read)
    regions_must_not_overlap(found.rows, config.stamp_size)
    left_out = left_out_rows(found.quarantine, catalogue, config.catalogue or config.folder)
    staging.write_table("left_out", left_out, PARENT_LEFT_OUT)
    staging.attributes["folder"] = absolute(config.folder)
    staging.attributes["left_out"] = found.quarantine.counts
    staging.attributes["assumptions"] = found.assumptions
    return pa.Table.from_pylist(found.rows)


@dataclass(frozen=True)
class CutSample:
    """Galaxies that were cut.

    Attributes
    ----------
    rows : list of dict
        Of those that could be cut: columns of PARENT_SAMPLE and what rendering needs, in the order of the catalogue.
    quarantine : Quarantine
        The others, each with its reason.
    assumptions : list of str
        What the images and the catalogue don't say, in words.
    """

    rows: list[Known]
    quarantine: Quarantine
    assumptions: list[str]


def cut_sample(
    config: ParentSampleConfig,
    where: str,
    galaxies: list[Galaxy],
    catalogue: Sequence[Known],
    staging: Staging,
    files: Files | None = None,
    quarantine: Quarantine | None = None,
    read: FilesRead | None = None,
) -> CutSample:
    """Cut galaxies out of images, and write ``cutouts.npy``, ``bad_pixels.npy`` and ``psfs.npy`` with a place for each.

    Which files were opened for it is written to the table ``image_files``.

    Parameters
    ----------
    where : str
        Folder or address of the images.
    catalogue : sequence of dict
        What is known of each galaxy, in their order.
    files : mapping, optional
        Each galaxy's own files, in place of images of the sky.
    quarantine : Quarantine, optional
        Galaxies that were left out before; those that can't be cut are added to it.
    read : FilesRead, optional
        Files that were hashed before: those of `files`.

    Raises
    ------
    ContractError
        If the images can't be used, or no galaxy could be cut.
    StorageError
        If a file changes meanwhile.
    """
    places = {galaxy.galaxy_id: number for number, galaxy in enumerate(galaxies)}
    pixels = create_cutouts(staging.folder, (len(galaxies), len(BANDS), config.stamp_size, config.stamp_size))
    bad = create_bad(staging.folder, pixels.shape)
    psfs = create_psfs(staging.folder, len(galaxies), len(BANDS))
    quarantine = Quarantine() if quarantine is None else quarantine
    # An exposure's seeing isn't that of the coadds, which a catalogue is of.
    coadded = files is None and is_mirror(where)
    n_asked, rows, assumptions = len(galaxies) + len(quarantine.rows), [], Assumptions()
    read, seen = read or FilesRead(), SeenPixels(pixels)
    with ExitStack() as stack:
        for galaxy, image in _cut(config, where, galaxies, files, quarantine, read, stack):
            number = places[galaxy.galaxy_id]
            row = _row(config, catalogue[number], number, image)
            try:
                if coadded:
                    seeing = [catalogue[number].get(f"psf_fwhm_{band}") for band in BANDS]
                    psf_must_agree(image, seeing, "the catalogue's seeing")
                # Only judged: the place stays the one that was asked for, which the published ra and dec are of.
                bands_must_agree(image, catalogue[number])
                seen.must_be_new(galaxy.galaxy_id, number, image)
            except CutoutRefusedError as error:
                quarantine.add(galaxy.galaxy_id, error)
                continue
            pixels[number], bad[number] = image.pixels, image.bad
            for i, psf in enumerate(image.psf):
                if psf is not None:
                    psfs[number, i] = psf.on_image_pixels(PSF_PIXELS)
            rows.append(row)
            read.count(image.files)
            assumptions.count(image, row)
    for file in (pixels, bad, psfs):
        file.flush()
    if not rows:
        raise ContractError(
            f"none of {n_asked:,} galaxies could be cut out of {where}: {quarantine.counts}. First: "
            f"{quarantine.rows[0]['detail']}"
        )
    sample_must_agree(rows, BANDS)
    staging.write_table("image_files", read.table(), IMAGE_FILES)
    rows.sort(key=lambda row: int(row["cutout_row"]))
    return CutSample(rows, quarantine, assumptions.lines(config, rows))


def absolute(where: str) -> str:
    """Return an address as it is, and a folder's absolute path."""
    return where if is_address(where) else str(Path(where).expanduser().absolute())


def _cut(
    config: ParentSampleConfig,
    where: str,
    galaxies: list[Galaxy],
    files: Files | None,
    quarantine: Quarantine,
    read: FilesRead,
    stack: ExitStack,
) -> Iterator[tuple[Galaxy, GalaxyImage]]:
    grid = (config.stamp_size, config.pixel_scale_arcsec, config.pixel_scale_tolerance)
    if files is None and is_mirror(where):
        yield from stack.enter_context(open_mirror(where, BANDS, *grid, read.add)).cut_each(galaxies, quarantine)
        return
    galaxy_ids_must_differ(galaxies)
    own = None if files is None else objects_at(files, BANDS, *grid)
    cut = own or stack.enter_context(images_at(where, BANDS, *grid, read.add))
    twins = twins_of(galaxies)
    for place, galaxy in enumerate(galaxies):
        try:
            if place in twins:
                raise CutoutRefusedError("same_place", f"within 1 arcsec of {galaxies[twins[place]].galaxy_id}")
            yield galaxy, must_be_usable(cut(galaxy))
        except CutoutRefusedError as error:
            quarantine.add(galaxy.galaxy_id, error)


def _row(config: ParentSampleConfig, known: Known, number: int, image: GalaxyImage) -> Known:
    scale = image.pixel_scale_arcsec
    x, y = image.offset_arcsec[_R]
    row: Known = {name: known.get(name) for name in COLUMNS}
    row |= {
        "cutout_row": number,
        "phi_rad": angle_in_pixels(known.get("phi_rad"), image.sky_to_pixels),
        "host_x_arcsec": float(x),
        "host_y_arcsec": float(y),
        "pixel_scale_arcsec": scale,
        "noise_correlation": pixel_correlation(image.pixels, scale) if image.is_resampled else 0.0,
        "bad_pixel_frac": image.bad_pixel_frac,
        "psf_is_assumed": any(p is None and f is None for p, f in zip(image.psf, image.psf_fwhm_arcsec, strict=True)),
    }
    for i, band in enumerate(BANDS):
        psf, seeing = image.psf[i], image.psf_fwhm_arcsec[i]
        bx, by = image.offset_arcsec[i] / scale
        level, sigma = sky_noise(image.pixels[i], bx, by, scale)
        row |= {
            f"band_x_{band}_arcsec": float(image.offset_arcsec[i, 0] - x),
            f"band_y_{band}_arcsec": float(image.offset_arcsec[i, 1] - y),
            f"pixel_sigma_{band}": sigma,
            f"mag_aperture_{band}": aperture_mag(image.pixels[i], bx, by, scale, level),
            f"psf_is_measured_{band}": psf is not None,
            f"psf_fwhm_{band}": seeing if psf is None else psf.fwhm_pixels * scale,
            f"psf_fwhm_assumed_{band}": config.assumed_psf_fwhm_arcsec * SEEING_OVER_R[band],
            f"psfdepth_{band}": _psfdepth(image, i),
            f"electrons_per_nanomaggy_{band}": image.electrons_per_nanomaggy[i],
        }
    return row


def _psfdepth(image: GalaxyImage, i: int) -> float | None:
    """Inverse variance of a point source, sum P^2 / sigma^2, as the survey's depth maps have it; None without P or sigma."""
    psf = image.psf[i]
    if psf is None or image.ivar is None:
        return None
    share = psf.on_image_pixels(PSF_PIXELS)
    return float((share**2).sum() * np.median(image.ivar[i][~image.bad[i]]))
