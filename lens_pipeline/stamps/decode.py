"""Stamp blobs to pixels, each with a verdict: never an exception on data, never a row skipped, never a wrong pixel.

Belongs here: the verdict over one blob and over a batch. The format itself is in `npz.py` and `npy.py`, the reasons in
`reasons.py`; docs/decoder.md lists every variant and its verdict.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.encode import npy_header
from lens_pipeline.stamps.npy import read_npy
from lens_pipeline.stamps.npz import find_members, inflate
from lens_pipeline.stamps.reasons import Quarantine, Reason, RefusedError

# Changes whenever a blob could get another verdict or other pixels; a store names the one it was made with.
DECODER_VERSION = 2

FLOAT16_MAX = 65504.0
# Below its smallest normal number float16 loses a bit of precision for each factor of two.
FLOAT16_SMALLEST_NORMAL = 2.0**-14

Floats = NDArray[np.float32]


class Blobs(Protocol):
    """Blobs that are gone through once, such as a list; each may be made when it is asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[bytes | None]: ...


@dataclass(frozen=True)
class Stamp:
    """One decoded stamp.

    Attributes
    ----------
    pixels : (band, y, x) float32 array
        Bit-identical to what np.load gives.
    median, mad : (band,) float32 array
        Per band, in the pixels' unit; the MAD is raw.
    """

    pixels: Floats
    median: Floats
    mad: Floats


@dataclass
class Decoded:
    """Room for a batch of decoded stamps, filled again and again by `decode_batch`.

    Attributes
    ----------
    pixels : (n, band, y, x) float32 array
        Unscaled, unclipped, bit-identical to what np.load gives; zero where quarantined.
    half : (n, band, y, x) float16 array
        The same, rounded half to even.
    stats : (n, band, 2) float32 array
        Median and raw MAD of the float32 pixels; zero where quarantined.
    """

    pixels: Floats
    half: NDArray[np.float16]
    stats: Floats

    @classmethod
    def room_for(cls, n: int, contract: DatasetContract) -> "Decoded":
        """Allocate room for a batch of at most n stamps."""
        shape = (n, *contract.stamp_shape)
        return cls(
            pixels=np.zeros(shape, np.float32),
            half=np.zeros(shape, np.float16),
            stats=np.zeros((n, len(contract.bands), 2), np.float32),
        )


def decode_blob(blob: bytes | None, contract: DatasetContract) -> Stamp | Quarantine:
    """Decode one blob, every check on.

    Parameters
    ----------
    blob : bytes or None
        What stands in the blob column.
    contract : DatasetContract
        Names the members and the shape.
    """
    room = Decoded.room_for(1, contract)
    (verdict,) = decode_batch([blob], contract, room)
    if verdict is not None:
        return verdict
    return Stamp(pixels=room.pixels[0], median=room.stats[0, :, 0], mad=room.stats[0, :, 1])


def decode_batch(blobs: Blobs, contract: DatasetContract, out: Decoded) -> list[Quarantine | None]:
    """Decode many blobs, every check on.

    Parameters
    ----------
    blobs : of bytes or None
        At most as many as `out` has room for; its first places are filled.

    Returns
    -------
    list of Quarantine or None
        One a blob, in order; None where the stamp is good.
    """
    verdicts = decode_pixels(blobs, contract, out.pixels[: len(blobs)])
    _finish(verdicts, contract, out)
    return verdicts


def judge_pixels(pixels: Floats, contract: DatasetContract, out: Decoded) -> list[Quarantine | None]:
    """Judge pixels that came in no blob as `decode_batch` would have, had they come in one.

    Parameters
    ----------
    pixels : (n, band, y, x) float32 array
        At most as many stamps as `out` has room for; its first places are filled.

    Returns
    -------
    list of Quarantine or None
        One a stamp, in order; None where it is good.
    """
    n = len(pixels)
    out.pixels[:n] = pixels
    verdicts: list[Quarantine | None] = [None] * n
    if n:
        _judge_range(out.pixels[:n].reshape(n, len(contract.bands), -1), verdicts, contract.bands)
        _finish(verdicts, contract, out)
    return verdicts


def _finish(verdicts: list[Quarantine | None], contract: DatasetContract, out: Decoded) -> None:
    """Round and summarise the first places of a batch, judge their MADs, and blank those that are quarantined."""
    # Here and not at the top: numba takes half a second, which whoever only needs pixels or reasons shouldn't pay.
    from lens_pipeline.stamps.kernels import summarise

    n, n_bands, n_pixels = len(verdicts), len(contract.bands), contract.stamp_size**2
    summarise(out.pixels[:n].reshape(-1, n_pixels), out.half[:n].reshape(-1, n_pixels), out.stats[:n].reshape(-1, 2))
    _judge_mad(out.stats[:n, :, 1], verdicts, contract.bands)
    for place in range(n):
        if verdicts[place] is not None:
            out.pixels[place] = out.half[place] = 0
            out.stats[place] = np.zeros((n_bands, 2))


def decode_pixels(blobs: Blobs, contract: DatasetContract, pixels: Floats) -> list[Quarantine | None]:
    """Decode many blobs to float32 alone, every check on but the one on the MAD.

    Parameters
    ----------
    pixels : (n, band, y, x) float32 array, C order
        Filled; rows of quarantined blobs are left as they come.

    Returns
    -------
    list of Quarantine or None
        One a blob, in order; None where the stamp is good.
    """
    reader = _Reader(contract)
    verdicts = [reader.read(blob, place) for blob, place in zip(blobs, pixels, strict=True)]
    if verdicts:
        _judge_range(pixels.reshape(len(blobs), len(contract.bands), -1), verdicts, contract.bands)
    return verdicts


class _Reader:
    """What stays the same from blob to blob."""

    def __init__(self, contract: DatasetContract) -> None:
        self.size = contract.stamp_size
        self.names = tuple(f"{member}.npy".encode() for member in contract.members)
        self.header = npy_header(self.size)
        self.band_bytes = 4 * self.size**2
        # Room to inflate an array of a wrong dtype or shape and say which; a bomb is refused unopened.
        self.member_cap = 4 * self.band_bytes + 4096
        self.blob_cap = len(self.names) * (2 * self.member_cap)

    def read(self, blob: bytes | None, out: Floats) -> Quarantine | None:
        if blob is None:
            return Quarantine(Reason.NULL_BLOB, "")
        if len(blob) > self.blob_cap:
            return Quarantine(Reason.TOO_LARGE, f"{len(blob):,} bytes, {self.blob_cap:,} is the cap")
        start = len(self.header)
        try:
            for band, member in zip(out, find_members(blob, self.names, self.member_cap), strict=True):
                data = inflate(blob, member)
                if data.startswith(self.header) and len(data) == start + self.band_bytes:
                    # Bytes to bytes, which are little-endian on every machine that the lock names: no array is made.
                    memoryview(band).cast("B")[:] = memoryview(data)[start:]
                else:
                    band[:] = read_npy(data, self.size, member.name)
        except RefusedError as refused:
            return refused.verdict
        return None


def _judge_range(flat: Floats, verdicts: list[Quarantine | None], bands: Sequence[str]) -> None:
    """Judge finite pixels, float16's range and constant bands; NaN passes through min and max."""
    low, high = flat.min(axis=2), flat.max(axis=2)
    good = (low >= -FLOAT16_MAX) & (high <= FLOAT16_MAX) & (low < high)
    for row in np.flatnonzero(~good.all(axis=1)):
        if verdicts[row] is None:
            band = int(np.flatnonzero(~good[row])[0])
            verdicts[row] = _explain_range(flat[row, band], bands[band])


def _explain_range(values: Floats, band: str) -> Quarantine:
    finite = np.isfinite(values)
    if not finite.all():
        return Quarantine(Reason.NOT_FINITE, f"{int((~finite).sum())} pixels of band {band}")
    low, high = float(values.min()), float(values.max())
    if low == high:
        return Quarantine(Reason.CONSTANT_BAND, f"band {band} is {low:g} everywhere")
    return Quarantine(
        Reason.BEYOND_FLOAT16, f"band {band} reaches from {low:g} to {high:g}, +-{FLOAT16_MAX:g} is the limit"
    )


def _judge_mad(mad: Floats, verdicts: list[Quarantine | None], bands: Sequence[str]) -> None:
    for row, place in np.argwhere(mad < FLOAT16_SMALLEST_NORMAL):
        if verdicts[row] is None:
            band, value = bands[place], float(mad[row, place])
            if value == 0:
                verdicts[row] = Quarantine(Reason.ZERO_MAD, f"more than half of band {band} has one value")
            else:
                detail = f"band {band} has MAD {value:g}; float16 coarsens what is under {FLOAT16_SMALLEST_NORMAL:g}"
                verdicts[row] = Quarantine(Reason.BEYOND_FLOAT16, detail)
