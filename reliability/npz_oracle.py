"""What every attack on the decoder is held to: a verdict, never a wrong pixel, little memory and little time.

Belongs here: the judge that npz_fuzz and npz_bombs share. What is tried is said there.
"""

import io
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import FLOAT16_MAX, Stamp, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from reliability.subject import Case

BOUNDS = {"CPU ms an input": 50.0, "extra MiB": 8.0}
# For people, and for a table of millions of rows.
_LONGEST_DETAIL = 1000
Pixels = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Attack:
    """One input.

    Attributes
    ----------
    pixels : (band, y, x) float32 array
        What the blob held before it was tampered with.
    must_read : bool
        A form that has to be read: refusing it is a failure too.
    """

    blob: bytes
    contract: DatasetContract
    pixels: Pixels
    must_read: bool = False


@lru_cache(maxsize=64)
def pixels_of(number: int, contract: DatasetContract) -> Pixels:
    """Pixels that every check passes, different from number to number."""
    made: Pixels = np.random.default_rng(number).normal(0.01, 1, contract.stamp_shape).astype(np.float32)
    return made


def judge(attacks: Iterable[Attack], *, apart: bool = False) -> Case:
    """Decode every input and hold its verdict to the claim; the first few failures are named by their place.

    A stamp is right when its pixels are the original ones, or those that np.load gives for the same bytes; either way
    finite and within float16's range.

    Parameters
    ----------
    apart : bool
        Measure the memory of each input by itself, for inputs that cost much to make; else over all of them.
    """
    decode_blob(
        encode_stamp(pixels_of(0, DatasetContract(stamp_size=8)), DatasetContract(stamp_size=8)), DatasetContract()
    )
    counts: Counter[str] = Counter()
    problems: list[str] = []
    slowest, most, n = 0.0, 0.0, 0
    before = watch_peak()
    for place, attack in enumerate(attacks):
        n += 1
        before = watch_peak() if apart else before
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            began = time.thread_time()
            try:
                verdict = decode_blob(attack.blob, attack.contract)
            except Exception as error:
                problems.append(f"input {place} raised {type(error).__name__}: {error}")
                continue
            finally:
                slowest = max(slowest, time.thread_time() - began)
                most = max(most, peak_mib() - before) if apart else most
        if not isinstance(verdict, Stamp):
            counts[verdict.reason.value] += 1
            if len(verdict.detail) > _LONGEST_DETAIL:
                problems.append(f"input {place} is refused in {len(verdict.detail):,} characters")
            if attack.must_read:
                problems.append(f"input {place} has to be read, not refused: {verdict.reason}, {verdict.detail}")
            continue
        counts["read"] += 1
        if verdict.pixels.tobytes() != attack.pixels.tobytes():
            counts["read, as np.load reads them, other pixels than before"] += 1
            loaded = _numpys(attack.blob, attack.contract)
            if loaded is None or verdict.pixels.tobytes() != loaded.tobytes():
                problems.append(f"input {place} is read with wrong pixels")
        if not (np.abs(verdict.pixels) <= FLOAT16_MAX).all():
            problems.append(f"input {place} is read with pixels that no store may hold")
    return Case(
        problem="; ".join(problems[:3]) + (f" and {len(problems) - 3} more" if len(problems) > 3 else "") or None,
        n=n,
        largest={"CPU ms an input": 1000 * slowest, "extra MiB": most if apart else peak_mib() - before},
        counts=dict(counts),
    )


def _numpys(blob: bytes, contract: DatasetContract) -> Pixels | None:
    """Return what np.load gives, None where it refuses."""
    try:
        with warnings.catch_warnings(action="ignore"), np.load(io.BytesIO(blob), allow_pickle=False) as archive:
            return np.stack([archive[name] for name in contract.members]).astype(np.float32, order="C")
    except Exception:
        return None


def watch_peak() -> float:
    """Let the kernel count the process's peak memory anew, and return what it has, MiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
