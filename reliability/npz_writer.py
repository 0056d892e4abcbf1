"""A zip writer that can lie: every field of every header can be given another value than the true one.

Belongs here: bytes of zips and .npy arrays, well-formed or not, for the subjects that attack the decoder and for its tests.
It shares no code with the decoder or with `stamps/encode.py`.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy.typing as npt

LOCAL = {
    "magic": "4s", "version": "H", "flags": "H", "method": "H", "time": "H", "date": "H", "crc": "I", "packed_size": "I",
    "size": "I", "name_length": "H", "extra_length": "H",
}  # fmt: skip
CENTRAL = {
    "magic": "4s", "made_by": "H", "version": "H", "flags": "H", "method": "H", "time": "H", "date": "H", "crc": "I",
    "packed_size": "I", "size": "I", "name_length": "H", "extra_length": "H", "comment_length": "H", "disk": "H",
    "internal": "H", "external": "I", "offset": "I",
}  # fmt: skip
END = {
    "magic": "4s", "disk": "H", "directory_disk": "H", "n_here": "H", "n_members": "H", "size": "I", "offset": "I",
    "comment_length": "H",
}  # fmt: skip

STORED, DEFLATED = 0, 8
DESCRIPTOR = 0x0008
ALL_ONES = 0xFFFFFFFF

Lies = dict[str, int | bytes]


@dataclass
class Entry:
    """One member, and what its headers say of it.

    Attributes
    ----------
    content : bytes
        What it inflates to.
    packed : bytes, optional
        The bytes that stand in the zip; by default `content`, deflated or stored.
    local, central : dict
        Header fields to give another value than the true one.
    descriptor : str, optional
        struct format of a data descriptor's three numbers (crc, packed size, size), "3I" or "IQQ".
    signed : bool
        The descriptor begins with its signature.
    """

    name: bytes
    content: bytes
    method: int = DEFLATED
    level: int = 6
    packed: bytes | None = None
    local_extra: bytes = b""
    central_extra: bytes = b""
    comment: bytes = b""
    descriptor: str | None = None
    signed: bool = True
    local: Lies = field(default_factory=dict)
    central: Lies = field(default_factory=dict)
    descriptor_lies: dict[int, int] = field(default_factory=dict)
    behind: bytes = b""

    def packed_bytes(self) -> bytes:
        """Return what stands in the zip."""
        if self.packed is not None:
            return self.packed
        return deflate_raw(self.content, self.level) if self.method == DEFLATED else self.content


@dataclass
class Zip:
    """A whole archive; `order` is the order of the directory, by default that of the members."""

    entries: list[Entry]
    end: Lies = field(default_factory=dict)
    before: bytes = b""
    between: bytes = b""
    comment: bytes = b""
    order: Sequence[int] | None = None

    def write(self) -> bytes:
        """Return the archive's bytes."""
        parts, directory = [self.before], []
        at = len(self.before)
        for entry in self.entries:
            packed = entry.packed_bytes()
            sizes = {"crc": zlib.crc32(entry.content), "packed_size": len(packed), "size": len(entry.content)}
            flags = DESCRIPTOR if entry.descriptor else 0
            common = {"version": 20, "flags": flags, "method": entry.method, "date": 33, "name_length": len(entry.name)}
            in_header = dict.fromkeys(sizes, 0) if entry.descriptor else sizes
            local = {"magic": b"PK\x03\x04", **common, **in_header, "extra_length": len(entry.local_extra)}
            central = {
                "magic": b"PK\x01\x02", "made_by": 0x0314, **common, **sizes, "extra_length": len(entry.central_extra),
                "comment_length": len(entry.comment), "external": 0o600 << 16, "offset": at,
            }  # fmt: skip
            record = [pack(LOCAL, {**local, **entry.local}), entry.name, entry.local_extra, packed]
            if entry.descriptor:
                values = [entry.descriptor_lies.get(i, value) for i, value in enumerate(sizes.values())]
                record.append((b"PK\x07\x08" if entry.signed else b"") + struct.pack("<" + entry.descriptor, *values))
            record.append(entry.behind)
            written = pack(CENTRAL, {**central, **entry.central})
            directory.append(written + entry.name + entry.central_extra + entry.comment)
            parts += record
            at += sum(map(len, record))
        listed = b"".join(directory[i] for i in (self.order if self.order is not None else range(len(directory))))
        n = len(directory)
        end = {
            "magic": b"PK\x05\x06", "n_here": n, "n_members": n, "size": len(listed), "offset": at,
            "comment_length": len(self.comment),
        }  # fmt: skip
        return b"".join([*parts, listed, self.between, pack(END, {**end, **self.end}), self.comment])


def pack(layout: dict[str, str], values: Lies) -> bytes:
    """Write a header; a value that doesn't fit its field is cut to it, a missing one is 0."""
    written = []
    for name, kind in layout.items():
        value = values.get(name, 0)
        bits = {"H": 16, "I": 32}.get(kind)
        written.append(struct.pack("<" + kind, value % (1 << bits) if bits and isinstance(value, int) else value))
    return b"".join(written)


def deflate_raw(content: bytes, level: int = 6) -> bytes:
    """Deflate without a header."""
    squeeze = zlib.compressobj(level, zlib.DEFLATED, -15)
    return squeeze.compress(content) + squeeze.flush()


def extra(kind: int, content: bytes) -> bytes:
    """Return one extra field."""
    return struct.pack("<HH", kind, len(content)) + content


def zip64(*values: int) -> bytes:
    """Return a zip64 extra field."""
    return extra(1, struct.pack(f"<{len(values)}Q", *values))


def npy(
    band: npt.NDArray, *, version: int = 1, descr: str | None = None, fortran: bool = False, shape: str | None = None,
    header: bytes | None = None, pad_to: int = 64,
) -> bytes:  # fmt: skip
    """Return a .npy file whose header says what it is told to; Fortran order is written as such."""
    if header is None:
        text = (
            f"{{'descr': {descr or repr(band.dtype.str)}, 'fortran_order': {fortran}, "
            f"'shape': {shape if shape is not None else band.shape}, }}"
        )
        before = 8 + (2 if version == 1 else 4) + 1
        header = text.encode().ljust(-(-(before + len(text)) // pad_to) * pad_to - before) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + band.tobytes(order="F" if fortran else "C")
