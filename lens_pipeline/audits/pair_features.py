"""What is measured on a stamp and the control of its galaxy, beside the arc: differences, by what they are about.

Belongs here: a pair to numbers. Whether these tell the two apart is asked in `chance.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.survey_tables import MEASURED, NULL_ON_CONTROL, SAMPLE, STAMPS
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.survey.npz_facts import npz_facts
from lens_pipeline.survey.pair_hosts import HostedPair
from lens_pipeline.survey.stamp_features import feature_names, stamp_features, zero_and_unit
from lens_pipeline.survey.stamp_pairs import Kind

# An arc that leaves less of the stamp, or of its border, than this says too little.
_LEAST_OUTSIDE, _LEAST_BORDER = 0.1, 0.25
# Pixels that both took from one real cutout are equal but for what is left of an arc below 0.003 sigma: with its Poisson noise
# that stays within 0.035 sigma.
_SHARED_SIGMA, _EQUAL_SIGMA = 0.1, 0.05
_CORE_ARCSEC = 1.0
_OF_A_COLUMN = ("", " is null")
_FAINT, _BRIGHT, _CORE_PIXELS = 2.0, 100.0, 2.5
_BYTE_BINS = 16
_STEPS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))
_ROUND_BITS = {"float16": 13, "bfloat16": 16}
_NPZ = (
    "npz member order", "npz versions", "npz flags", "npz compression", "npz times", "npz extra fields", "npz attributes",
    "npy headers",
)  # fmt: skip
# What a row says of its class or arc; null on a control, by contract.
_OF_THE_CLASS = NULL_ON_CONTROL | {"task_id", "lens_model", "role", "is_control", "theta_e_arcsec", "weight"}
_MAY_NOT_VANISH = frozenset(column.name for column in (*SAMPLE, *MEASURED, *STAMPS.further)) - _OF_THE_CLASS
DECLARED = frozenset(column.name for column in (*STAMPS.columns, *STAMPS.further))
_LARGEST = np.finfo(float).max
SCALARS = ("total_flux", "core_flux", "stamp_mad", "blob_size")

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Row = dict[str, Any]


@dataclass(frozen=True)
class PairFeatures:
    """What was measured on a pair.

    Attributes
    ----------
    differences : dict
        First minus control, by group: pixels, noise, border, dtype, container, bytes, metadata, undeclared; a group that this
        pair doesn't have, as its arc hides it, is missing. Names are those of `names_of`.
    scalars : (2, 4) array
        `SCALARS` of the first and of its control.
    """

    galaxy: str
    differences: dict[str, Floats]
    scalars: Floats


def columns_of(row: Row, control: Row) -> tuple[str, ...]:
    """Columns of both that aren't about the class or the arc, and hold one value, of one of the two at least."""
    kept = (row.keys() & control.keys()) - _OF_THE_CLASS
    values = {name: control[name] if row[name] is None else row[name] for name in kept}
    return tuple(
        sorted(name for name, value in values.items() if value is not None and not isinstance(value, dict | list))
    )


def names_of(group: str, contract: DatasetContract, columns: Sequence[str], *, of_flux: bool) -> tuple[str, ...]:
    """Names of a group's features, in order."""
    by_band: dict[str, Iterable[str]] = {
        "noise": (*(f"step_{dy}_{dx}" for dy, dx in _STEPS), "tail_of_steps"),
        "border": ("mean", "spread", "least", "greatest", "share_at_median", "share_of_distinct", "step_inwards"),
        "dtype": (*(f"share_of_{name}" for name in _ROUND_BITS), "share_of_zeros", "share_of_distinct"),
    }
    light = ("light", "centre_x", "centre_y", "size", "concentration")
    names = {
        "pixels": (*feature_names(contract.bands), *(() if of_flux else _named(contract, light))),
        **{name: _named(contract, features) for name, features in by_band.items()},
        "container": (*_NPZ, "written as by this pipeline"),
        "bytes": (
            "log size",
            *(f"log size of {member}" for member in contract.members),
            *(f"share of bytes {16 * i} to {16 * i + 15}" for i in range(_BYTE_BINS)),
        ),
        **dict.fromkeys(
            ("metadata", "undeclared"), tuple(f"{name}{what}" for name, what in product(columns, _OF_A_COLUMN))
        ),
    }
    return names[group]


def pair_features(hosted: HostedPair, columns: Sequence[str], undeclared: Sequence[str] = ()) -> PairFeatures:
    """Measure a pair, in the pixels in which the two must be alike.

    Where the two share a real cutout's pixels, differences below 0.05 sigma are taken as none: that much
    may be left of the arc.

    Parameters
    ----------
    columns : sequence of str
        Columns to compare, as `columns_of` names them; one that a row lacks is taken as null.
    undeclared : sequence of str
        The same, of columns that are compared apart, since nobody says whether they are the arc's.
    """
    pair = hosted.pair
    sigma = hosted.sigma()
    mask = hosted.dark_pixels(sigma)
    differences = other_differences(hosted, columns) | {"undeclared": _metadata(pair.row, pair.control, undeclared)}
    if mask is not None and mask.mean() >= _LEAST_OUTSIDE:
        pixels = _without_traces(pair.pixels, mask, sigma)[None]
        of_pixels = pixel_differences(pixels, mask, of_flux=pair.kind is not Kind.probes)
        differences |= {group: rows[0] for group, rows in of_pixels.items()}
    scalars = np.array([_scalars(*one, hosted) for one in zip(pair.pixels, pair.blobs, strict=True)])
    return PairFeatures(str(pair.control.get("galaxy_id") or pair.control["task_id"]), differences, scalars)


def other_differences(hosted: HostedPair, columns: Sequence[str]) -> dict[str, Floats]:
    """Measure what a pair's blobs and rows say beside their pixels: the groups container, bytes and metadata."""
    pair, contract = hosted.pair, hosted.contract
    containers = [_container(blob, pixels, contract) for blob, pixels in zip(pair.blobs, pair.pixels, strict=True)]
    return {
        "container": np.array([_order(*both) for both in zip(*containers, strict=True)]),
        "bytes": _bytes(pair.blobs[0], contract) - _bytes(pair.blobs[1], contract),
        "metadata": _metadata(pair.row, pair.control, columns),
    }


def pixel_differences(pixels: NDArray[np.float32], mask: Mask, *, of_flux: bool) -> dict[str, Floats]:
    """Measure pairs in the pixels of one mask.

    Parameters
    ----------
    pixels : (pair, 2, band, y, x) float32 array
        Of the first and of its control.

    Returns
    -------
    dict
        Differences, (pair, feature), of the groups pixels, noise and dtype, and of border if the mask leaves enough of it.
    """
    n = len(pixels)
    features = stamp_features(pixels.reshape(2 * n, *pixels.shape[2:]), mask, together=2)
    scaled = _scaled(pixels, mask)
    found = {"pixels": _difference(features.reshape(n, 2, -1)), "noise": _difference(_steps(pixels, mask))}
    found["dtype"] = _difference(_digits(pixels, mask))
    if not of_flux:
        found["pixels"] = np.concatenate([found["pixels"], _difference(_light(scaled))], axis=1)
    ring, inner = (_ring(len(mask), inwards) for inwards in (0, 1))
    if (ring & mask).sum() >= _LEAST_BORDER * ring.sum() and (inner & mask).any():
        found["border"] = _difference(_border(scaled, ring & mask, inner & mask))
    return found


def _named(contract: DatasetContract, features: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{name} in {band}" for band, name in product(contract.bands, tuple(features)))


def _difference(both: Floats) -> Floats:
    """First minus control, all bands of a pair in a row."""
    return np.asarray(both[:, 0] - both[:, 1], float).reshape(len(both), -1)


def _without_traces(pixels: NDArray[np.float32], mask: Mask, sigma: Floats) -> NDArray[np.float32]:
    """Give both the control's value where they share pixels and differ by less than an arc may have left there."""
    off = np.abs(pixels[0].astype(float) - pixels[1]) / sigma[:, None, None]
    if np.median(off[:, mask]) >= _SHARED_SIGMA:
        return pixels
    return np.stack([np.where(off < _EQUAL_SIGMA, pixels[1], pixels[0]), pixels[1]])


def _scaled(pixels: NDArray[np.float32], mask: Mask) -> Floats:
    """Pixels in sigmas from the sky, on one scale for both of a pair."""
    zero, unit = zero_and_unit(pixels[..., mask].reshape(-1, pixels.shape[2], int(mask.sum())), 2)
    return np.asarray((pixels - zero[:, None, :, None, None]) / unit[:, None, :, None, None])


def _steps(stamps: NDArray[np.float32], mask: Mask) -> Floats:
    """Logarithms of the median step between pixels so far apart, and of how much longer the longest hundredth is than that."""
    n = len(mask)
    found = []
    for dy, dx in _STEPS:
        here, there = (slice(0, n - dy), slice(0, n - dx)), (slice(dy, n), slice(dx, n))
        steps = np.abs(stamps[(..., *there)] - stamps[(..., *here)])[..., mask[here] & mask[there]]
        middle, far = steps.shape[-1] // 2, steps.shape[-1] * 99 // 100
        found.append(_log(np.partition(steps, (middle, far))[..., [middle, far]]))
    middles = np.stack([log[..., 0] for log in found], axis=-1)
    tail = found[0][..., 1:] - found[0][..., :1]
    return np.concatenate([middles, tail], axis=-1)


def _digits(stamps: NDArray[np.float32], mask: Mask) -> Floats:
    """Shares of pixels that a coarser type could hold, that are 0, and that are distinct."""
    values = np.sort(stamps[..., mask], axis=-1)
    bits = values.view(np.uint32)
    coarse = [(bits & np.uint32((1 << n) - 1) == 0).mean(-1) for n in _ROUND_BITS.values()]
    return np.stack([*coarse, (values == 0).mean(-1), (np.diff(values) > 0).mean(-1)], axis=-1)


def _border(scaled: Floats, ring: Mask, inner: Mask) -> Floats:
    """Numbers of the ring's pixels, and how far its median stands from that of the next ring."""
    values = np.sort(np.clip(scaled[..., ring], -_BRIGHT, _BRIGHT), axis=-1)
    median = values[..., values.shape[-1] // 2]
    found = [
        values.mean(-1),
        values.std(-1),
        values[..., 0],
        values[..., -1],
        (values == median[..., None]).mean(-1),
        (np.diff(values) > 0).mean(-1),
        median - np.median(np.clip(scaled[..., inner], -_BRIGHT, _BRIGHT), axis=-1),
    ]
    return np.stack(found, axis=-1)


def _light(scaled: Floats) -> Floats:
    """Brightness, place and extent of what shines in the middle."""
    n = scaled.shape[-1]
    axis = np.arange(n) - (n - 1) / 2
    r2 = axis[:, None] ** 2 + axis**2
    light = np.where(r2 < (n / 4) ** 2, np.clip(scaled - _FAINT, 0, _BRIGHT), 0.0)
    total = np.maximum(light.sum((-2, -1)), 1.0)
    x, y = (light @ axis).sum(-1) / total, (light.sum(-1) @ axis) / total
    size = (light * r2).sum((-2, -1)) / total - x**2 - y**2
    core = light[..., r2 < _CORE_PIXELS**2].sum(-1) / total
    return np.stack([_log(total), x, y, _log(np.maximum(size, 0.01)), core], axis=-1)


def _container(blob: bytes, pixels: NDArray[np.float32], contract: DatasetContract) -> list[Any]:
    """Return a writer's habits; the last says whether the blob is what this pipeline would have written, compression and all."""
    facts = npz_facts(blob, contract.members)
    return [*(facts[name] for name in _NPZ), blob == encode_stamp(pixels, contract)]


def _bytes(blob: bytes, contract: DatasetContract) -> Floats:
    """Sizes of a blob and of its members, and how its bytes are distributed, coarsely."""
    counts = np.bincount(np.frombuffer(blob, np.uint8) >> 4, minlength=_BYTE_BINS)
    starts = sorted(blob.find(f"{member}.npy".encode()) for member in contract.members)
    sizes = np.diff([*starts, blob.rfind(f"{contract.members[-1]}.npy".encode())])
    return np.concatenate([_log(np.array([len(blob), *sizes])), counts / len(blob)])


def _metadata(row: Row, control: Row, columns: Sequence[str]) -> Floats:
    """Difference of each column, and of whether it is there; text counts by its order alone."""
    values = []
    for name in columns:
        ours, theirs = _known(row.get(name)), _known(control.get(name))
        vanished = float(theirs is not None) - float(ours is not None) if name in _MAY_NOT_VANISH else 0.0
        both = ours is not None and theirs is not None
        values += [_order(ours, theirs) if both else 0.0, vanished]
    return np.array(values)


def _known(value: Any) -> Any:
    """Return a value, or None for what some writers have for null: NaN or an infinity."""
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _order(ours: Any, theirs: Any) -> float:
    """Return the difference of numbers, at most the largest there is; of anything else only which comes first."""
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return float(np.clip(float(ours) - float(theirs), -_LARGEST, _LARGEST))
    return float(str(ours) > str(theirs)) - float(str(ours) < str(theirs))


def _scalars(pixels: NDArray[np.float32], blob: bytes, hosted: HostedPair) -> list[float]:
    """`SCALARS` of a stamp, in r or else its first band."""
    bands = hosted.contract.bands
    band = pixels[bands.index("r") if "r" in bands else 0].astype(float)
    axis = (np.arange(len(band)) - (len(band) - 1) / 2) * hosted.pixel_scale_arcsec
    x, y = hosted.host.get("host_x_arcsec") or 0.0, hosted.host.get("host_y_arcsec") or 0.0
    core = np.hypot(axis[:, None] - y, axis - x) < _CORE_ARCSEC
    return [band.sum(), band[core].sum(), float(np.median(np.abs(band - np.median(band)))), float(len(blob))]


def _log(values: Floats) -> Floats:
    return np.log(np.maximum(values, 1e-30))


def _ring(size: int, inwards: int) -> Mask:
    """Pixels so many from the border."""
    axis = np.minimum(np.arange(size), np.arange(size)[::-1])
    return np.asarray(np.minimum(axis[:, None], axis) == inwards)
