"""Damaged and crafted parquet: refused with a reason, or read as it was, and never a crash of the pipeline.

Four families take turns. (0) Bits of a foreign file flip before anybody hashed it. (1) One or two numbers of its footer are
replaced by lies. (2) A page with a lying header is added, and the footer points to it. (3) A file, foreign or ours, is damaged
after its SHA-256 was published. Of the first three, what can't be known without a checksum is told apart and counted: metadata
values that were changed before the first reading (`metadata_changed`), and a whole sound stamp of another row in the place of
a row's own (`stamp_of_another_row`). Pixels that belong to no row at all would be a failure: the NPZ's own CRC guards them.
"""

import atexit
import random
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.fragments import BLOB, open_fragment
from lens_pipeline.stamps.inspection import Inspector
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.sources import LocalFile
from lens_pipeline.survey.external_files import ExternalFile, take_in_one
from lens_pipeline.survey.external_stamps import distinct_rows
from reliability.compact_thrift import Token, number, tokens, varint
from reliability.subject import Case, Subject

_CONTRACT = DatasetContract(stamp_size=8)
_ROWS = 24
_EDGES = {edge + step for edge in (0, 2**7, 2**8, 2**15, 2**16, 2**31, 2**32) for step in (-1, 0, 1)}
_LIES = sorted(_EDGES | {7, 2**20, 2**24, 2**28, 2**40, 2**62, 2**63 - 1, -(2**31), -(2**63)})
_ENCODINGS = {"task_id": "DELTA_BYTE_ARRAY", "cutout_ok": "DELTA_BINARY_PACKED", "ra": "BYTE_STREAM_SPLIT"}
_WRITERS: tuple[dict[str, Any], ...] = (
    {"compression": "snappy"},
    {"compression": "zstd", "use_dictionary": False},
    {"compression": "none", "use_dictionary": False},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "lz4", "data_page_size": 256},
    {"compression": "none", "use_dictionary": False, "store_schema": False, "write_statistics": False},
    {"compression": "none", "use_dictionary": False, "column_encoding": _ENCODINGS},
)
_INSPECTORS: list[Inspector] = []


def case(number: int) -> Case:
    """Damage one file and read it as the pipeline does."""
    random_ = random.Random(number)
    kind = number % 4
    if kind == 3:
        return _after_publication(random_)
    sound, table = _sound(random_.randrange(len(_WRITERS)))
    damaged = (_flip, _lie_in_footer, _lie_in_page)[kind](sound, random_)
    path = _folder() / "foreign.parquet"
    path.write_bytes(damaged)
    began, crashed = time.perf_counter(), False
    try:
        found, outcome = _read(path), None
    except PipelineError as error:
        found, outcome = None, "refused"
        crashed = "the process that read it died" in str(error)
        if str(path) not in str(error):
            return Case(problem=f"a refusal that doesn't name the file: {error}")
    ms = (time.perf_counter() - began) * 1000
    counts = {"inspector_crashed": 1} if crashed else {}
    if outcome is None:
        assert found is not None
        outcome, problem = _judge(found, table)
        if problem:
            return Case(problem=problem)
    return Case(counts={outcome: 1, **counts}, largest={"ms": ms})


def _after_publication(random_: random.Random) -> Case:
    """Publish a file, damage it anywhere, and read it: there is no way but a refusal."""
    own = random_.random() < 0.5
    sound, table = _sound(random_.randrange(len(_WRITERS)), own=own)
    path = _folder() / ("own.parquet" if own else "published.parquet")
    path.write_bytes(sound)
    entry = {"file": path.name if own else str(path), "sha256": sha256_of(path), "rows": _ROWS}
    began = time.perf_counter()
    path.write_bytes(_flip(sound, random_))
    try:
        fragment = open_fragment(LocalFile(path), _CONTRACT, [], entry)
        fragment.prove()
        sum(batch.num_rows for batch in fragment.batches(table.column_names, rows=256))
    except PipelineError:
        return Case(counts={"refused_after_publication": 1}, largest={"ms": (time.perf_counter() - began) * 1000})
    return Case(problem=f"{'our own' if own else 'a published foreign'} file was read though its bytes had changed")


def _read(path: Path) -> pa.Table:
    """Take a foreign file in, and read all its rows through a fragment."""

    def read(inspected: Path) -> pa.Table:
        return distinct_rows(inspected)

    file: ExternalFile
    file, _ = take_in_one(_inspector(), LocalFile(path), _CONTRACT, read)
    entry = {**file.describe(0), "file": str(path)}
    fragment = open_fragment(LocalFile(path), _CONTRACT, [file.inspection.schema], entry)
    fragment.prove()
    columns = sorted(fragment.columns)
    return pa.Table.from_batches(list(fragment.batches(columns, rows=256)))


def _judge(found: pa.Table, original: pa.Table) -> tuple[str, str | None]:
    """Return what came of the rows, and what is wrong with that."""
    if found.num_rows != original.num_rows:
        return "", f"{found.num_rows} rows were read of {original.num_rows}"
    theirs = {name: original[name].to_pylist() for name in original.column_names}
    ours = {name: found[name].to_pylist() for name in found.column_names}
    outcome = "same"
    if any(repr(ours.get(name)) != repr(values) for name, values in theirs.items() if name != BLOB):
        outcome = "metadata_changed"
    for blob, expected in zip(ours[BLOB], theirs[BLOB], strict=True):
        if blob == expected:
            continue
        stamp = decode_blob(blob, _CONTRACT)
        if not isinstance(stamp, Stamp):
            outcome = "stamp_quarantined"
        elif blob in theirs[BLOB]:
            outcome = "stamp_of_another_row"
        elif not np.array_equal(stamp.pixels, decode_blob(expected, _CONTRACT).pixels):  # type: ignore[union-attr]
            return "", "a stamp was accepted with pixels that no row has"
    return outcome, None


def _flip(sound: bytes, random_: random.Random) -> bytes:
    content = bytearray(sound)
    # A third of the flips go where structure stands, which is a small part of the bytes.
    structure = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little") if random_.random() < 0.33 else 0
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        content[random_.randrange(structure, len(content))] ^= 1 << random_.randrange(8)
    return bytes(content)


def _lie_in_footer(sound: bytes, random_: random.Random) -> bytes:
    data, footer = _split(sound)
    found, _ = tokens(footer)
    lies = {random_.choice(found): random_.choice(_LIES) for _ in range(random_.choice((1, 1, 2)))}
    if random_.random() < 0.2:
        # The same lie wherever the same number stands: a footer that agrees with itself.
        told = random_.choice([token for token in found if token.value == _ROWS] or found)
        lies = {token: 2**20 for token in found if token.value == told.value and token.is_signed}
    return _joined(data, _replaced(footer, lies))


def _lie_in_page(sound: bytes, random_: random.Random) -> bytes:
    """Copy a column chunk to the end with a number of its first page's header replaced, and let the footer point there."""
    data, footer = _split(sound)
    found, _ = tokens(footer)
    by_path = {token.path: token for token in found}
    # FileMetaData.row_groups[i].columns[j].meta_data: 7 is the compressed size, 9 the first data page, 11 the dictionary page.
    column = random_.choice([token.path[:-1] for token in found if len(token.path) == 6 and token.path[-1] == 9])
    size, page = by_path[(*column, 7)], by_path[(*column, 9)]
    dictionary = by_path.get((*column, 11))
    start = min(page.value, dictionary.value) if dictionary is not None else page.value
    chunk = data[start : start + size.value]
    header, _ = tokens(chunk)
    crafted = _replaced(chunk, {random_.choice(header): random_.choice(_LIES)})
    moved = len(data) - start
    lies = {page: page.value + moved, size: len(crafted)}
    if dictionary is not None:
        lies[dictionary] = dictionary.value + moved
    return _joined(data + crafted, _replaced(footer, lies))


def _split(sound: bytes) -> tuple[bytes, bytes]:
    n_bytes = int.from_bytes(sound[-8:-4], "little")
    return sound[: -8 - n_bytes], sound[-8 - n_bytes : -8]


def _joined(data: bytes, footer: bytes) -> bytes:
    return data + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _replaced(content: bytes, lies: dict[Token, int]) -> bytes:
    out, place = bytearray(), 0
    for token in sorted(lies, key=lambda token: token.start):
        lie = lies[token]
        out += content[place : token.start] + (number(lie) if token.is_signed else varint(lie & (2**64 - 1)))
        place = token.end
    return bytes(out + content[place:])


@lru_cache
def _table() -> pa.Table:
    rows = []
    for i in range(_ROWS):
        pixels = np.random.default_rng(i).normal(0.01, 1, _CONTRACT.stamp_shape).astype(np.float32)
        lens = i % 2
        rows.append(
            {
                "task_id": f"task-{i:04d}",
                "region_id": f"region {i // 6}",
                "galaxy_id": f"galaxy {i // 2}" if i % 3 else None,
                "ra": 10.0 + i // 2,
                "dec": -5.0,
                "lens_model": "SIE" if lens else "CONTROL",
                "theta_e_arcsec": 1.25 if lens else 0.0,
                "cutout_ok": 1,
                "psf_fwhm_used_r": 1.2,
                "arc_snr": 12.5 if lens else None,
                BLOB: encode_stamp(pixels, _CONTRACT),
            }
        )
    return pa.Table.from_pylist(rows)


@lru_cache
def _sound(writer: int, *, own: bool = False) -> tuple[bytes, pa.Table]:
    path = _folder() / "sound.parquet"
    if own:
        write_parquet(_table(), path, row_group_size=9)
    else:
        pq.write_table(_table(), path, row_group_size=9, **_WRITERS[writer])
    return path.read_bytes(), _table()


@lru_cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _inspector() -> Inspector:
    if not _INSPECTORS:
        inspector = Inspector()
        atexit.register(inspector.__exit__, None, None, None)
        _INSPECTORS.append(inspector)
    return _INSPECTORS[0]


SUBJECT = Subject(
    name="parquet_fuzz",
    question="a damaged or crafted parquet file is refused by name or read as it was, and crashes nothing but its inspector",
    unit="damaged files",
    goal=100_000,
    case=case,
)
