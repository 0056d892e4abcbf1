"""Every blob ends as exactly numpy's pixels or as a reason: never an exception, never another pixel."""

import io
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Decoded, Stamp, decode_batch, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.reasons import Quarantine, Reason
from lens_pipeline_tests.stamps.making import OTHER_SURVEY, SMALL, Pixels, pixels_of
from lens_pipeline_tests.stamps.npz_variants import BANDS, PIXELS, arrays_of, savez, savez_to_pipe, zipped
from reliability.npz_writer import STORED as STORED_METHOD
from reliability.npz_writer import Entry, Zip, npy


def reason(blob: bytes | None, contract: DatasetContract = SMALL) -> str:
    verdict = decode_blob(blob, contract)
    return verdict.reason.value if isinstance(verdict, Quarantine) else "read"


@pytest.mark.parametrize("contract", [SMALL, DatasetContract(), OTHER_SURVEY], ids=["8", "64", "5 bands of 48"])
@pytest.mark.parametrize("compressed", [True, False])
def test_what_numpy_writes_is_read_bit_for_bit(contract: DatasetContract, compressed: bool) -> None:
    pixels = pixels_of(3, contract)
    blob = savez(dict(zip(contract.members, pixels, strict=True)), compressed=compressed)
    stamp = decode_blob(blob, contract)
    assert isinstance(stamp, Stamp)
    assert stamp.pixels.tobytes() == pixels.tobytes()
    flat = pixels.reshape(len(pixels), -1)
    assert stamp.median.tolist() == np.median(flat, axis=1).tolist()
    assert stamp.mad.tolist() == [np.median(np.abs(band - np.median(band))) for band in flat]


def test_what_we_write_numpy_reads_bit_for_bit_and_equal_pixels_give_equal_bytes() -> None:
    blob = encode_stamp(PIXELS, SMALL)
    time.sleep(0.01)
    assert encode_stamp(PIXELS.copy(), SMALL) == blob
    with np.load(io.BytesIO(blob)) as archive:
        assert list(archive) == list(SMALL.members)
        assert np.stack([archive[name] for name in SMALL.members]).tobytes() == PIXELS.tobytes()
    assert zipfile.ZipFile(io.BytesIO(blob)).testzip() is None


def test_pixels_of_another_type_or_shape_are_not_written() -> None:
    with pytest.raises(Exception, match="float64"):
        encode_stamp(PIXELS.astype(np.float64), SMALL)  # type: ignore[arg-type]
    with pytest.raises(Exception, match=r"\(3, 8, 7\)"):
        encode_stamp(PIXELS[:, :, :7], SMALL)


def with_central(blob: bytes, change: Callable[[bytearray, list[int]], None]) -> bytes:
    """Change directory entries, whose offsets are handed to `change`."""
    damaged = bytearray(blob)
    places = [i for i in range(len(blob)) if blob.startswith(b"PK\x01\x02", i)]
    change(damaged, places)
    return bytes(damaged)


def one_record_for_all(damaged: bytearray, places: list[int]) -> None:
    # Every entry points at the first member and takes its sizes: three bands from the bytes of one.
    first = bytes(damaged[places[0] + 16 : places[0] + 28])
    for place in places[1:]:
        damaged[place + 16 : place + 28] = first
        damaged[place + 42 : place + 46] = damaged[places[0] + 42 : places[0] + 46]


def quoted_overlap() -> bytes:
    """A zip whose first member, stored, contains the whole record of the second (a quoted overlap, as in zip bombs)."""
    inner = zipped(arrays_of()[1:2], zipfile.ZIP_STORED)
    inner_record = inner[: inner.index(b"PK\x01\x02")]
    outer = zipped([("image_g.npy", inner_record), *arrays_of()[1:]], zipfile.ZIP_STORED)
    inside = outer.index(inner_record, 1)
    return with_central(outer, lambda d, p: d.__setitem__(slice(p[1] + 42, p[1] + 46), struct.pack("<I", inside)))


def claim_size(size: int) -> Callable[[bytearray, list[int]], None]:
    """Let the first member claim a size in both of its headers."""

    def change(damaged: bytearray, places: list[int]) -> None:
        damaged[places[0] + 24 : places[0] + 28] = damaged[22:26] = struct.pack("<I", size)

    return change


def one_member_too_many(damaged: bytearray, places: list[int]) -> None:
    damaged[-14:-10] = struct.pack("<2H", 4, 4)


def junk_in_the_directory(blob: bytes) -> bytes:
    size = int.from_bytes(blob[-10:-6], "little")
    return blob[:-22] + b"junk" + blob[-22:-10] + struct.pack("<I", size + 4) + blob[-6:]


STORED = zipped(arrays_of(), zipfile.ZIP_STORED)
NAN = PIXELS[0].copy()
NAN[3, 3] = np.nan


@pytest.mark.parametrize(
    ("blob", "wanted"),
    [
        (None, "null_blob"),
        (b"\x93NUMPY" + bytes(900), "not_a_zip"),
        (savez({**BANDS, **{f"x{i}": np.zeros(1) for i in range(80)}}), "extra_member"),
        (with_central(STORED, one_record_for_all), "bad_zip"),
        (quoted_overlap(), "overlapping_members"),
        (with_central(STORED, one_member_too_many), "bad_zip"),
        (with_central(STORED, claim_size(388)), "bad_zip"),
        (junk_in_the_directory(STORED), "bad_zip"),
    ],
)
def test_a_zip_that_contradicts_itself_has_its_reason(blob: bytes | None, wanted: str) -> None:
    assert reason(blob) == wanted


@pytest.mark.parametrize("kind", ["claims little", "claims much", "nested"])
def test_a_bomb_is_refused_within_a_few_megabytes_and_milliseconds(kind: str) -> None:
    zeros = npy(np.zeros((4096, 4096), np.float32))
    bomb = zipped(arrays_of(image_g=zeros))
    if kind == "claims little":
        size = struct.pack("<I", 384)
        place = bomb.index(b"PK\x01\x02")
        bomb = bomb[:22] + size + bomb[26 : place + 24] + size + bomb[place + 28 :]
    if kind == "claims much":
        bomb = with_central(zipped(arrays_of()), claim_size(1 << 30))
    if kind == "nested":
        bomb = zipped(arrays_of(image_g=bomb[:20_000]))
    contract = SMALL if kind != "claims little" else DatasetContract()
    tracemalloc.start()
    began = time.process_time()
    verdict = decode_blob(bomb, contract)
    took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(verdict, Quarantine)
    assert verdict.reason in (Reason.TOO_LARGE, Reason.BAD_DEFLATE, Reason.BAD_ZIP, Reason.BAD_NPY_HEADER)
    assert peak < 4 << 20
    assert took < 0.05


def test_a_blob_cut_off_at_any_byte_is_quarantined() -> None:
    for blob in (encode_stamp(PIXELS, SMALL), savez(BANDS), savez(BANDS, compressed=False)):
        assert all(reason(blob[:end]) != "read" for end in range(len(blob)))


def bytes_that_say_nothing_of_pixels(blob: bytes) -> set[int]:
    """Offsets of the writer's version, timestamps and permissions, and of the last byte of each deflated member."""
    free = set()
    for at in (i for i in range(len(blob)) if blob.startswith(b"PK\x01\x02", i)):
        (local,) = struct.unpack_from("<I", blob, at + 42)
        (packed_size,) = struct.unpack_from("<I", blob, at + 20)
        name_and_extra = sum(struct.unpack_from("<2H", blob, local + 26))
        free |= {at + i for i in (4, 5, 6, 7, 12, 13, 14, 15, 36, 37, 38, 39, 40, 41)}
        free |= {local + i for i in (4, 5, 10, 11, 12, 13)} | {local + 30 + name_and_extra + packed_size - 1}
    return free


@pytest.mark.parametrize(
    "write",
    [lambda: encode_stamp(PIXELS, SMALL), lambda: savez(BANDS), lambda: savez_to_pipe(BANDS), lambda: STORED],
    ids=["ours", "numpy's", "numpy's on a pipe", "stored"],
)
def test_after_any_flipped_bit_the_pixels_are_the_same_or_the_blob_is_quarantined(write: Callable[[], bytes]) -> None:
    blob = bytearray(write())
    free = bytes_that_say_nothing_of_pixels(bytes(blob))
    read_from = set()
    for bit in range(8 * len(blob)):
        blob[bit // 8] ^= 1 << bit % 8
        verdict = decode_blob(bytes(blob), SMALL)
        if isinstance(verdict, Stamp):
            read_from.add(bit // 8)
            assert verdict.pixels.tobytes() == PIXELS.tobytes()
        blob[bit // 8] ^= 1 << bit % 8
    assert read_from <= free


SAVED = savez(BANDS)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(SAVED)), st.integers(0, 40), st.binary(max_size=40)), min_size=1, max_size=4
    ),
    twice=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_any_edit_of_a_blob_gives_the_same_pixels_or_a_reason(edits: list[tuple[int, int, bytes]], twice: bool) -> None:
    blob = SAVED + SAVED if twice else SAVED
    for at, drop, put in edits:
        blob = blob[:at] + put + blob[at + drop :]
    verdict = decode_blob(blob, SMALL)
    if isinstance(verdict, Stamp):
        assert verdict.pixels.tobytes() == PIXELS.tobytes()


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_content_of_a_member_gives_a_reason(content: bytes) -> None:
    assert reason(zipped(arrays_of(image_r=content))) != "read"


@given(st.text(alphabet="<>|f4i8O(),' :{}TrueFalsdcnotr_hp0123456789\n", max_size=90))
@settings(max_examples=200, deadline=None)
def test_any_npy_header_gives_a_reason(text: str) -> None:
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    assert reason(zipped(arrays_of(image_r=header + PIXELS[1].tobytes()))) != "read"


def test_a_batch_keeps_the_order_and_one_bad_blob_harms_no_other() -> None:
    good = [encode_stamp(pixels_of(i), SMALL) for i in range(5)]
    blobs: list[bytes | None] = [good[0], b"bad", good[1], None, savez({**BANDS, "image_r": NAN}), good[2]]
    room = Decoded.room_for(8, SMALL)
    room.pixels[:] = 7
    verdicts = decode_batch(blobs, SMALL, room)
    assert [None if v is None else v.reason.value for v in verdicts] == [
        None, "not_a_zip", None, "null_blob", "not_finite", None
    ]  # fmt: skip
    kept: list[Pixels] = [pixels_of(i) for i in range(3)]
    assert all(room.pixels[slot].tobytes() == kept[i].tobytes() for i, slot in enumerate((0, 2, 5)))
    assert all(room.half[slot].tobytes() == kept[i].astype(np.float16).tobytes() for i, slot in enumerate((0, 2, 5)))
    assert not room.pixels[[1, 3, 4]].any()
    assert not room.half[[1, 3, 4]].any()
    assert not room.stats[[1, 3, 4]].any()


def test_an_empty_batch_is_fine() -> None:
    assert decode_batch([], SMALL, Decoded.room_for(4, SMALL)) == []


def test_every_reason_says_what_it_means() -> None:
    assert all(reason.meaning and reason.value == reason.name.lower() for reason in Reason)


def test_a_room_used_again_holds_nothing_of_the_batch_before() -> None:
    draw = np.random.default_rng(0)
    bad = [
        b"bad",
        None,
        savez({**BANDS, "image_r": NAN}),
        STORED[:-1],
        savez({**BANDS, "image_z": np.ones((8, 8), "f4")}),
    ]
    room, kept = Decoded.room_for(12, SMALL), Decoded.room_for(12, SMALL)
    for turn in range(30):
        n = int(draw.integers(0, 13))
        blobs = [bad[i] if i < len(bad) else encode_stamp(pixels_of(i + turn), SMALL) for i in draw.integers(0, 12, n)]
        for ours, before in zip(_arrays(kept), _arrays(room), strict=True):
            ours[:] = before
        verdicts = decode_batch(blobs, SMALL, room)
        for place, (blob, verdict) in enumerate(zip(blobs, verdicts, strict=True)):
            alone = Decoded.room_for(1, SMALL)
            assert decode_batch([blob], SMALL, alone) == [verdict]
            assert all(
                ours[place].tobytes() == its[0].tobytes()
                for ours, its in zip(_arrays(room), _arrays(alone), strict=True)
            )
        assert all(
            ours[n:].tobytes() == before[n:].tobytes()
            for ours, before in zip(_arrays(room), _arrays(kept), strict=True)
        )


def _arrays(room: Decoded) -> tuple[np.ndarray, ...]:
    return room.pixels, room.half, room.stats


_PATHS = [
    b"../../etc/passwd", b"/etc/passwd", b"/dev/zero", b"..\\..\\x.npy", b"C:\\x.npy", b"%2e%2e/x.npy", b"./image_g.npy",
    b"image_g.npy\0/../x", "imagé_g.npy".encode(), "image\u0301_g.npy".encode(), b"~/x", b"$HOME/x", b"\xff\xfe", b"a/" * 2048,
    b"file:///etc/passwd", b"|id", b"", b".", b"..", b"\n", b"image_g.npy/",
]  # fmt: skip
_opened: list[object] = []
_watching = False


def _note_opening(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event.split(".")[0] in ("open", "os", "shutil", "pathlib", "subprocess", "glob", "tempfile"):
        _opened.append((event, arguments))


def test_a_members_name_is_never_used_as_a_path() -> None:
    global _watching
    sys.addaudithook(_note_opening)
    blobs = [
        Zip(
            [Entry(bad if place == i else name.encode(), content) for i, (name, content) in enumerate(arrays_of())]
        ).write()
        for bad in _PATHS
        for place in range(3)
    ]
    room = Decoded.room_for(len(blobs), SMALL)
    decode_batch(blobs[:1], SMALL, room)
    _watching = True
    try:
        Path(__file__).read_bytes()
        seen = len(_opened)
        verdicts = decode_batch(blobs, SMALL, room)
    finally:
        _watching = False
    assert seen
    assert {verdict.reason for verdict in verdicts if verdict} == {Reason.MISSING_MEMBER}
    assert all(verdicts)
    assert _opened[seen:] == []


def test_an_end_record_that_is_cut_off_is_no_zip() -> None:
    record = Zip([]).write()
    assert [reason(record[:end]) for end in range(len(record))] == len(record) * ["not_a_zip"]
    assert reason(record) == "missing_member"


@pytest.mark.parametrize("n", [1, 50])
def test_a_detail_stays_short_whatever_the_names(n: int) -> None:
    long_names = Zip(
        [Entry(b"%04d" % i + b"x" * (9000 if n == 1 else 100), b"", method=STORED_METHOD) for i in range(n)]
    )
    for entries in (
        long_names.entries,
        [Entry(name.encode(), array) for name, array in arrays_of()] + long_names.entries,
    ):
        verdict = decode_blob(Zip(entries).write(), SMALL)
        assert isinstance(verdict, Quarantine)
        assert verdict.reason in (Reason.MISSING_MEMBER, Reason.EXTRA_MEMBER)
        assert len(verdict.detail) < 1000


def test_bytes_that_look_like_the_length_of_a_comment_are_no_comment() -> None:
    blob = bytearray(1000)
    blob[19:21] = (len(blob) - 21).to_bytes(2, "little")
    assert reason(bytes(blob)) == "not_a_zip"
