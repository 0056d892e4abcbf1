"""Cutouts from coordinates: a copy of the Legacy Surveys' coadds, in a folder or at s3://, in their published layout.

Belongs here: which bricks a cutout is made of, and its stitching. ``ROOT/coadd/AAA/BRICK/legacysurvey-BRICK-KIND-BAND.fits.fz``
holds image, invvar and (in arcsec) psfsize of a brick, ``...-maskbits.fits.fz`` its masks; ``...-psf-BAND.fits`` may hold an
image of its PSF. Nothing is fetched over the network but objects of that address.

A cutout keeps the pixels of its home brick, the one whose unique area holds the place: it is cut to the nearest whole pixel. Its
pixels beyond that brick's image are taken from the brick in whose unique area each of them lies, the nearest pixel there, so that
noise stays what it is and no pixel is shifted by more than half a pixel; nothing is interpolated.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.storage.s3_address import is_address
from lens_pipeline.storage.sources import addresses_below
from lens_pipeline.survey.coadd import Brick, open_brick
from lens_pipeline.survey.files_read import OnOpen
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage, Quarantine
from lens_pipeline.survey.image_judgement import must_be_usable
from lens_pipeline.survey.regions import brick_ids, brick_names
from lens_pipeline.survey.sky_grid import Window, sky_to_pixels_of

# A brick's images of three bands hold some fifteen open files.
_MOST_OPEN = 6
_SAME_GALAXY_ARCSEC = 1.0


@dataclass(frozen=True)
class Galaxy:
    """What is asked for: a name and a place, ICRS degrees."""

    galaxy_id: str
    ra: float
    dec: float


@dataclass
class Mirror:
    """A copy of coadds; use it as a context, so that its files are closed.

    Attributes
    ----------
    root : str
        The folder or s3:// address that holds ``coadd``.
    scale_tolerance : float
        How far a brick's pixel scale may be from the nominal one, relatively.
    on_open : callable, optional
        Is told which files of a brick are about to be opened.
    """

    root: str
    bands: tuple[str, ...]
    stamp_size: int
    pixel_scale_arcsec: float = 0.262
    scale_tolerance: float = 0.005
    on_open: OnOpen | None = None
    _open: OrderedDict[str, Brick] = field(default_factory=OrderedDict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not is_address(self.root) and not (Path(self.root) / "coadd").is_dir():
            raise ConfigError(f"there is no folder {self.root}/coadd. Name the folder that holds the survey's coadd/.")

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._open.popitem()[1].opened.close()

    def cut_each(self, galaxies: Sequence[Galaxy], quarantine: Quarantine) -> Iterator[tuple[Galaxy, GalaxyImage]]:
        """Cut every galaxy that can be cut, brick by brick; the others stand in the quarantine with their reasons.

        A galaxy within an arcsec of one before it is the same, seen in the overlap of two bricks: ``same_place``.

        Raises
        ------
        ContractError
            If a galaxy_id stands for two galaxies (OBJID alone counts anew in each brick), a position isn't on the sky,
            or a brick's files can't be used.
        """
        galaxy_ids_must_differ(galaxies)
        ra, dec = np.array([g.ra for g in galaxies]), np.array([g.dec for g in galaxies])
        homes = _homes(ra, dec)
        twins = twins_of(galaxies)
        for place in sorted(range(len(galaxies)), key=lambda i: homes[i]):
            galaxy = galaxies[place]
            try:
                if place in twins:
                    raise CutoutRefusedError("same_place", f"within 1 arcsec of {galaxies[twins[place]].galaxy_id}")
                yield galaxy, must_be_usable(self.cut(galaxy.ra, galaxy.dec))
            except CutoutRefusedError as error:
                quarantine.add(galaxy.galaxy_id, error)

    def cut(self, ra: float, dec: float) -> GalaxyImage:
        """Cut a galaxy in every band.

        Raises
        ------
        CutoutRefusedError
            ``outside``, naming the bricks that the mirror lacks, or ``missing_band``.
        ContractError
            If a brick's files can't be used.
        """
        home = self._brick(*_homes(np.array([ra]), np.array([dec])))
        window = Window.around(home.wcs, ra, dec, self.stamp_size)
        seams = self._seams(home, window)
        planes = [self._planes(home, window, seams, band) for band in self.bands]
        pixels, ivar, bad = (np.stack(of_all) for of_all in zip(*planes, strict=True))
        seeing = tuple(self._seeing(home, window, band) for band in self.bands)
        return GalaxyImage.of(
            self.bands,
            pixels,
            ivar,
            bad,
            pixel_scale_arcsec=home.pixel_scale_arcsec,
            offset_arcsec=np.array([window.offset_pixels] * len(self.bands)) * home.pixel_scale_arcsec,
            sky_to_pixels=sky_to_pixels_of(home.wcs, ra, dec),
            psf=tuple(home.psf.get(band) for band in self.bands),
            psf_fwhm_arcsec=seeing,
            assumed=home.assumed
            + tuple(
                f"{seam.where.sum()} of {seam.where.size} pixels are brick {seam.brick.name}'s, the nearest ones: shifted by up "
                f"to half a pixel."
                for seam in seams
            ),
            files=tuple(dict.fromkeys(file for brick in (home, *(s.brick for s in seams)) for file in brick.files)),
        )

    def _seams(self, home: Brick, window: Window) -> "list[_Seam]":
        """Find which pixels of the window other bricks have, and where."""
        if window.share_inside(home.shape) == 1:
            return []
        beyond = window.cut(np.zeros(home.shape, dtype=bool), True)
        rows, columns = np.nonzero(beyond)
        ra, dec = home.wcs.celestial.pixel_to_world_values(columns + window.x0, rows + window.y0)
        owners = np.array(_homes(np.asarray(ra), np.asarray(dec)))
        names = sorted(set(owners.tolist()))
        if lacking := [name for name in names if not self._files(name)]:
            raise CutoutRefusedError(
                "outside", f"the mirror {self.root} lacks brick {first_few(lacking)}, which holds a part of the cutout"
            )
        seams = []
        for name in names:
            brick, mine = self._brick(name), owners == name
            x, y = brick.wcs.celestial.world_to_pixel_values(ra[mine], dec[mine])
            column, row = np.rint(x).astype(int), np.rint(y).astype(int)
            inside = (row >= 0) & (row < brick.shape[0]) & (column >= 0) & (column < brick.shape[1])
            if not inside.all():
                raise CutoutRefusedError(
                    "outside",
                    f"the image of brick {name} doesn't cover its own area: {(~inside).sum()} pixels are missing",
                )
            where = np.zeros_like(beyond)
            where[rows[mine], columns[mine]] = True
            seams.append(_Seam(brick, where, row, column))
        return seams

    def _planes(
        self, home: Brick, window: Window, seams: "list[_Seam]", band: str
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
        """Cut image, inverse variance and bad pixels of a band."""
        cut = []
        for kind, of_band, fill in (("image", band, np.nan), ("invvar", band, 0), ("maskbits", "", 0)):
            plane = window.cut(home.planes[kind, of_band], fill)
            for seam in seams:
                plane[seam.where] = seam.read(kind, of_band)
            cut.append(plane)
        pixels, ivar, bits = cut
        return pixels, ivar, (bits & home.bad_bits(band)) != 0

    def _seeing(self, home: Brick, window: Window, band: str) -> float | None:
        """Read the survey's FWHM at the place, arcsec; None where it doesn't say one."""
        plane = home.planes.get(("psfsize", band))
        if plane is None:
            return None
        row, column = (int(np.clip(round(p), 0, n - 1)) for p, n in zip((window.y, window.x), home.shape, strict=True))
        fwhm = float(plane[row : row + 1, column : column + 1][0, 0])
        return fwhm if np.isfinite(fwhm) and fwhm > 0 else None

    def _brick(self, name: str) -> Brick:
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name]
        files = self._files(name)
        if not files:
            raise CutoutRefusedError("outside", f"the mirror {self.root} lacks brick {name}")
        while len(self._open) >= _MOST_OPEN:
            self._open.popitem(last=False)[1].opened.close()
        brick = open_brick(name, files, self.bands, self.pixel_scale_arcsec, self.scale_tolerance, self.on_open)
        self._open[name] = brick
        return brick

    def _files(self, name: str) -> list[str]:
        if name in self._open:
            return [plane.path for plane in self._open[name].planes.values()]
        folder = f"{self.root.rstrip('/')}/coadd/{name[:3]}/{name}"
        if is_address(folder):
            return addresses_below(folder)
        return sorted(str(path) for path in Path(folder).iterdir()) if Path(folder).is_dir() else []


@dataclass(frozen=True)
class _Seam:
    """Pixels of a cutout that another brick has.

    Attributes
    ----------
    where : (y, x) bool array
        In the cutout.
    rows, columns : (n,) int arrays
        In the brick's image, in the order of `where`.
    """

    brick: Brick
    where: NDArray[np.bool_]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]

    def read(self, kind: str, band: str) -> NDArray[Any]:
        """Read the pixels; the smallest window that holds them is read once."""
        top, left = self.rows.min(), self.columns.min()
        window = (slice(top, self.rows.max() + 1), slice(left, self.columns.max() + 1))
        return np.asarray(self.brick.planes[kind, band][window][self.rows - top, self.columns - left])


def _homes(ra: NDArray[np.float64], dec: NDArray[np.float64]) -> list[str]:
    """Names of the bricks in whose unique areas places lie."""
    if wrong := np.flatnonzero(~(np.isfinite(ra) & (np.abs(dec) <= 90))).tolist():
        raise ContractError(
            f"{len(wrong)} positions aren't on the sky (ICRS degrees); first (place in the list): {first_few(wrong)}."
        )
    return brick_names(brick_ids(ra, dec))


def galaxy_ids_must_differ(galaxies: Sequence[Galaxy]) -> None:
    """Refuse a list in which a name stands for two galaxies.

    Raises
    ------
    ContractError
        Naming the first few.
    """
    ids = [galaxy.galaxy_id for galaxy in galaxies]
    if len(set(ids)) == len(ids):
        return
    seen: set[str] = set()
    twice = sorted({name for name in ids if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
    raise ContractError(
        f"{len(twice)} galaxy_ids stand for more than one galaxy: {first_few(twice)}. OBJID counts anew in each brick: name "
        f"galaxies by BRICKNAME and OBJID."
    )


def twins_of(galaxies: Sequence[Galaxy]) -> dict[int, int]:
    """Return the number of each galaxy that stands within an arcsec of one before it, and that one's; none without a place."""
    places = np.radians([(galaxy.ra, galaxy.dec) for galaxy in galaxies]).reshape(-1, 2)
    known = np.flatnonzero(np.isfinite(places).all(axis=1))
    east, north = places[known].T
    points = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=1)
    pairs = cKDTree(points).query_pairs(np.radians(_SAME_GALAXY_ARCSEC / 3600), output_type="ndarray")
    twins: dict[int, int] = {}
    for first, second in sorted(known[pairs].tolist()):
        twins.setdefault(max(first, second), min(first, second))
    return twins
