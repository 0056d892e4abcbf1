"""Zips of .npy arrays by grammar: forms that have to be read, and forms with lies in them.

Belongs here: drawing a form, drawing lies. Bytes are made by `npz_writer.py`, judged by `npz_oracle.py`.
"""

import random
from collections.abc import Callable

import numpy as np

from lens_pipeline.contracts.dataset import DatasetContract
from reliability import npz_writer
from reliability.npz_oracle import Attack, Pixels, pixels_of
from reliability.npz_writer import (
    ALL_ONES,
    CENTRAL,
    DEFLATED,
    END,
    LOCAL,
    STORED,
    Entry,
    Zip,
    deflate_raw,
    extra,
    zip64,
)

SMALL = DatasetContract(stamp_size=8)
LARGE = DatasetContract()
_TIMES = extra(0x5455, b"\x01" + bytes(4))
_HARMLESS = (b"", b"", _TIMES, extra(0x7875, bytes(11)), extra(0x000A, bytes(32)) + _TIMES, extra(0xCAFE, b""))
_NUMBERS = (
    0, 1, 2, 3, 8, 14, 22, 46, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, ALL_ONES - 1, ALL_ONES
)  # fmt: skip
_NAMES = (
    b"", b".npy", b"image_g", b"IMAGE_G.npy", b"image_g.npy\0", b"image_g.npy ", b"../image_g.npy", b"/etc/passwd",
    b"image_\xe9.npy", b"\xff" * 9, b"a" * 5000, b"PK\x01\x02", b"PK\x05\x06" + bytes(18), b"PK\x06\x07" + bytes(16),
)  # fmt: skip
_DESCRS = (
    "'<f4'", "'>f4'", "'=f4'", "'|f4'", "'f4'", "'<f8'", "'<f2'", "'<i4'", "'|O'", "'O4'", "'<U4'", "'|V4'", "'<c8'", "''",
    "[('a', '<f4')]", "('<f4', (2,))", "'<f4' ", "b'<f4'", "None", "'<M8[s]'", "'float32'", '"<f4"',
)  # fmt: skip
_SHAPES = (
    "(8, 8)", "(8,8)", "(8, 8, )", "(8, 8,)", "(8L, 8L)", "(64,)", "(64, 1)", "(4, 16)", "(1, 8, 8)", "()", "(0, 8)", "(-8, -8)",
    "(8, -1)", "(08, 8)", "(8.0, 8)", "(9999999999, 9999999999)", "(64, 64)", "8, 8", "[8, 8]", "(True, 8)", "(8, 8", "(8 8)",
)  # fmt: skip
_BOMB = deflate_raw(bytes(200_000))
_ORDERS = ("True", "False", "None", "1", "'False'", "true")


def draw_form(draw: random.Random, contract: DatasetContract, pixels: Pixels) -> Zip:
    """Draw one of the forms that have to be read."""
    entries = [
        _draw_entry(draw, f"{name}.npy".encode(), band) for name, band in zip(contract.members, pixels, strict=True)
    ]
    if draw.random() < 0.5:
        draw.shuffle(entries)
    order = draw.sample(range(len(entries)), len(entries)) if draw.random() < 0.3 else None
    return Zip(entries, order=order)


def _draw_entry(draw: random.Random, name: bytes, band: Pixels) -> Entry:
    array = band.astype(draw.choice(("<f4", "<f4", ">f4")))
    pad_to = draw.choice((64, 64, 16, 1))
    content = npz_writer.npy(array, version=draw.choice((1, 1, 2, 3)), fortran=draw.random() < 0.25, pad_to=pad_to)
    entry = Entry(
        name, content, method=draw.choice((STORED, DEFLATED, DEFLATED)), level=draw.choice((0, 1, 6, 9)),
        local_extra=draw.choice(_HARMLESS), central_extra=draw.choice(_HARMLESS),
    )  # fmt: skip
    size, packed_size = len(content), len(entry.packed_bytes())
    if draw.random() < 0.3:
        entry.descriptor, entry.signed = "III", draw.random() < 0.5
    if draw.random() < 0.4:
        entry.local = {"size": ALL_ONES, "packed_size": ALL_ONES}
        values = (0, 0) if entry.descriptor else (size, packed_size)
        entry.local_extra = draw.choice((entry.local_extra + zip64(*values), zip64(*values) + entry.local_extra))
        entry.descriptor = "IQQ" if entry.descriptor else None
    if draw.random() < 0.2:
        entry.central = {"size": ALL_ONES}
        entry.central_extra += zip64(size)
    flags = draw.choice((0, 0, 2, 4, 0x800)) | (npz_writer.DESCRIPTOR if entry.descriptor else 0)
    entry.local["flags"] = entry.central["flags"] = flags
    return entry


def draw_attack(draw: random.Random) -> Attack:
    """Draw a form with none to three lies in it, and sometimes with its bytes cut or edited after that."""
    contract = LARGE if draw.random() < 0.03 else SMALL
    pixels = pixels_of(draw.randrange(8), contract)
    archive = draw_form(draw, contract, pixels)
    n_lies = draw.choice((0, 1, 1, 1, 2, 3))
    for _ in range(n_lies):
        draw.choice(LIES)(draw, archive)
    blob = archive.write()
    tampered = n_lies > 0
    if draw.random() < 0.1:
        blob, tampered = edit_bytes(draw, blob), True
    return Attack(blob, contract, pixels, must_read=not tampered)


def edit_bytes(draw: random.Random, blob: bytes) -> bytes:
    """Edit bytes that nobody drew by grammar: overwrite, insert, delete, repeat, swap, cut."""
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at, n = draw.randrange(len(blob) + 1), draw.choice((1, 1, 2, 4, 8, 40, 400))
        piece = draw.choice((draw.randbytes(n), bytes(n), b"\xff" * n, _somewhere(draw, blob, n)))
        kind = draw.randrange(6)
        if kind == 0:
            blob = blob[:at] + piece + blob[at + len(piece) :]
        elif kind == 1:
            blob = blob[:at] + piece + blob[at:]
        elif kind == 2:
            blob = blob[:at] + blob[at + n :]
        elif kind == 3:
            blob = blob[: at + n] + blob[at:]
        elif kind == 4:
            other = draw.randrange(len(blob) + 1)
            low, high = sorted((at, other))
            blob = blob[high:] + blob[low:high] + blob[:low] if draw.random() < 0.1 else blob[:low] + blob[high:]
        else:
            blob = blob[:at] + bytes(b ^ (1 << draw.randrange(8)) for b in blob[at : at + 1]) + blob[at + 1 :]
    return blob


def _somewhere(draw: random.Random, blob: bytes, n: int) -> bytes:
    at = draw.randrange(len(blob) + 1)
    return blob[at : at + n]


def _number(draw: random.Random, archive: Zip) -> int:
    entry = draw.choice(archive.entries) if archive.entries else None
    near = (len(entry.content), len(entry.packed_bytes())) if entry else (0,)
    return draw.choice((draw.choice(_NUMBERS), draw.choice(near) + draw.randrange(-3, 4), draw.getrandbits(32)))


def _entry(draw: random.Random, archive: Zip) -> Entry:
    if not archive.entries:
        archive.entries.append(Entry(b"image_g.npy", b""))
        archive.order = None
    return draw.choice(archive.entries)


def _lie_in_local(draw: random.Random, archive: Zip) -> None:
    name = draw.choice(list(LOCAL))
    _entry(draw, archive).local[name] = draw.randbytes(4) if name == "magic" else _number(draw, archive)


def _lie_in_central(draw: random.Random, archive: Zip) -> None:
    name = draw.choice(list(CENTRAL))
    _entry(draw, archive).central[name] = draw.randbytes(4) if name == "magic" else _number(draw, archive)


def _lie_in_both(draw: random.Random, archive: Zip) -> None:
    entry, name = _entry(draw, archive), draw.choice(("size", "packed_size", "crc", "flags", "method", "name_length"))
    entry.local[name] = entry.central[name] = _number(draw, archive)


def _lie_in_end(draw: random.Random, archive: Zip) -> None:
    name = draw.choice(list(END))
    archive.end[name] = draw.randbytes(4) if name == "magic" else _number(draw, archive)


def _lie_in_descriptor(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    entry.descriptor, entry.signed = draw.choice(("III", "IQQ", None)), draw.random() < 0.5
    entry.descriptor_lies = {draw.randrange(3): _number(draw, archive)} if draw.random() < 0.5 else {}


def _lie_in_extra(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    field = draw.choice((
        zip64(*(_number(draw, archive) for _ in range(draw.randrange(4)))), extra(draw.getrandbits(16), draw.randbytes(5)),
        draw.randbytes(draw.randrange(9)), b"PK\x06\x07" + bytes(16), _TIMES, extra(0x7075, b"\x01" + bytes(4) + b"x.npy"),
    ))  # fmt: skip
    if draw.random() < 0.5:
        entry.local_extra += field
    else:
        entry.central_extra = draw.choice((entry.central_extra + field, field))


def _lie_in_zip64(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    true = {"size": len(entry.content), "packed_size": len(entry.packed_bytes()), "offset": 0}
    asked = [name for name in true if draw.random() < 0.6]
    lie = draw.choice((0, 1 << 32, 1 << 33, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, _number(draw, archive)))
    values = [lie if draw.random() < 0.4 else true[name] for name in asked]
    entry.central |= dict.fromkeys(asked, ALL_ONES)
    entry.central_extra = zip64(*values) + draw.choice(_HARMLESS)
    if draw.random() < 0.5:
        entry.local |= {name: ALL_ONES for name in asked if name != "offset"}
        entry.local_extra = zip64(*(value for name, value in zip(asked, values, strict=True) if name != "offset"))


def _lie_in_name(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    entry.name = draw.choice((*_NAMES, draw.choice(archive.entries).name, draw.randbytes(11)))


def _lie_in_members(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    kind = draw.randrange(5)
    if kind == 0:
        archive.entries.remove(entry)
    elif kind == 1:
        archive.entries.insert(0, entry)
    elif kind == 2:
        other = draw.choice(archive.entries)
        entry.name, other.name = other.name, entry.name
    elif kind == 3:
        other = draw.choice(archive.entries)
        entry.content, other.content = other.content, entry.content
    else:
        archive.entries += [Entry(draw.choice(_NAMES), b"") for _ in range(draw.choice((1, 3, 300)))]
    archive.order = None


def _lie_in_offsets(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    entry.central["offset"] = draw.choice((0, len(archive.write()) // 3, _number(draw, archive)))


def _lie_in_packed(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    packed = entry.packed_bytes()
    entry.packed = draw.choice((
        packed[: draw.randrange(len(packed) + 1)], packed + draw.randbytes(draw.randrange(1, 9)), draw.randbytes(40), b"",
        deflate_raw(entry.content + b"more"), _BOMB, edit_bytes(draw, packed), bytes(5),
        b"\x00\xff\xff\x00\x00" + packed[:65_535],
    ))  # fmt: skip
    if draw.random() < 0.5:
        entry.local.pop("packed_size", None)


def _lie_in_array(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    start = entry.content.find(b"\n") + 1
    descr, order, shape = draw.choice(_DESCRS), draw.choice(_ORDERS), draw.choice(_SHAPES)
    kept = draw.randrange(3)
    text = (
        f"{{'descr': {descr if kept != 0 else repr('<f4')}, 'fortran_order': {order if kept != 1 else False}, "
        f"'shape': {shape if kept != 2 else '(8, 8)'}, }}"
    )
    text = draw.choice(
        (text, text, text.replace(" ", ""), text.replace(", }", "}"), text + " " * 2000, text[: draw.randrange(80)])
    )
    version = draw.choice((1, 1, 1, 2, 3, 4, 0))
    entry.content = npz_writer.npy(np.zeros(0), version=version, header=text.encode() + b"\n") + entry.content[start:]


def _lie_in_content(draw: random.Random, archive: Zip) -> None:
    entry = _entry(draw, archive)
    content = entry.content
    entry.content = draw.choice((
        content[: draw.randrange(len(content) + 1)], content + bytes(draw.choice((1, 4, 4000, 70_000))), b"", draw.randbytes(99),
        edit_bytes(draw, content), content[:128] + bytes(max(len(content) - 128, 0)), content[:128] + b"\x7f\x80\0\0" * 64,
        content[:-4] + draw.choice((b"\0\0\xc0\x7f", b"\0\0\x80\xff", b"\0\x7f\x80\x47", b"\xff\xff\x7f\x7f", b"\x01\0\0\0")),
    ))  # fmt: skip


def _lie_around(draw: random.Random, archive: Zip) -> None:
    piece = draw.choice((b"\0", draw.randbytes(7), bytes(20), b"PK\x06\x07" + bytes(16), b"PK\x05\x06" + bytes(18)))
    kind = draw.randrange(4)
    if kind == 0:
        archive.before = piece
    elif kind == 1:
        archive.between = piece
    elif kind == 2:
        archive.comment = piece
    else:
        _entry(draw, archive).behind = piece


def _lie_with_comment(draw: random.Random, archive: Zip) -> None:
    _entry(draw, archive).comment = draw.randbytes(draw.choice((1, 20, 22)))


LIES: tuple[Callable[[random.Random, Zip], None], ...] = (
    _lie_in_local, _lie_in_central, _lie_in_both, _lie_in_end, _lie_in_descriptor, _lie_in_extra, _lie_in_zip64, _lie_in_name,
    _lie_in_members, _lie_in_offsets, _lie_in_packed, _lie_in_array, _lie_in_content, _lie_around, _lie_with_comment,
)  # fmt: skip
