"""The .npy array inside a member: float32 pixels of the right shape, however numpy wrote them, or a refusal that says why.

What is read: versions 1.0, 2.0 and 3.0, little- and big-endian float32, C and Fortran order, headers of any padding. The
header is matched against the few forms that writers give it and never evaluated; no pickle is involved.
"""

import re

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.stamps.reasons import Reason, RefusedError

# Bytes of a version's field for the length of the header.
_LENGTH_BYTES = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4, b"\x93NUMPY\x03\x00": 4}
_LONGEST_HEADER = 1024
# numpy's own form; other writers leave out spaces or the last comma, and numpy under python 2 wrote (64L, 64L).
_HEADER = re.compile(
    rb"\{ ?'descr': ?'([^']{1,64})', ?'fortran_order': ?(True|False), ?'shape': ?\(([0-9L, ]{0,64})\),? ?\} *\n?"
)
_DESCR = re.compile(rb"\{ ?'descr': ?")


def read_npy(data: bytes | bytearray, stamp_size: int, name: bytes) -> NDArray[np.float32]:
    """Return the pixels of one band as np.load would, a view of the bytes.

    Parameters
    ----------
    data : bytes
        A whole .npy file.
    name : bytes
        The member's, for the refusal.

    Returns
    -------
    (y, x) array of 4-byte floats, of the byte order that they were written in

    Raises
    ------
    RefusedError
        When it isn't a float32 array of exactly that shape and length.
    """
    length_bytes = _LENGTH_BYTES.get(bytes(data[:8]))
    if length_bytes is None:
        raise RefusedError(Reason.BAD_NPY_HEADER, f"{name!r} starts with {bytes(data[:8]).hex()}")
    start = 8 + length_bytes + int.from_bytes(data[8 : 8 + length_bytes], "little")
    header = bytes(data[8 + length_bytes : start])
    parsed = _HEADER.fullmatch(header)
    # numpy reads lengths of python 2 up to version 2.0 only.
    is_too_new = parsed is not None and b"L" in parsed[3] and data[6] > 2
    if parsed is None or start > _LONGEST_HEADER or is_too_new:
        kind = Reason.WRONG_DTYPE if parsed is None and _DESCR.match(header) else Reason.BAD_NPY_HEADER
        raise RefusedError(kind, f"{name!r} has the header {header[:80]!r}")
    descr, fortran, shape = parsed.groups()
    if b"O" in descr:
        raise RefusedError(Reason.PICKLED_OBJECT, f"{name!r} has dtype {descr.decode('latin1')}")
    if descr not in (b"<f4", b">f4"):
        raise RefusedError(Reason.WRONG_DTYPE, f"{name!r} has dtype {descr.decode('latin1')}, wanted float32")
    lengths = [length.strip().removesuffix(b"L") for length in shape.split(b",")]
    if lengths != 2 * [b"%d" % stamp_size]:
        wanted = f"({stamp_size}, {stamp_size})"
        raise RefusedError(Reason.WRONG_SHAPE, f"{name!r} has shape ({shape.decode()}), wanted {wanted}")
    if len(data) - start != 4 * stamp_size * stamp_size:
        raise RefusedError(Reason.BAD_NPY_HEADER, f"{name!r} has {len(data) - start:,} bytes of pixels")
    values: NDArray[np.float32] = np.frombuffer(data, dtype=descr.decode(), offset=start)
    return values.reshape((stamp_size, stamp_size), order="F" if fortran == b"True" else "C")
