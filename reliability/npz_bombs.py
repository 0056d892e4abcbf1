"""Blobs that are small and cost much: in memory, in time, or both, with whoever believes them.

A case is 20 bombs of one kind. The first case also hands np.load its worst ones, in a process of their own, so that the page
says what the same bytes cost there.
"""

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache

from reliability.npz_grammar import LARGE, SMALL, draw_form
from reliability.npz_oracle import BOUNDS, Attack, judge, pixels_of
from reliability.npz_writer import ALL_ONES, STORED, Entry, Zip, deflate_raw, extra, npy, zip64
from reliability.subject import Case, Subject

INPUTS = 20
_PIXELS = pixels_of(0, LARGE)
_NAMES = [f"{name}.npy".encode() for name in LARGE.members]
_ARRAYS = [npy(band) for band in _PIXELS]
# A deflate block of 90 bits with codes of its own that holds nothing but its end: all work, no output.
_EMPTY_BLOCK_BITS = "".join((
    "0" + "01", "00000", "00000", "0111",  # not the last; codes of its own; 257 literals, 1 distance, 18 code lengths
    "000" + "000" + "100", *(14 * ["000"]), "100",  # in deflate's order: 18 and 1 have one bit each
    "1" + "1111111", "1" + "1101011", "0", "0", "0",  # 138 + 118 zeros, the end's length, the distance's length, the end
))  # fmt: skip


def case(number: int) -> Case:
    """Try one batch."""
    draw = random.Random(number)
    kind = KINDS[number % len(KINDS)]
    found = judge((kind(draw) for _ in range(INPUTS)), apart=True)
    theirs = _cost_of_numpy() if number == 0 else {}
    return Case(found.problem, found.n, {**found.largest, **theirs}, found.counts)


def _of(archive: Zip) -> Attack:
    return Attack(archive.write(), LARGE, _PIXELS)


def _archive() -> Zip:
    return Zip([Entry(name, array) for name, array in zip(_NAMES, _ARRAYS, strict=True)])


@lru_cache(maxsize=4)
def _zeros(mebibytes: int) -> bytes:
    return deflate_raw(bytes(mebibytes << 20), 9)


def _claim(entry: Entry, **values: int) -> None:
    entry.local |= values
    entry.central |= values


def honest_ratio(draw: random.Random) -> Attack:
    """Inflate to a thousand times the bytes, and say so."""
    archive, mebibytes = _archive(), draw.choice((1, 16, 64))
    entry = draw.choice(archive.entries)
    entry.packed = _zeros(mebibytes)
    _claim(entry, size=mebibytes << 20)
    return _of(archive)


def lying_ratio(draw: random.Random) -> Attack:
    """Hide a stream that goes on for up to 64 MiB behind a claim of at most the cap."""
    archive = _archive()
    entry = draw.choice(archive.entries)
    entry.packed = _zeros(draw.choice((1, 16, 64)))[: draw.choice((20_000, 60_000, 400_000))]
    _claim(entry, size=draw.choice((len(entry.content), 4 * 16_384 + 4096, draw.randrange(70_000))))
    return _of(archive)


def blocks_without_end(draw: random.Random) -> Attack:
    """Write a stream of nothing but blocks that are dear to begin and hold nothing."""
    archive = _archive()
    n_bytes = draw.choice((1000, 15_000, 60_000, 130_000, 390_000))
    stored = b"\x00\x00\x00\xff\xff"
    for entry in archive.entries if n_bytes < 130_001 else archive.entries[:1]:
        block = draw.choice((stored, _bits(_EMPTY_BLOCK_BITS * 8)))
        entry.packed = block * (n_bytes // len(block)) + (entry.packed_bytes() if draw.random() < 0.5 else b"")
    return _of(archive)


def _bits(text: str) -> bytes:
    """Pack bits, first bit lowest, as deflate does; a multiple of eight."""
    return bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))


def overlap(draw: random.Random) -> Attack:
    """Many entries of the directory that share one record, as in the bombs that grow with the square of their size."""
    archive = _archive()
    n = draw.choice((3, 100, 4000))
    shared = archive.entries[0]
    blob = Zip([shared, *(Entry(_NAMES[i % 3] if n == 3 else b"n%07d" % i, b"", method=STORED) for i in range(n))])
    sizes = {"size": len(shared.content), "packed_size": len(shared.packed_bytes())}
    for entry in blob.entries[1:]:
        entry.central = {"offset": 0, "method": 8, **sizes}
    return _of(blob)


def quoted_overlap(draw: random.Random) -> Attack:
    """Quote the header of the second member in the first, stored one: it then belongs to both."""
    archive = _archive()
    inner = Zip(archive.entries[1:]).write()
    archive.entries[0] = Entry(_NAMES[0], inner, method=STORED)
    start = 30 + len(_NAMES[0])
    for entry in archive.entries[1 : draw.choice((2, 3))]:
        entry.central["offset"] = start
    return _of(archive)


def nested(draw: random.Random) -> Attack:
    """Zips in zips in zips."""
    inner = _archive().write()
    for _ in range(draw.randrange(1, 12)):
        inner = Zip([Entry(name, inner[:60_000], level=1) for name in draw.sample(_NAMES, 3)]).write()
    return Attack(inner, LARGE, _PIXELS)


def zip64_claims(draw: random.Random) -> Attack:
    """Sizes and offsets near 2**32 and 2**64 in zip64 fields."""
    archive = _archive()
    entry = draw.choice(archive.entries)
    huge = [draw.choice((0, 384, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)) for _ in range(3)]
    entry.central |= {"size": ALL_ONES, "packed_size": ALL_ONES, "offset": ALL_ONES}
    entry.central_extra = zip64(*huge)
    if draw.random() < 0.5:
        entry.local |= {"size": ALL_ONES, "packed_size": ALL_ONES}
        entry.local_extra = zip64(*huge[:2])
    if draw.random() < 0.5:
        entry.descriptor = draw.choice(("III", "IQQ"))
    return _of(archive)


def lying_array(draw: random.Random) -> Attack:
    """.npy headers that promise a terabyte, or that are dear to parse."""
    shape = draw.choice(
        ("(999999, 999999)", "(1099511627776,)", "(" * 300 + ")" * 300, "(" + "9" * 60 + ", 1)", "(8" + ", " * 30)
    )
    descr = draw.choice(("'<f4'", "'<f8'", "'|O'", "'|V1000000000'", "[" * 200, "'" + "<" * 64 + "'"))
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += draw.choice((b"", b" " * 60_000, b" " * 60_000 + b"x", b"-" * 900))
    content = npy(_PIXELS[0][:0], version=draw.choice((1, 2, 3)), header=text[:65_000])
    if draw.random() < 0.3:
        content = b"\x93NUMPY\x02\x00" + struct.pack("<I", ALL_ONES) + content[12:]
    archive = _archive()
    draw.choice(archive.entries).content = content[:69_000]
    return _of(archive)


def many_members(draw: random.Random) -> Attack:
    """As many empty members as fit under the cap, or as the end record can claim."""
    entries = [Entry(b"%d" % i, b"", method=STORED) for i in range(draw.choice((97, 1000, 3900)))]
    n_claimed = draw.choice((len(entries) + 3, 0xFFFF))
    return _of(Zip([*_archive().entries, *entries], end={"n_here": n_claimed, "n_members": n_claimed}))


def long_names(draw: random.Random) -> Attack:
    """Names of up to 64 KiB, as many as fit."""
    names = [bytes([65 + i]) * 65_535 for i in range(draw.choice((1, 3)))]
    entries = [Entry(name, array) for name, array in zip(names, _ARRAYS, strict=False)]
    if draw.random() < 0.3:
        entries.append(entries[0])
    return _of(Zip(entries))


def many_extras(draw: random.Random) -> Attack:
    """Thousands of empty extra fields, which have to be walked one by one."""
    archive = _archive()
    many = extra(0xCAFE, b"") * 16_383
    for entry in archive.entries:
        entry.local_extra = draw.choice((many, many, b""))
        entry.central_extra = draw.choice((many, many, b""))
    return _of(archive)


def ends_everywhere(draw: random.Random) -> Attack:
    """End records all over the blob, each of which has to be refused once."""
    end = Zip([]).write()
    blob = end * draw.choice((1000, 18_000)) + draw.choice((b"", b"x", b"PK\x05\x06"))
    return Attack(blob, LARGE, _PIXELS)


def too_long(draw: random.Random) -> Attack:
    """Write megabytes, of any content."""
    n = draw.choice((1, 8)) << 20
    return Attack(draw.choice((bytes(n), _archive().write() + bytes(n), bytes(n) + _archive().write())), LARGE, _PIXELS)


def for_small_stamps(draw: random.Random) -> Attack:
    """Put a stamp of full size where small ones are expected."""
    return Attack(draw_form(draw, LARGE, _PIXELS).write(), SMALL, pixels_of(0, SMALL))


KINDS: tuple[Callable[[random.Random], Attack], ...] = (
    honest_ratio, lying_ratio, blocks_without_end, overlap, quoted_overlap, nested, zip64_claims, lying_array, many_members,
    long_names, many_extras, ends_everywhere, too_long, for_small_stamps,
)  # fmt: skip

_NUMPY = """
import io, sys, time, numpy as np
from reliability.npz_oracle import peak_mib, watch_peak
blob = sys.stdin.buffer.read()
before, began = watch_peak(), time.process_time()
try:
    with np.load(io.BytesIO(blob), allow_pickle=False) as archive:
        [archive[name] for name in archive.files]
except ValueError:
    pass
print(peak_mib() - before, time.process_time() - began)
"""


def _cost_of_numpy() -> dict[str, float]:
    """Measure np.load on an array of 256 MiB of zeros, honestly declared, deflated to 260 kB."""
    zeros = npy(_PIXELS[0][:0], shape="(8192, 8192)") + bytes(256 << 20)
    blob = Zip([Entry(_NAMES[0], zeros, level=1)]).write()
    done = subprocess.run([sys.executable, "-c", _NUMPY], input=blob, capture_output=True, check=True, timeout=120)
    mebibytes, seconds = map(float, done.stdout.split())
    return {"MiB of np.load on one of them": mebibytes, "CPU ms of np.load on one of them": 1000 * seconds}


SUBJECT = Subject(
    name="npz_bombs",
    question="a blob that is made to cost memory or time is refused within 50 ms and 8 MiB",
    unit="bombs",
    goal=10_000,
    case=case,
    bounds=BOUNDS,
)
