"""What a stamp's container says beside its pixels: a writer's habits, which would tell two kinds of stamps apart.

Belongs here: header fields of a blob that decodes. Whether it decodes is for `stamps/decode.py`.
"""

import struct

from lens_pipeline.stamps.npz import find_members, inflate

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_EXTRA_HEAD = struct.Struct("<HH")
_ZIP64 = 1
# What the name of each habit begins with.
HEADER_FACTS = ("npz ", "npy ")
_WHOLE = 1 << 30


def npz_facts(blob: bytes, members: tuple[str, ...]) -> dict[str, str]:
    """Name each habit, with what the blob has there, member by member.

    Sizes, checksums and offsets follow from the pixels and are left out.

    Parameters
    ----------
    members : tuple of str
        Arrays of the blob, without ``.npy``.
    """
    facts: dict[str, list[object]] = {}
    n_members, offset = (
        _END.unpack_from(blob, len(blob) - _END.size)[4],
        _END.unpack_from(blob, len(blob) - _END.size)[6],
    )
    for _ in range(n_members):
        (
            _, made_by, needed, flags, method, time, date, _, _, _,
            name_length, extra_length, comment_length, _, internal, external, start,
        ) = _CENTRAL.unpack_from(blob, offset)  # fmt: skip
        name = offset + _CENTRAL.size
        local = _LOCAL.unpack_from(blob, start)
        extra = start + _LOCAL.size + local[9]
        said: dict[str, object] = {
            "npz member order": blob[name : name + name_length],
            "npz versions": (made_by, needed, local[1]),
            "npz flags": (flags, local[2]),
            "npz compression": method,
            "npz times": (time, date, local[4], local[5]),
            "npz extra fields": (
                _fields(blob[name + name_length : name + name_length + extra_length]),
                _fields(blob[extra : extra + local[10]]),
            ),
            "npz attributes": (internal, external, comment_length),
        }  # fmt: skip
        for fact, value in said.items():
            facts.setdefault(fact, []).append(value)
        offset = name + name_length + extra_length + comment_length
    names = tuple(f"{member}.npy".encode() for member in members)
    arrays = [inflate(blob, member) for member in find_members(blob, names, _WHOLE)]
    facts["npy headers"] = [array[: 10 + int.from_bytes(array[8:10], "little")] for array in arrays]
    return {fact: repr(values) for fact, values in facts.items()}


def _fields(extra: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, length and content of each extra field; zip64 holds sizes and offsets alone."""
    fields, at = [], 0
    while at < len(extra):
        kind, length = _EXTRA_HEAD.unpack_from(extra, at)
        at += _EXTRA_HEAD.size
        fields.append((kind, length, b"" if kind == _ZIP64 else extra[at : at + length]))
        at += length
    return fields
