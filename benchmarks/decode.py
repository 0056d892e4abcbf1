"""Decoding, every check on, against np.load; and how near it comes to inflating alone."""

import io

import deflate
import numpy as np

from benchmarks.harness import Result, compare
from benchmarks.synthetic import CONTRACT, blobs, stamps
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.stamps.npz import find_members


def run(quick: bool) -> list[Result]:
    n, rounds = (128, 5) if quick else (256, 15)
    pixels = stamps(n)
    written = blobs(pixels)
    room = np.empty_like(pixels)

    def ours() -> None:
        decode_pixels(written, CONTRACT, room)

    def numpy_load() -> None:
        for blob in written:
            with np.load(io.BytesIO(blob)) as archive:
                np.stack([archive[name] for name in CONTRACT.members])

    names = tuple(f"{name}.npy".encode() for name in CONTRACT.members)
    packed = [
        (memoryview(blob)[member.start : member.start + member.packed_size], member.size)
        for blob in written
        for member in find_members(blob, names, 1 << 20)
    ]

    def inflate_alone() -> None:
        for data, size in packed:
            deflate.deflate_decompress(data, size)

    ours()
    if room.tobytes() != pixels.tobytes():
        raise AssertionError("decoded pixels differ from what was written")
    return [
        compare("decode", ours, numpy_load, against="np.load(BytesIO), one thread", goal=4.5, n=n, rounds=rounds),
        compare("decode_of_inflate", ours, inflate_alone, against="inflating alone", goal=0.7, n=n, rounds=rounds),
        compare("inflate_of_numpy", inflate_alone, numpy_load, against="np.load(BytesIO): what no decoder can pass",
                goal=None, n=n, rounds=rounds),
    ]  # fmt: skip
