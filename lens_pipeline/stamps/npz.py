"""The zip around a stamp, parsed by ourselves: the members asked for and nothing else, or a refusal that says why.

What is read: deflated and stored members in any order; zip64 fields in headers (np.savez forces them); data descriptors
(numpy on a pipe), checked against the directory; extra fields that only say when and by whom a file was written. What is
refused, with its reason: anything else, among it encryption, other compression methods, other extra fields, comments,
zip64 end records, bytes that belong to no member, overlaps, other members than asked for. zipfile is not involved, and a
member's name is compared and never used as a path. The arrays inside are for `npy.py`; every variant is listed in
docs/decoder.md.
"""

import struct
from collections.abc import Iterable
from operator import attrgetter
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
# 6.3: what a reader must know to extract a member; the format's last.
_NEWEST_VERSION = 63
_IN_ZIP64 = 0xFFFFFFFF
_ZIP64 = 0x0001
# Of 0 to 3 values: the extra field's identifier and length, and the values.
_ZIP64_HEADS = tuple(struct.pack("<HH", _ZIP64, 8 * n) for n in range(4))
_ZIP64_VALUES = tuple(struct.Struct(f"<{n}Q") for n in range(4))
_EXTRA_HEAD = struct.Struct("<HH")
# Times and owners (NTFS; PKWARE's Unix; Info-ZIP's UT, UX, Ux, ux) and jar's empty mark: none says how bytes are read.
_HARMLESS_EXTRAS = frozenset({0x000A, 0x000D, 0x5455, 0x5855, 0x7855, 0x7875, 0xCAFE})
# Writers put tens of bytes of extra fields beside a member.
_LONGEST_EXTRA = 512
# Members beyond those asked for that are looked at to say what they are.
_MORE_MEMBERS = 100
_ZIP64_LOCATOR, _ZIP64_LOCATOR_SIZE = b"PK\x06\x07", 20


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
        raise _no_end_record(blob)
    # Readers that know zip64 end records would follow one that starts here, even if it were the tail of another field.
    if directory >= _ZIP64_LOCATOR_SIZE and blob.startswith(_ZIP64_LOCATOR, directory - _ZIP64_LOCATOR_SIZE):
        raise RefusedError(Reason.UNSUPPORTED_ZIP, "a zip64 end record, which only archives of 4 GiB need")
    _, disk, disk_of_directory, n_here, n_members, size, offset, comment = _END.unpack_from(blob, directory)
    if disk or disk_of_directory or n_here != n_members or comment or offset + size != directory:
        raise RefusedError(Reason.BAD_ZIP, f"the end record claims {n_members} members in {size} bytes at {offset}")
    if n_members > len(names) + _MORE_MEMBERS:
        raise RefusedError(Reason.EXTRA_MEMBER, f"{n_members:,} members, {len(names)} are wanted")
    found: dict[bytes, Member] = {}
    at = offset
    for _ in range(n_members):
        member, at = _read_entry(blob, at, directory, size_cap)
        if member.name in found:
            raise RefusedError(Reason.DUPLICATE_MEMBER, f"{member.name[:64]!r} twice")
        found[member.name] = member
    if at != directory:
        raise RefusedError(Reason.BAD_ZIP, f"{directory - at} bytes of the directory belong to no member")
    _must_tile(found, offset)
    extra = found.keys() - set(names)
    missing = [name for name in names if name not in found]
    if missing:
        raise RefusedError(Reason.MISSING_MEMBER, f"{missing} not among {_listed(found)}")
    if extra:
        raise RefusedError(Reason.EXTRA_MEMBER, _listed(extra))
    return [found[name] for name in names]


def _listed(names: Iterable[bytes]) -> str:
    return str([name[:64] for name in sorted(names)[:8]])


def _no_end_record(blob: bytes) -> RefusedError:
    """Tell an archive comment, which stands behind the end record, from bytes that are no zip or were cut off."""
    at = blob.rfind(b"PK\x05\x06", 0, len(blob) - _END.size + 4)
    if at >= 0 and int.from_bytes(blob[at + _END.size - 2 : at + _END.size], "little") == len(blob) - at - _END.size:
        return RefusedError(Reason.UNSUPPORTED_ZIP, f"an archive comment of {len(blob) - at - _END.size:,} bytes")
    return RefusedError(Reason.NOT_A_ZIP, f"{len(blob):,} bytes that do not end in a zip directory")


def _read_entry(blob: bytes, at: int, directory: int, size_cap: int) -> tuple[Member, int]:
    if at + _CENTRAL.size > directory:
        raise RefusedError(Reason.BAD_ZIP, "the directory ends within an entry")
    (
        magic, _, version, flags, method, _, _, crc, packed_size, size,
        name_length, extra_length, comment_length, disk, _, _, offset,
    ) = _CENTRAL.unpack_from(blob, at)  # fmt: skip
    at += _CENTRAL.size
    after = at + name_length + extra_length
    if magic != b"PK\x01\x02" or disk:
        raise RefusedError(Reason.BAD_ZIP, "a directory entry is malformed")
    name = blob[at : at + name_length]
    if comment_length:
        raise RefusedError(Reason.UNSUPPORTED_ZIP, f"{name[:64]!r} has a comment of {comment_length:,} bytes")
    if flags & ~_KNOWN_FLAGS or method not in (_STORED, _DEFLATED) or version & 0xFF > _NEWEST_VERSION:
        detail = f"{name[:64]!r} has flags {flags:#x} and method {method}, and needs version {version & 0xFF}"
        raise RefusedError(Reason.UNSUPPORTED_ZIP, detail)
    if extra_length:
        size, packed_size, offset, _ = _read_extra(blob[at + name_length : after], size, packed_size, offset)
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
    if end > len(blob):
        raise RefusedError(Reason.BAD_ZIP, f"{name[:64]!r} ends beyond the end")
    if magic != b"PK\x03\x04" or its_flags != flags or its_method != method or blob[at : at + name_length] != name:
        raise RefusedError(Reason.BAD_ZIP, f"the local header of {name[:64]!r} contradicts the directory")
    wide = False
    if extra_length:
        its_size, its_packed, _, wide = _read_extra(blob[at + name_length : start], its_size, its_packed, 0)
    if flags & _DESCRIPTOR_FLAG:
        # The header may leave to the descriptor what wasn't known yet, value by value.
        known = its_crc in (0, crc) and its_packed in (0, packed_size) and its_size in (0, size)
        descriptor = struct.pack("<IQQ" if wide else "<3I", crc, packed_size, size)
        signed = b"PK\x07\x08" + descriptor
        for written in (signed, descriptor):
            if known and blob.startswith(written, end):
                return start, end + len(written)
        raise RefusedError(Reason.BAD_ZIP, f"the data descriptor of {name[:64]!r} contradicts the directory")
    if its_crc != crc or its_packed != packed_size or its_size != size:
        raise RefusedError(
            Reason.BAD_ZIP, f"checksum or sizes of {name[:64]!r} differ between its header and the directory"
        )
    return start, end


def _read_extra(extra: bytes, size: int, packed_size: int, offset: int) -> tuple[int, int, int, bool]:
    """Put zip64's values in the place of those that say "see zip64"; the last value: whether there is a zip64 field."""
    n = (size == _IN_ZIP64) + (packed_size == _IN_ZIP64) + (offset == _IN_ZIP64)
    # What numpy writes is one field with the values that are asked for; whatever else there is takes the long way.
    if len(extra) != 4 + 8 * n or not extra.startswith(_ZIP64_HEADS[n]):
        extra = _zip64_among(extra)
        if len(extra) != (4 + 8 * n if n else 0):
            raise RefusedError(Reason.BAD_ZIP, f"{n} values stand in zip64, which has {len(extra)} bytes")
    values = list(_ZIP64_VALUES[n].unpack_from(extra, 4)) if n else []
    if size == _IN_ZIP64:
        size = values.pop(0)
    if packed_size == _IN_ZIP64:
        packed_size = values.pop(0)
    if offset == _IN_ZIP64:
        offset = values.pop(0)
    return size, packed_size, offset, n > 0


def _zip64_among(extra: bytes) -> bytes:
    """Return the zip64 field of a series of extra fields, its head with it, or nothing."""
    if len(extra) > _LONGEST_EXTRA:
        raise RefusedError(Reason.UNSUPPORTED_ZIP, f"{len(extra):,} bytes of extra fields, {_LONGEST_EXTRA} is the cap")
    at, zip64 = 0, b""
    while at < len(extra):
        kind, length = _EXTRA_HEAD.unpack_from(extra, at) if at + _EXTRA_HEAD.size <= len(extra) else (0, len(extra))
        after = at + _EXTRA_HEAD.size + length
        if after > len(extra) or (kind == _ZIP64 and zip64):
            raise RefusedError(Reason.BAD_ZIP, f"extra fields that are cut off or stand twice: {extra[:16].hex()}")
        if kind == _ZIP64:
            zip64 = extra[at:after]
        elif kind not in _HARMLESS_EXTRAS:
            raise RefusedError(Reason.UNSUPPORTED_ZIP, f"an extra field of kind {kind:#06x}: {extra[:16].hex()}")
        at = after
    return zip64


def _must_tile(members: dict[bytes, Member], directory: int) -> None:
    """Refuse records that overlap or leave bytes which belong to nobody."""
    at = 0
    for member in sorted(members.values(), key=attrgetter("offset")):
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
