"""Stamps that somebody wants scored, out of files and objects of several kinds: each as pixels, or as a refusal with its reason.

Belongs here: which files there are, arrays, npz and parquet; FITS is in `fits_inputs.py`. No input and no row is left out:
one that can't be read whole is one row with a reason. Nothing here is believed of a file before it was looked at.
"""

import glob
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ContractError, StorageError, first_few
from lens_pipeline.scoring.fits_inputs import FitsOptions, InputRefusedError, cube_chunks, read_bands, read_planes
from lens_pipeline.stamps.decode import Decoded, decode_batch, judge_pixels
from lens_pipeline.stamps.inspection import Inspector
from lens_pipeline.stamps.reasons import Quarantine, Reason
from lens_pipeline.storage.s3_address import Address, is_address
from lens_pipeline.storage.sources import LocalFile, addresses_below, lent, size_of

BAND = "{band}"
_ROWS = 256
_LARGEST_NPZ = 64 << 20


@dataclass(frozen=True)
class Refusal:
    """Why there is no score: a name, and what was found."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Offered:
    """Some stamps of one input, in their order in it.

    Attributes
    ----------
    source : str
        The input as it was named.
    rows : list of int or None
        Number of each stamp in the input, from 0; None stands for all of an input that can't be read.
    keys : list of str or None
        The key that the input gives each stamp, where it does.
    refusals : list of Refusal or None
        None where the stamp can be scored.
    stamps : Decoded
        As many places as rows; zero where refused.
    """

    source: str
    rows: list[int | None]
    keys: list[str | None]
    refusals: list[Refusal | None]
    stamps: Decoded


def expand(names: Sequence[str], bands: Sequence[str]) -> list[str]:
    """Replace each name that holds ``*`` by those of the files or objects that are there, with ``{band}`` in the first band.

    A name that nothing matches stays, and is refused when it is read.

    Raises
    ------
    ConfigError, StorageError
        If objects can't be listed.
    """
    found: list[str] = []
    for name in names:
        matches = _matches(name, bands[0]) if "*" in name else []
        found += matches or [name]
    return found


def read_stamps(names: Sequence[str], contract: DatasetContract, options: FitsOptions) -> Iterator[Offered]:
    """Read every stamp of every input, a few hundred at a time.

    Parameters
    ----------
    names : sequence of str
        Paths or s3:// addresses: ``*.fits`` (planes of one stamp, or of many), names with ``{band}`` in them (a FITS file a
        band), ``*.npy`` (band, y, x) or (row, band, y, x), ``*.npz`` (one stamp blob), ``*.parquet`` (blobs in rows).
    contract : DatasetContract
        What the model was trained on: bands and their order, stamp size, pixel scale, unit, columns.
    """
    for name in names:
        try:
            rows = 0
            for offered in _reader_of(name)(name, contract, options):
                rows += len(offered.rows)
                yield offered
            if not rows:
                raise InputRefusedError("no_stamps", "it holds no row")
        except InputRefusedError as refused:
            yield _refused_whole(name, refused.reason, refused.detail, contract)
        except (ContractError, StorageError) as error:
            yield _refused_whole(name, "unreadable", str(error), contract)
        except OSError as error:
            yield _refused_whole(name, "unreadable", error.strerror or str(error), contract)


def judged(
    source: str,
    first_row: int,
    pixels: NDArray[np.float32],
    contract: DatasetContract,
    keys: list[str | None] | None = None,
) -> Offered:
    """Return an input's pixels (n, band, y, x) as what is offered of them."""
    room = Decoded.room_for(len(pixels), contract)
    return _offered(source, first_row, keys or [None] * len(pixels), judge_pixels(pixels, contract, room), room)


def without_pixels(source: str, row: int, key: str, refusal: Refusal, contract: DatasetContract) -> Offered:
    """Return a stamp that there is no use of."""
    return Offered(source, [row], [key], [refusal], Decoded.room_for(1, contract))


def _reader_of(name: str) -> Callable[[str, DatasetContract, FitsOptions], Iterator[Offered]]:
    kinds = {".fits": _read_fits, ".fit": _read_fits, ".npy": _read_npy, ".npz": _read_npz, ".parquet": _read_parquet}
    suffix = Path(name).suffix.lower()
    if suffix not in kinds:
        raise InputRefusedError(
            "unknown_kind", f"its name ends in {suffix!r}; known are {first_few(kinds, len(kinds))}"
        )
    if BAND in name and kinds[suffix] is not _read_fits:
        raise InputRefusedError("unknown_kind", f"a file a band can be FITS only, not {suffix}")
    return kinds[suffix]


def _read_fits(name: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Offered]:
    chunks = read_bands(name, contract, options) if BAND in name else read_planes(name, contract, options)
    for first_row, pixels in chunks:
        yield judged(name, first_row, pixels, contract)


def _read_npy(name: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Offered]:
    with lent(name) as path:
        try:
            # Mapped, never unpickled: an array of objects is refused.
            array = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, EOFError) as error:
            raise InputRefusedError("not_npy", str(error)) from error
        if array.dtype.kind != "f":
            raise InputRefusedError("wrong_dtype", f"an array of {array.dtype}, wanted a float type")
        stamps = array[None] if array.ndim == 3 else array
        if stamps.ndim != 4 or stamps.shape[1] != len(contract.bands):
            wanted = f"(row, {len(contract.bands)}, y, x) or ({len(contract.bands)}, y, x)"
            raise InputRefusedError("wrong_shape", f"an array of shape {array.shape}, wanted {wanted}")
        planes = list(range(len(contract.bands)))
        for first_row, pixels in cube_chunks(stamps, stamps.shape, planes, contract, options):
            yield judged(name, first_row, pixels, contract)


def _read_npz(name: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Offered]:
    if (size := size_of(name)) > _LARGEST_NPZ:
        raise InputRefusedError("too_large", f"{size:,} bytes, {_LARGEST_NPZ:,} is the cap")
    with lent(name) as path:
        blob = path.read_bytes()
    room = Decoded.room_for(1, contract)
    yield _offered(name, 0, [None], decode_batch([blob], contract, room), room)


def _read_parquet(name: str, contract: DatasetContract, options: FitsOptions) -> Iterator[Offered]:
    with lent(name) as path:
        # An object's copy is guarded by the cache, which may give it other links.
        source = None if is_address(name) else LocalFile(path.absolute())
        with Inspector() as inspector:
            found = inspector.inspect(path.absolute(), blob=contract.blob_column, name=name, is_leased=source is None)
        schema = found.schema
        if contract.blob_column not in schema.names:
            there = f"it has {first_few(schema.names, 12)}"
            raise InputRefusedError("no_stamps", f"there is no column {contract.blob_column!r}; {there}")
        if source is not None:
            source.must_still_be(found.identity)
        wanted = (contract.key, contract.quality_column, contract.blob_column)
        start = 0
        with pq.ParquetFile(path, pre_buffer=False) as file:
            columns = [column for column in wanted if column in schema.names]
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False):
                yield _decoded(name, start, batch, contract)
                start += batch.num_rows
        if source is not None:
            source.must_still_be(found.identity)


def _decoded(name: str, start: int, batch: pa.RecordBatch, contract: DatasetContract) -> Offered:
    n, there = batch.num_rows, batch.schema.names
    room = Decoded.room_for(n, contract)
    verdicts = decode_batch(batch.column(contract.blob_column).to_pylist(), contract, room)
    if contract.quality_column in there:
        for row, value in enumerate(batch.column(contract.quality_column).to_pylist()):
            if value != 1:
                verdicts[row] = Quarantine(Reason.CUTOUT_NOT_OK, f"{contract.quality_column} is {value}")
    keys = batch.column(contract.key).to_pylist() if contract.key in there else [None] * n
    return _offered(name, start, [None if key is None else str(key) for key in keys], verdicts, room)


def _offered(
    source: str, first_row: int, keys: list[str | None], verdicts: list[Quarantine | None], room: Decoded
) -> Offered:
    refusals = [None if verdict is None else Refusal(verdict.reason.value, verdict.detail) for verdict in verdicts]
    return Offered(source, list(range(first_row, first_row + len(keys))), keys, refusals, room)


def _refused_whole(name: str, reason: str, detail: str, contract: DatasetContract) -> Offered:
    return Offered(name, [None], [None], [Refusal(reason, detail)], Decoded.room_for(1, contract))


def _matches(template: str, band: str) -> list[str]:
    """Names for each file or object that is there in a band, the band's place left open."""
    if is_address(template):
        template = str(Address.parse(template))
        there = addresses_below(template.partition("*")[0].rpartition("/")[0].replace(BAND, band))
    else:
        there = sorted(glob.glob(template.replace(BAND, band)))
    pattern = "([^/]*)".join(re.escape(part) for part in template.replace(BAND, band).split("*"))
    found = []
    for path in there:
        if stars := re.fullmatch(pattern, path):
            around = template.split("*")
            found.append("".join(before + star for before, star in zip(around, (*stars.groups(), ""), strict=True)))
    return found
