"""Every form in which a stamp's npz is or could plausibly be written, and what becomes of it; docs/decoder.md lists them.

``python -m lens_pipeline_tests.stamps.npz_variants`` writes the table of that page anew.
"""

import io
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from lens_pipeline_tests.stamps.making import SMALL, pixels_of
from reliability.npz_writer import ALL_ONES, DEFLATED, STORED, Entry, Zip, extra, npy, zip64

PAGE = Path(__file__).parents[2] / "docs" / "decoder.md"
PIXELS = pixels_of(0)
BANDS: dict[str, Any] = dict(zip(SMALL.members, PIXELS, strict=True))
N = SMALL.stamp_size


class Pipe(io.RawIOBase):
    """A file that can't be sought, as when numpy writes to a pipe: it puts sizes behind the data."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, piece: Any) -> int:
        self.content += bytes(piece)
        return len(piece)


def savez(arrays: dict[str, Any], *, compressed: bool = True) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def savez_to_pipe(arrays: dict[str, Any], *, compressed: bool = True) -> bytes:
    pipe: IO[bytes] = Pipe()  # type: ignore[assignment]
    (np.savez_compressed if compressed else np.savez)(pipe, **arrays)
    return pipe.content  # type: ignore[attr-defined, no-any-return]


def with_band(array: Any) -> bytes:
    """The second band given another form."""
    return savez({**BANDS, "image_r": array})


def zipped(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED, level: int | None = None) -> bytes:
    """What zipfile writes, without the zip64 fields that numpy forces."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=level) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def arrays_of(**changes: bytes) -> list[tuple[str, bytes]]:
    return [(f"{name}.npy", changes.get(name, npy(band))) for name, band in BANDS.items()]


def with_comment(*, of_member: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in arrays_of():
            member = zipfile.ZipInfo(name)
            member.comment = b"hello" if of_member else b""
            archive.writestr(member, content)
        archive.comment = b"" if of_member else b"hello"
    return file.getvalue()


def written(form: dict[str, Any] | None = None, **whole: Any) -> bytes:
    """Our own writer's zip, all of its members in one form."""
    return Zip([Entry(name.encode(), content, **(form or {})) for name, content in arrays_of()], **whole).write()


def with_sizes_in_zip64(*, times: bytes = b"", descriptor: str | None = None, signed: bool = True) -> bytes:
    """Zip64 fields in both headers of every member, which no stamp needs and some writers force."""
    entries = []
    for name, content in arrays_of():
        entry = Entry(name.encode(), content, descriptor=descriptor, signed=signed)
        size, packed_size = len(content), len(entry.packed_bytes())
        entry.local = entry.central = {"size": ALL_ONES, "packed_size": ALL_ONES}
        entry.local_extra = times + (zip64(0, 0) if descriptor else zip64(size, packed_size))
        entry.central_extra = zip64(size, packed_size) + times
        entries.append(entry)
    return Zip(entries).write()


def with_last_member(*, behind: bytes = b"", longer: int = 0) -> bytes:
    """Bytes between the last member and the directory, or a last member that reaches into the directory."""
    entries = [Entry(name.encode(), content, method=STORED if longer else DEFLATED) for name, content in arrays_of()]
    last = entries[-1]
    last.behind = behind
    if longer:
        size = len(last.content) + longer
        last.local = last.central = {"size": size, "packed_size": size}
    return Zip(entries).write()


def with_zip64_end() -> bytes:
    plain = written()
    size, offset = struct.unpack_from("<2I", plain, len(plain) - 10)
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, size, offset)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, offset + size, 1)
    return plain[:-22] + record + locator + plain[-22:]


def with_second_header(**options: Any) -> bytes:
    return zipped(arrays_of(image_r=npy(PIXELS[1], **options)))


def changed(place: tuple[int, int], value: float) -> npt.NDArray[np.float32]:
    band: npt.NDArray[np.float32] = PIXELS[1].copy()
    band[place] = value
    return band


def masked_band() -> npt.NDArray[np.float32]:
    band: npt.NDArray[np.float32] = PIXELS[1].copy()
    band[: N // 2 + 1] = 0
    return band


@dataclass(frozen=True)
class Variant:
    """One form: what it is, its bytes, and "read" or the reason."""

    what: str
    blob: bytes
    verdict: str


TIMES_AND_OWNER = extra(0x5455, b"\x03" + bytes(8)) + extra(0x7875, b"\x01\x04" + bytes(4) + b"\x04" + bytes(4))
NTFS = extra(0x000A, bytes(32))
TRAILING_COMMA = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({N}, {N})}}\n".encode()
NO_SPACES = f"{{'descr':'<f4','fortran_order':False,'shape':({N},{N}),}}\n".encode()
TWISTED = f"{{'fortran_order': False, 'descr': '<f4', 'shape': ({N}, {N}), }}\n".encode()

WRITTEN_BY_NUMPY = [
    Variant("`np.savez_compressed` to a file or BytesIO (zip64 fields in the members' headers)", savez(BANDS), "read"),
    Variant("`np.savez` to a file or BytesIO", savez(BANDS, compressed=False), "read"),
    Variant("`np.savez_compressed` to a pipe (data descriptors)", savez_to_pipe(BANDS), "read"),
    Variant("`np.savez` to a pipe", savez_to_pipe(BANDS, compressed=False), "read"),
    Variant("bands saved in another order", savez(dict(reversed(BANDS.items()))), "read"),
    Variant("big-endian float32 (`>f4`)", with_band(PIXELS[1].astype(">f4")), "read"),
    Variant("Fortran order", with_band(np.asfortranarray(PIXELS[1])), "read"),
    Variant("big-endian, Fortran order", with_band(np.asfortranarray(PIXELS[1].astype(">f4"))), "read"),
    Variant("a view with strides", with_band(np.repeat(PIXELS[1], 2, axis=1)[:, ::2]), "read"),
    Variant("a masked array (numpy writes its data)", with_band(np.ma.masked_less(PIXELS[1], 0)), "read"),
    Variant(".npy 1.0 padded to 16 bytes (numpy before 1.14)", with_second_header(pad_to=16), "read"),
    Variant(".npy 2.0", with_second_header(version=2), "read"),
    Variant(".npy 3.0", with_second_header(version=3), "read"),
    Variant("a shape as python 2 wrote it, `(64L, 64L)`", with_second_header(shape=f"({N}L, {N}L)"), "read"),
    Variant(
        "a shape as python 2 wrote it in .npy 3.0, which came after python 2",
        with_second_header(version=3, shape=f"({N}L, {N}L)"),
        "bad_npy_header",
    ),
    Variant("float64", with_band(PIXELS[1].astype("f8")), "wrong_dtype"),
    Variant("float16", with_band(PIXELS[1].astype("f2")), "wrong_dtype"),
    Variant("int32", with_band(PIXELS[1].view("i4")), "wrong_dtype"),
    Variant("bool", with_band(PIXELS[1] > 0), "wrong_dtype"),
    Variant("complex64", with_band(PIXELS[1].astype("c8")), "wrong_dtype"),
    Variant("strings", with_band(np.full((N, N), "a")), "wrong_dtype"),
    Variant("structured dtype", with_band(np.zeros((N, N), dtype=[("a", "<f4")])), "wrong_dtype"),
    Variant("object dtype (pickle)", with_band(np.array([{"a": 1}], dtype=object)), "pickled_object"),
    Variant("0-d", with_band(np.float32(1)), "wrong_shape"),
    Variant("1-d", with_band(PIXELS[1].ravel()), "wrong_shape"),
    Variant("another length", with_band(PIXELS[1][:, : N - 1]), "wrong_shape"),
    Variant("as many pixels in another shape", with_band(PIXELS[1].reshape(N // 2, 2 * N)), "wrong_shape"),
    Variant("twice the size", with_band(np.tile(PIXELS[1], (2, 2))), "wrong_shape"),
    Variant("3-d", with_band(PIXELS[1].reshape(1, N, N)), "wrong_shape"),
    Variant("empty", with_band(PIXELS[1][:0]), "wrong_shape"),
    Variant("a band left out", savez({name: BANDS[name] for name in SMALL.members[:2]}), "missing_member"),
    Variant("one array more", savez({**BANDS, "image_i": PIXELS[0]}), "extra_member"),
    Variant("arrays without names (`arr_0` ...)", savez({f"arr_{i}": band for i, band in enumerate(PIXELS)}),
            "missing_member"),
    Variant("one .npy and no zip", npy(PIXELS[0]), "not_a_zip"),
    Variant("no blob", b"", "not_a_zip"),
]  # fmt: skip
WRITTEN_BY_OTHERS = [
    Variant("zipfile, no zip64 fields", zipped(arrays_of()), "read"),
    Variant("zipfile, level 1", zipped(arrays_of(), level=1), "read"),
    Variant("zipfile, level 9", zipped(arrays_of(), level=9), "read"),
    Variant("zipfile, level 0 (deflate's stored blocks)", zipped(arrays_of(), level=0), "read"),
    Variant("members stored and deflated in one zip",
            Zip([Entry(name.encode(), content, method=8 * (i % 2)) for i, (name, content) in enumerate(arrays_of())])
            .write(), "read"),
    Variant("the directory in another order than the members", written(order=(2, 0, 1)), "read"),
    Variant("times and owner in extra fields (Info-ZIP, git, cmake)",
            written({"local_extra": TIMES_AND_OWNER, "central_extra": TIMES_AND_OWNER[:9]
                     .replace(b"\x09\x00", b"\x05\x00", 1)}), "read"),
    Variant("NTFS times in the directory alone (7-Zip)", written({"central_extra": NTFS}), "read"),
    Variant("jar's empty extra field", written({"local_extra": extra(0xCAFE, b"")}), "read"),
    Variant("data descriptors with a signature", written({"descriptor": "III"}), "read"),
    Variant("data descriptors without a signature", written({"descriptor": "III", "signed": False}), "read"),
    Variant("data descriptors, the size already in the header (Info-ZIP on a pipe)",
            written({"descriptor": "III", "local": {"size": len(npy(PIXELS[0]))}}), "read"),
    Variant("zip64 fields in both headers", with_sizes_in_zip64(), "read"),
    Variant("zip64 fields among times and owner", with_sizes_in_zip64(times=TIMES_AND_OWNER), "read"),
    Variant("zip64 data descriptors", with_sizes_in_zip64(descriptor="IQQ"), "read"),
    Variant("zip64 data descriptors without a signature", with_sizes_in_zip64(descriptor="IQQ", signed=False), "read"),
    Variant("level hints in the flags (Info-ZIP -9)",
            written({"local": {"flags": 2}, "central": {"flags": 2}}), "read"),
    Variant("UTF-8 flag (jar)", written({"local": {"flags": 0x800}, "central": {"flags": 0x800}}), "read"),
    Variant("the writer's system beside the version that is needed", written({"central": {"version": 0x0314}}), "read"),
    Variant(".npy header without the last comma", with_second_header(header=TRAILING_COMMA), "read"),
    Variant(".npy header without spaces", with_second_header(header=NO_SPACES), "read"),
    Variant(".npy header with its keys in another order", with_second_header(header=TWISTED), "bad_npy_header"),
    Variant("a zip64 end record (Info-ZIP -fz)", with_zip64_end(), "unsupported_zip"),
    Variant("zip64 values that no header asks for", written({"local_extra": zip64(384, 384)}), "bad_zip"),
    Variant("zip64 sizes that no descriptor of 32 bits can hold",
            written({"descriptor": "III", "central": {"packed_size": ALL_ONES}, "central_extra": zip64(1 << 33)}), "bad_zip"),
    Variant("a zip64 field twice",
            written({"local_extra": zip64(384, 384) * 2, "local": {"size": ALL_ONES, "packed_size": ALL_ONES},
                     "method": STORED}), "bad_zip"),
    Variant("an extra field of another kind", written({"central_extra": extra(0x7075, bytes(9))}), "unsupported_zip"),
    Variant("more than 512 bytes of extra fields", written({"local_extra": NTFS * 15}), "unsupported_zip"),
    Variant("a member that needs a reader newer than the format's version 6.3",
            written({"central": {"version": 64}}), "unsupported_zip"),
    Variant("60,000 members, says the end record", written(end={"n_here": 60_000, "n_members": 60_000}), "extra_member"),
    Variant("an extra field that is cut off", written({"central_extra": extra(0x5455, bytes(5))[:-1]}), "bad_zip"),
    Variant("bzip2", zipped(arrays_of(), zipfile.ZIP_BZIP2), "unsupported_zip"),
    Variant("lzma", zipped(arrays_of(), zipfile.ZIP_LZMA), "unsupported_zip"),
    Variant("encrypted", written({"local": {"flags": 1}, "central": {"flags": 1}}), "unsupported_zip"),
    Variant("an archive comment", with_comment(of_member=False), "unsupported_zip"),
    Variant("a member's comment", with_comment(of_member=True), "unsupported_zip"),
    Variant("bytes before the first member (self-extracting)", written(before=b"junk"), "bad_zip"),
    Variant("bytes between the last member and the directory", with_last_member(behind=b"junk"), "bad_zip"),
    Variant("a member that reaches into the directory", with_last_member(longer=9), "overlapping_members"),
    Variant("offsets that don't count the bytes before", b"junk" + written(), "bad_zip"),
    Variant("bytes behind the end", written() + b"\0", "not_a_zip"),
    Variant("names without `.npy`", zipped([(name[:-4], content) for name, content in arrays_of()]), "missing_member"),
    Variant("names in a folder", zipped([("a/" + name, content) for name, content in arrays_of()]), "missing_member"),
    Variant("a folder's own entry", zipped([("a/", b""), *arrays_of()]), "extra_member"),
    Variant("a descriptor that contradicts the directory",
            written({"descriptor": "III", "descriptor_lies": {0: 1}}), "bad_zip"),
    Variant("a band twice", Zip([Entry(b"image_g.npy", npy(PIXELS[0])), *(
        Entry(name.encode(), content) for name, content in arrays_of())]).write(), "duplicate_member"),
    Variant("a wrong checksum", written({"local": {"crc": 1}, "central": {"crc": 1}}), "bad_crc"),
    Variant("a wrong checksum of stored bytes",
            written({"method": STORED, "local": {"crc": 1}, "central": {"crc": 1}}), "bad_crc"),
    Variant("a deflate stream that breaks off", written({"packed": b"\x05"}), "bad_deflate"),
    Variant("a size that the stream doesn't reach",
            written({"local": {"size": 388}, "central": {"size": 388}}), "bad_deflate"),
    Variant("a size over the cap", written({"local": {"size": 1 << 30}, "central": {"size": 1 << 30}}), "too_large"),
    Variant("a blob over the cap", bytes(200_000), "too_large"),
    Variant("a text file as a band", zipped(arrays_of(image_r=b"rubbish")), "bad_npy_header"),
    Variant("pixels missing at the end", zipped(arrays_of(image_r=npy(PIXELS[1])[:-4])), "bad_npy_header"),
    Variant("bytes behind the pixels", zipped(arrays_of(image_r=npy(PIXELS[1]) + b"more")), "bad_npy_header"),
    Variant(".npy 1.1", zipped(arrays_of(image_r=npy(PIXELS[1]).replace(b"Y\x01\x00", b"Y\x01\x01", 1))), "bad_npy_header"),
    Variant("a .npy header of more than 1,024 bytes", with_second_header(pad_to=2048), "bad_npy_header"),
    Variant(".npy 4.0", with_second_header(version=4), "bad_npy_header"),
]  # fmt: skip
PIXEL_VALUES = [
    Variant("a NaN", with_band(changed((3, 3), np.nan)), "not_finite"),
    Variant("an infinity", with_band(changed((0, 0), -np.inf)), "not_finite"),
    Variant("65504, float16's largest", with_band(changed((7, 7), 65504)), "read"),
    Variant("above 65504", with_band(changed((7, 7), 65504.01)), "beyond_float16"),
    Variant("below -65504", with_band(changed((7, 7), -65504.01)), "beyond_float16"),
    Variant("a MAD below float16's smallest normal number", with_band(PIXELS[1] * np.float32(1e-6)), "beyond_float16"),
    Variant("a constant band", with_band(np.full((N, N), 3, np.float32)), "constant_band"),
    Variant("more than half of a band equal (MAD = 0)", with_band(masked_band()), "zero_mad"),
]
SECTIONS = {
    "Written by numpy": WRITTEN_BY_NUMPY, "Written by others": WRITTEN_BY_OTHERS, "Pixels": PIXEL_VALUES
}  # fmt: skip


def table() -> str:
    """The page's table."""
    lines = []
    for title, variants in SECTIONS.items():
        lines += [f"### {title}", "", "| form | verdict |", "|---|---|"]
        for variant in variants:
            verdict = "**read**" if variant.verdict == "read" else f"`{variant.verdict}`"
            lines.append(f"| {variant.what} | {verdict} |")
        lines.append("")
    return "\n".join(lines)


BEGIN, END = "<!-- variants: begin -->\n", "<!-- variants: end -->\n"

if __name__ == "__main__":
    text = PAGE.read_text()
    PAGE.write_text(text[: text.index(BEGIN)] + BEGIN + "\n" + table() + "\n" + text[text.index(END) :])
