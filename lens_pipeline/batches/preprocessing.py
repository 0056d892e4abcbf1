"""The one function from stored pixels to what the model sees, used by training, validation and scoring alike.

Named, versioned and hashed; a checkpoint carries it. Augmentation is another type and does not belong here.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lens_pipeline.contracts.errors import ContractError, first_few
from lens_pipeline.stamps.store import StampStore

# sigma = 1.4826 x median absolute deviation, for a normal distribution: 1 / Phi^-1(3/4).
MAD_TO_SIGMA = 1.4826
FIT_ROWS = 65_536


@dataclass(frozen=True)
class Preprocessing:
    """A fixed function of (pixels, median, MAD), with its constants.

    Attributes
    ----------
    name : str
        Which function: a key of `PREPROCESSINGS`. A change of a function's meaning takes a new name.
    bands : tuple of str
        Order of the band axis.
    noise_nanomaggy : tuple of float
        One scale a band, nanomaggy: the median over training stamps of 1.4826 x MAD. Fixed for all stamps, so that
        fluxes and colours survive (a scale per stamp and band would divide them away).
    softening : float
        Noise sigmas at which the stretch turns from linear to logarithmic.
    """

    name: str
    bands: tuple[str, ...]
    noise_nanomaggy: tuple[float, ...]
    softening: float

    def __post_init__(self) -> None:
        """Refuse an unknown name, or constants that would divide by zero."""
        if self.name not in PREPROCESSINGS:
            raise ContractError(
                f"preprocessing {self.name!r} is not known; known are {', '.join(PREPROCESSINGS)}. "
                "The checkpoint was written by another version of this package: score it with that one."
            )
        scales_ok = len(self.noise_nanomaggy) == len(self.bands) and all(
            np.isfinite(scale) and scale > 0 for scale in self.noise_nanomaggy
        )
        if not scales_ok or not self.softening > 0:
            raise ContractError(
                f"preprocessing {self.name!r} has unusable constants: bands {self.bands}, scales {self.noise_nanomaggy} "
                f"nanomaggy, softening {self.softening}; each must be finite and above 0."
            )

    def __call__(self, pixels_BCHW: torch.Tensor, median_BC: torch.Tensor, mad_BC: torch.Tensor) -> torch.Tensor:
        """Return what the model sees: float32 (row, band, y, x), dimensionless.

        Parameters
        ----------
        pixels_BCHW : torch.Tensor
            Stored pixels, float16, nanomaggy, on any device.
        median_BC, mad_BC : torch.Tensor
            Stored statistics of each stamp and band, float32, nanomaggy.
        """
        noise_C = torch.tensor(self.noise_nanomaggy, dtype=torch.float32, device=pixels_BCHW.device)
        seen: torch.Tensor = PREPROCESSINGS[self.name](pixels_BCHW, median_BC, mad_BC, noise_C, self.softening)
        return seen

    def spec(self) -> dict[str, Any]:
        """Everything that defines it, JSON-able."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> "Preprocessing":
        """Rebuild from `spec`.

        Raises
        ------
        ContractError
            If a field is missing or unknown, or the function isn't known here.
        """
        wanted = {field.name for field in fields(cls)}
        if set(spec) != wanted:
            raise ContractError(
                f"a preprocessing has the fields {sorted(wanted)}, this one has {sorted(spec)}: "
                "it was written by another version of this package."
            )
        return cls(
            name=spec["name"],
            bands=tuple(spec["bands"]),
            noise_nanomaggy=tuple(spec["noise_nanomaggy"]),
            softening=spec["softening"],
        )

    def sha256(self) -> str:
        """Hash of the name and every constant."""
        return hashlib.sha256(json.dumps(self.spec(), sort_keys=True).encode()).hexdigest()


def _asinh_v1(
    pixels_BCHW: torch.Tensor, median_BC: torch.Tensor, mad_BC: torch.Tensor, noise_C: torch.Tensor, softening: float
) -> torch.Tensor:
    # Lupton, Gunn & Szalay (1999): linear at the noise, logarithmic in bright cores, where small arcs live; no clip.
    above_sky_BCHW = pixels_BCHW.float() - median_BC[:, :, None, None]
    return _asinh(above_sky_BCHW / (noise_C * softening)[:, None, None])


def _asinh(x: torch.Tensor) -> torch.Tensor:
    # sign(x) log1p(|x| + x^2 / (1 + sqrt(x^2 + 1))): to 4e-7 of torch.asinh, which takes up to 8 times as long on a CPU
    # (13 % of a training step of the small default model).
    root = x.square().add_(1.0).sqrt_().add_(1.0)
    return x.square().div_(root).add_(x.abs()).log1p_().copysign_(x)


def _robust_clip_v1(
    pixels_BCHW: torch.Tensor, median_BC: torch.Tensor, mad_BC: torch.Tensor, noise_C: torch.Tensor, softening: float
) -> torch.Tensor:
    # The scaling of many published finders, kept for comparison: it loses colour and flattens cores beyond 10 sigma.
    # A stamp without noise (MAD 0) is divided by a hundredth of the survey's, not by zero.
    sigma_BC = torch.maximum(mad_BC * MAD_TO_SIGMA, noise_C * 0.01) * softening
    scaled_BCHW = (pixels_BCHW.float() - median_BC[:, :, None, None]) / sigma_BC[:, :, None, None]
    return scaled_BCHW.clamp(-10.0, 10.0)


PREPROCESSINGS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "asinh_v1": _asinh_v1,
    "robust_clip_v1": _robust_clip_v1,
}


def fit_preprocessing(
    store: StampStore, train_rows: npt.NDArray[np.int64], *, name: str, softening: float
) -> Preprocessing:
    """Fix the constants from the stored statistics of training rows only, without reading a pixel.

    Parameters
    ----------
    train_rows : int64 array
        Logical numbers of the training split; of more than 65,536, that many evenly spaced ones are used (they stand in
        the order of a hash, so that this is a random sample).
    name, softening : str, float
        See `Preprocessing`.

    Raises
    ------
    ContractError
        If there are no rows, or a band has no noise.
    """
    ordered = np.sort(train_rows)
    if not len(ordered):
        raise ContractError("no training row to fit the preprocessing on: the train split is empty.")
    if len(ordered) > FIT_ROWS:
        ordered = ordered[np.linspace(0, len(ordered) - 1, FIT_ROWS).astype(np.int64)]
    bands = store.contract.bands
    noise = np.median(store.mads(ordered).astype(np.float64) * MAD_TO_SIGMA, axis=0)
    flat = [band for band, scale in zip(bands, noise, strict=True) if not scale > 0]
    if flat:
        raise ContractError(
            f"band {first_few(flat)} has a median absolute deviation of 0 in most of {len(ordered):,} training stamps: "
            "these stamps are blank or masked. Quarantine them, or take the band out of the dataset contract."
        )
    return Preprocessing(name, bands, tuple(float(scale) for scale in noise), softening)
