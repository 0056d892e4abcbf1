"""The npz format, parsed by ourselves: a zip of .npy arrays, exactly as numpy writes it, or a refusal that says why.

What is read: deflated and stored members in any order; the zip64 extra field that np.savez forces into local headers;
data descriptors (numpy on a pipe), checked against the directory. What is refused, with its reason: anything else, among
it encryption, other compression methods, other extra fields, comments, zip64 end records, bytes that belong to no
member, overlaps, other members than asked for, .npy versions above 1.0, other dtypes and byte orders, Fortran order,
pickled objects. Neither zipfile nor pickle is involved.
"""

import re
import struct
from typing import NamedTuple

import deflate

from lens_pipeline.stamps.reasons import Reason, RefusedError

_END = struct.Struct("<4s4H2IH")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_STORED, _DEFLATED = 0, 8
_DESCRIPTOR_FLAG = 0x0008
# Compression-level hints (bits 1, 2), data descriptor (3), UTF-8 names (11): none changes how bytes are read here.
_KNOWN_FLAGS = 0x0006 | _DESCRIPTOR_FLAG | 0x0800
_IN_ZIP64 = 0xFFFFFFFF
# Of 0 to 3 values: the extra field's identifier and length, and the values.
_ZIP64_HEADS = tuple(struct.pack("<HH", 0x0001, 8 * n) for n in range(4))
_ZIP64_VALUES = tuple(struct.Struct(f"<{n}Q") for n in range(4))
_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']{1,64})', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,64})\), \} *\n"
)
_NPY_DESCR = re.compile(rb"\{'descr': ")


class Member(NamedTuple):
    """One member as the directory describes it, its local header checked."""

    name: bytes
    offset: int
    start: int
    packed_size: int
    size: int
    crc: int
    method: int
    end: int


def find_members(blob: bytes, names: tuple[bytes, ...], size_cap: int) -> list[Member]:
    """Locate the members of a zip, in the order of `names`, inflating nothing.

    Parameters
    ----------
    names : tuple of bytes
        Exactly the members that must be there.
    size_cap : int
        Largest inflated size of a member, bytes.

    Raises
    ------
    RefusedError
        With the reason.
    """
    directory = len(blob) - _END.size
    if directory < 0 or not blob.startswith(b"PK\x05\x06", directory):
        raise RefusedError(Reason.NOT_A_ZIP, f"{len(blob):,} bytes that do not end in a zip directory")
    _, disk, disk_of_directory, n_here, n_members, size, offset, comment = _END.unpack_from(blob, directory)
    if disk or disk_of_directory or n_here != n_members or comment or offset + size != directory:
        raise RefusedError(Reason.BAD_ZIP, f"the end record claims {n_members} members in {size} bytes at {offset}")
    found: dict[bytes, Member] = {}
    at = offset
    for _ in range(n_members):
        member, at = _read_entry(blob, at, directory, size_cap)
        if member.name in found:
            raise RefusedError(Reason.DUPLICATE_MEMBER, f"{member.name!r} twice")
        found[member.name] = member
    if at != directory:
        raise RefusedError(Reason.BAD_ZIP, f"{directory - at} bytes of the directory belong to no member")
    _must_tile(found, offset)
    extra = found.keys() - set(names)
    missing = [name for name in names if name not in found]
    if missing:
        raise RefusedError(Reason.MISSING_MEMBER, f"{missing} not among {sorted(found)[:8]}")
    if extra:
        raise RefusedError(Reason.EXTRA_MEMBER, f"{sorted(extra)[:8]}")
    return [found[name] for name in names]


def _read_entry(blob: bytes, at: int, directory: int, size_cap: int) -> tuple[Member, int]:
    if at + _CENTRAL.size > directory:
        raise RefusedError(Reason.BAD_ZIP, "the directory ends within an entry")
    (
        magic, _, _, flags, method, _, _, crc, packed_size, size,
        name_length, extra_length, comment_length, disk, _, _, offset,
    ) = _CENTRAL.unpack_from(blob, at)  # fmt: skip
    at += _CENTRAL.size
    after = at + name_length + extra_length
    if magic != b"PK\x01\x02" or disk or comment_length or after > directory:
        raise RefusedError(Reason.BAD_ZIP, "a directory entry is malformed")
    name = blob[at : at + name_length]
    if flags & ~_KNOWN_FLAGS or method not in (_STORED, _DEFLATED):
        raise RefusedError(Reason.UNSUPPORTED_ZIP, f"{name[:64]!r} has flags {flags:#x} and method {method}")
    if extra_length:
        size, packed_size, offset = _from_zip64(blob[at + name_length : after], size, packed_size, offset)
    if size > size_cap:
        raise RefusedError(Reason.TOO_LARGE, f"{name[:64]!r} claims {size:,} bytes, {size_cap:,} is the cap")
    if method == _STORED and size != packed_size:
        raise RefusedError(Reason.BAD_ZIP, f"{name[:64]!r} is stored but has two sizes, {packed_size:,} and {size:,}")
    start, end = _check_local(blob, offset, name, flags, method, crc, packed_size, size)
    return Member(name, offset, start, packed_size, size, crc, method, end), after


def _check_local(
    blob: bytes, offset: int, name: bytes, flags: int, method: int, crc: int, packed_size: int, size: int
) -> tuple[int, int]:
    """Return where the member's bytes start, and where its whole record ends."""
    if offset + _LOCAL.size > len(blob):
        raise RefusedError(Reason.BAD_ZIP, f"{name[:64]!r} lies beyond the end")
    magic, _, its_flags, its_method, _, _, its_crc, its_packed, its_size, name_length, extra_length = (
        _LOCAL.unpack_from(blob, offset)
    )
    at = offset + _LOCAL.size
    start = at + name_length + extra_length
    end = start + packed_size
    if magic != b"PK\x03\x04" or its_flags != flags or its_method != method or blob[at : at + name_length] != name:
        raise RefusedError(Reason.BAD_ZIP, f"the local header of {name[:64]!r} contradicts the directory")
    if extra_length:
        its_size, its_packed, _ = _from_zip64(blob[at + name_length : start], its_size, its_packed, 0)
    claimed = (its_crc, its_packed, its_size)
    if flags & _DESCRIPTOR_FLAG:
        wide = bool(extra_length)
        descriptor = struct.pack("<4sIQQ" if wide else "<4s3I", b"PK\x07\x08", crc, packed_size, size)
        if claimed not in ((0, 0, 0), (crc, packed_size, size)) or not blob.startswith(descriptor, end):
            raise RefusedError(Reason.BAD_ZIP, f"the data descriptor of {name[:64]!r} contradicts the directory")
        return start, end + len(descriptor)
    if claimed != (crc, packed_size, size):
        raise RefusedError(
            Reason.BAD_ZIP, f"checksum or sizes of {name[:64]!r} differ between its header and the directory"
        )
    return start, end


def _from_zip64(extra: bytes, size: int, packed_size: int, offset: int) -> tuple[int, int, int]:
    """Take the fields that say "see zip64" from the one extra field that numpy writes."""
    n = (size == _IN_ZIP64) + (packed_size == _IN_ZIP64) + (offset == _IN_ZIP64)
    if n == 0 or len(extra) != 4 + 8 * n or not extra.startswith(_ZIP64_HEADS[n]):
        raise RefusedError(Reason.UNSUPPORTED_ZIP, f"an extra field that numpy never writes: {extra[:16].hex()}")
    values = list(_ZIP64_VALUES[n].unpack_from(extra, 4))
    if size == _IN_ZIP64:
        size = values.pop(0)
    if packed_size == _IN_ZIP64:
        packed_size = values.pop(0)
    if offset == _IN_ZIP64:
        offset = values.pop(0)
    return size, packed_size, offset


def _must_tile(members: dict[bytes, Member], directory: int) -> None:
    """Refuse records that overlap or leave bytes which belong to nobody."""
    at = 0
    for member in sorted(members.values(), key=lambda member: member.offset):
        if member.offset < at:
            raise RefusedError(Reason.OVERLAPPING_MEMBERS, f"{member.name[:64]!r} starts within another member")
        if member.offset > at:
            raise RefusedError(Reason.BAD_ZIP, f"{member.offset - at:,} bytes before {member.name[:64]!r} are nobody's")
        at = member.end
    if at != directory:
        raise RefusedError(
            Reason.OVERLAPPING_MEMBERS if at > directory else Reason.BAD_ZIP,
            "members don't end where the directory starts",
        )


def inflate(blob: bytes, member: Member) -> bytes | bytearray:
    """Return a member's bytes, of the size it claims and with the checksum it claims.

    Raises
    ------
    RefusedError
        With the reason.
    """
    packed = memoryview(blob)[member.start : member.start + member.packed_size]
    if member.method == _STORED:
        data: bytes | bytearray = bytes(packed)
    else:
        try:
            data = deflate.deflate_decompress(packed, member.size)
        except deflate.DeflateError as error:
            raise RefusedError(Reason.BAD_DEFLATE, f"{member.name!r}: {error}") from error
        if len(data) != member.size:
            raise RefusedError(
                Reason.BAD_DEFLATE, f"{member.name!r} inflates to {len(data):,} bytes, not {member.size:,}"
            )
    if deflate.crc32(data) != member.crc:
        raise RefusedError(Reason.BAD_CRC, f"{member.name!r}")
    return data


def data_offset(data: bytes | bytearray, stamp_size: int, name: bytes) -> int:
    """Return where the float32 pixels of a (y, x) band start in a .npy member.

    Raises
    ------
    RefusedError
        When it isn't a C-ordered little-endian float32 array of exactly that shape and length.
    """
    if data[:8] != b"\x93NUMPY\x01\x00" or len(data) < 10:
        raise RefusedError(Reason.BAD_NPY_HEADER, f"{name!r} starts with {bytes(data[:8]).hex()}")
    start = 10 + int.from_bytes(data[8:10], "little")
    header = bytes(data[10 : min(start, 10 + 1024)])
    parsed = _NPY_HEADER.fullmatch(header)
    if parsed is None:
        kind = Reason.WRONG_DTYPE if _NPY_DESCR.match(header) else Reason.BAD_NPY_HEADER
        raise RefusedError(kind, f"{name!r} has the header {header[:80]!r}")
    descr, fortran, shape_text = parsed.groups()
    if b"O" in descr:
        raise RefusedError(Reason.PICKLED_OBJECT, f"{name!r} has dtype {descr.decode()}")
    if descr != b"<f4":
        raise RefusedError(Reason.WRONG_DTYPE, f"{name!r} has dtype {descr.decode('latin1')}, wanted <f4")
    if shape_text != f"{stamp_size}, {stamp_size}".encode():
        wanted = f"({stamp_size}, {stamp_size})"
        raise RefusedError(Reason.WRONG_SHAPE, f"{name!r} has shape ({shape_text.decode()}), wanted {wanted}")
    if fortran == b"True":
        raise RefusedError(Reason.FORTRAN_ORDER, f"{name!r}")
    if len(data) - start != 4 * stamp_size * stamp_size:
        raise RefusedError(Reason.BAD_NPY_HEADER, f"{name!r} has {len(data) - start:,} bytes of pixels")
    return start
