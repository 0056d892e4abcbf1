"""PSFEx models: a PSF image whose every pixel is a polynomial of the place on the CCD (Bertin 2011, ASP Conf. 442, 435).

Belongs here: reading a model and evaluating it. Both spellings of the Legacy Surveys are read: parameters in the table's header,
or in its columns (several CCDs may then share a file).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import ContractError, first_few
from lens_pipeline.survey.psf_image import PsfImage

_WANTED = ("polname1", "polname2", "polzero1", "polzero2", "polscal1", "polscal2", "poldeg1", "psf_samp")


@dataclass(frozen=True)
class PsfExModel:
    """A PSF over a CCD.

    Attributes
    ----------
    basis : (term, y, x) array
        One image for each power of x and y, x fastest: 1, x, x^2, ..., y, x y, ..., y^2.
    zero, scale : tuple of float
        A place (x, y) enters as (place - zero) / scale; pixels counted from 1.
    sampling : float
        Side of a PSF pixel in CCD pixels.
    name : str
        For errors.
    """

    basis: NDArray[np.float64]
    degree: int
    zero: tuple[float, float]
    scale: tuple[float, float]
    sampling: float
    name: str

    def at(self, x: float, y: float) -> PsfImage:
        """Evaluate the model at a place on the CCD.

        Parameters
        ----------
        x, y : float
            Pixels, counted from 0 as numpy does.

        Raises
        ------
        ContractError
            If the image there isn't a PSF: the place may be far outside the CCD.
        """
        u, v = (x + 1 - self.zero[0]) / self.scale[0], (y + 1 - self.zero[1]) / self.scale[1]
        powers = [u**i * v**j for j in range(self.degree + 1) for i in range(self.degree + 1 - j)]
        return PsfImage.of(
            np.tensordot(powers, self.basis, axes=1), where=f"{self.name} at ({x:.0f}, {y:.0f})", sampling=self.sampling
        )


def read_psfex(path: Path, *, ccdname: str | None = None) -> PsfExModel:
    """Read a model.

    Parameters
    ----------
    ccdname : str or None
        Which row to take of a file that holds several CCDs.

    Raises
    ------
    ContractError
        If it can't be read, lacks a parameter, or isn't a polynomial of pixel coordinates.
    """
    try:
        with fits.open(path, memmap=False) as hdus:
            header, table = hdus[1].header, hdus[1].data
            names = {name.lower() for name in table.names}
            row = table[_place(table, names, ccdname, path)]
            known = {n: row[n] if n in names else header.get(n) for n in _WANTED}
            basis = np.array(row["psf_mask"], dtype=np.float64)
    except (OSError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ContractError(f"{path} can't be read as a PSFEx model: {error}. Fetch or make it again.") from error
    if missing := [name for name in _WANTED if known[name] is None]:
        raise ContractError(f"the PSFEx model {path} lacks {first_few(missing)}. Make it again with PSFEx.")
    axes = str(known["polname1"]).strip(), str(known["polname2"]).strip()
    if axes != ("X_IMAGE", "Y_IMAGE"):
        raise ContractError(
            f"the PSFEx model {path} depends on {axes}, wanted X_IMAGE and Y_IMAGE: another isn't read here."
        )
    degree = int(known["poldeg1"])
    if basis.ndim != 3 or len(basis) != (degree + 1) * (degree + 2) // 2:
        raise ContractError(
            f"the PSFEx model {path} has images of shape {basis.shape}, wanted (term, y, x) with "
            f"{(degree + 1) * (degree + 2) // 2} terms for degree {degree}."
        )
    return PsfExModel(
        basis,
        degree,
        (float(known["polzero1"]), float(known["polzero2"])),
        (float(known["polscal1"]), float(known["polscal2"])),
        float(known["psf_samp"]),
        str(path),
    )


def _place(table: Any, names: set[str], ccdname: str | None, path: Path) -> int:
    if len(table) == 1:
        return 0
    there = [str(name).strip() for name in table["ccdname"]] if "ccdname" in names else []
    if ccdname not in there:
        raise ValueError(f"{len(table)} models, of {first_few(there) or 'unnamed CCDs'}; wanted {ccdname}")
    return there.index(ccdname)
