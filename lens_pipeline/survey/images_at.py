"""A survey's images as a function from a place to its cutout: coadds in a folder or at s3://, or single exposures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lens_pipeline.storage.s3_address import is_address
from lens_pipeline.survey.ccd import cut_from_ccds, read_field
from lens_pipeline.survey.files_read import OnOpen
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage
from lens_pipeline.survey.mirror import Galaxy, Mirror

Cut = Callable[[Galaxy], GalaxyImage]


def is_mirror(where: str) -> bool:
    """Whether a folder or address holds coadds; every address must."""
    return is_address(where) or (Path(where).expanduser() / "coadd").is_dir()


def holds_images(where: str) -> bool:
    """Whether a folder or address holds a survey's images, coadds or single exposures, rather than cutouts."""
    folder = Path(where).expanduser()
    return is_mirror(where) or any(any(folder.glob(name)) for name in ("survey-ccds*.fits*", "images/**/*_ooi_*.fits*"))


def open_mirror(
    where: str,
    bands: Sequence[str],
    stamp_size: int,
    scale_arcsec: float,
    tolerance: float,
    on_open: OnOpen | None = None,
) -> Mirror:
    """Open a copy of the coadds; a path may begin with ``~``. `on_open` is told which files are about to be, brick by brick."""
    root = where if is_address(where) else str(Path(where).expanduser().absolute())
    return Mirror(root, tuple(bands), stamp_size, scale_arcsec, tolerance, on_open)


@contextmanager
def images_at(
    where: str,
    bands: Sequence[str],
    stamp_size: int,
    scale_arcsec: float,
    tolerance: float,
    on_open: OnOpen | None = None,
) -> Iterator[Cut]:
    """Open the images of a folder or address.

    Parameters
    ----------
    scale_arcsec, tolerance : float
        Nominal pixel scale, and how far that of the images may be from it, relatively.
    on_open : callable, optional
        Is told which files are about to be opened.

    Yields
    ------
    function of a Galaxy
        Gives the cutout, not yet judged, or raises `CutoutRefusedError`.

    Raises
    ------
    ConfigError
        If there is no such folder.
    ContractError
        If its files can't be used.
    """
    if is_mirror(where):
        with open_mirror(where, bands, stamp_size, scale_arcsec, tolerance, on_open) as mirror:
            yield lambda galaxy: mirror.cut(galaxy.ra, galaxy.dec)
        return
    ccds = read_field(Path(where).expanduser().absolute(), on_open)

    def cut(galaxy: Galaxy) -> GalaxyImage:
        image = cut_from_ccds(ccds, bands, galaxy.ra, galaxy.dec, stamp_size)
        off = abs(image.pixel_scale_arcsec / scale_arcsec - 1)
        if not off <= tolerance:
            raise CutoutRefusedError(
                "wrong_scale",
                f"{image.pixel_scale_arcsec:.5g} arcsec per pixel, {off:.2%} from the nominal {scale_arcsec:g}",
            )
        return image

    yield cut
