"""A survey's own parquet files, found and taken in: each inspected in a process of its own kind, hashed, and read once.

Belongs here: which files there are, what is published of each, and that nothing is read of a file before it was inspected.
What its rows say is for `external_stamps.py` and `external_manifest.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import STAMPS
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few, no_folder
from lens_pipeline.stamps.inspection import Inspection, Inspector
from lens_pipeline.storage.s3_address import is_address
from lens_pipeline.storage.sources import LocalFile, RemoteFile, SourceFile, objects_below, source_file

_BATCH = 16384
_MOST_INSPECTORS = 4
# A process takes most of a second to start: another one is worth it for so many bytes.
_BYTES_PER_INSPECTOR = 256 << 20
_SUFFIX = ".parquet"

Taken = TypeVar("Taken")


@dataclass(frozen=True)
class ExternalFile:
    """One of a survey's own files, as inspected.

    Attributes
    ----------
    size : int
        Bytes.
    """

    source: SourceFile
    size: int
    inspection: Inspection

    def describe(self, schema: int) -> dict[str, Any]:
        """Return what is published of it; `schema` is its place in the list of schemas."""
        described = {
            "path": self.source.name,
            "sha256": self.inspection.sha256,
            "size": self.size,
            "rows": self.inspection.rows,
            "row_groups": list(self.inspection.row_groups),
            "schema": schema,
        }
        return described | ({"etag": self.source.info.etag} if isinstance(self.source, RemoteFile) else {})


def find_files(folder: str) -> list[SourceFile]:
    """List the parquet files of a folder, or the parquet objects directly below an s3:// address, by name.

    Raises
    ------
    ConfigError
        If there is no such folder, or no parquet file in it.
    ContractError
        If the folder or one of its files is a symbolic link.
    """
    if is_address(folder):
        objects = objects_below(folder, _SUFFIX)
        if not objects:
            raise ConfigError(
                f"there is no *{_SUFFIX} object directly below {folder}. Set parent_sample.folder to s3://BUCKET/PREFIX, where "
                f"your files are s3://BUCKET/PREFIX/NAME{_SUFFIX}, and look at AWS_ENDPOINT_URL_S3 if the bucket is elsewhere."
            )
        return list(objects)
    return [LocalFile(path) for path in _local_files(Path(folder).expanduser().absolute())]


def _local_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(
            f"{no_folder(folder)}. Set parent_sample.folder to the folder that holds your parquet files (*.parquet)."
        )
    paths = sorted(folder.glob(f"*{_SUFFIX}"))
    links = [path for path in (folder, *paths) if path.is_symlink()]
    if links:
        raise ContractError(
            f"{first_few(links)} is a symbolic link, which can come to mean other data unseen; {len(links)} were found. Name "
            f"the folder itself, and put the files in it."
        )
    if not paths:
        there = first_few(sorted(path.name for path in folder.iterdir())) or "nothing"
        raise ConfigError(
            f"{folder} holds no *.parquet file; it holds {there}. Set parent_sample.folder to the files' folder."
        )
    return paths


def take_in(
    files: Sequence[SourceFile], contract: DatasetContract, read: Callable[[Path], Taken]
) -> list[tuple[ExternalFile, Taken]]:
    """Inspect every file, hold its columns against the contract STAMPS, and read it: each is opened, or fetched, once.

    The footers of local files are all judged before any of them is read through.

    Parameters
    ----------
    read : callable
        Takes what is wanted out of an inspected file.

    Raises
    ------
    ContractError
        Naming the files that can't be read or don't follow the contract.
    """
    sizes = [source.path.stat().st_size if isinstance(source, LocalFile) else source.info.size for source in files]
    n = min(_MOST_INSPECTORS, len(files), 1 + sum(sizes) // _BYTES_PER_INSPECTOR)

    def look(inspector: Inspector, source: SourceFile) -> None:
        if isinstance(source, LocalFile):
            _check(inspector.footer(source.path), source)

    # The threads stay for both rounds: an inspector's process ends with the thread that started it.
    with ThreadPoolExecutor(n) as threads, ExitStack() as stack:
        inspectors = [stack.enter_context(Inspector()) for _ in range(n)]
        _side_by_side(files, inspectors, threads, look)
        return _side_by_side(files, inspectors, threads, lambda by, source: take_in_one(by, source, contract, read))


def take_in_one(
    inspector: Inspector, source: SourceFile, contract: DatasetContract, read: Callable[[Path], Taken]
) -> tuple[ExternalFile, Taken]:
    """Inspect one file and read it, as `take_in` does.

    Raises
    ------
    ContractError, StorageError
        As `take_in`.
    """
    with source.lend(None) as path:
        is_leased = isinstance(source, RemoteFile)
        inspection = inspector.inspect(path, blob=contract.blob_column, name=source.name, is_leased=is_leased)
        _check(inspection, source)
        assert inspection.sha256 is not None
        if isinstance(source, LocalFile):
            # Only the bytes that were inspected are read: this is still that file.
            source.must_still_be(inspection.identity)
        with naming(source.name):
            taken = read(path)
    if isinstance(source, LocalFile):
        source.vouch(inspection.identity, inspection.sha256)
    return ExternalFile(source, int(inspection.identity[2]), inspection), taken


def _check(inspection: Inspection, source: SourceFile) -> None:
    names = inspection.schema.names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(
            f"{source.name} has more than one column {first_few(repeated)}. Remove or rename the others."
        )
    STAMPS.check_schema(inspection.schema, where=source.name)


def _side_by_side(
    files: Sequence[SourceFile],
    inspectors: Sequence[Inspector],
    threads: ThreadPoolExecutor,
    work: Callable[[Inspector, SourceFile], Taken],
) -> list[Taken]:
    """Share files out to inspectors, a thread each; return what came of them, in order."""
    results: dict[int, Taken] = {}
    problems: dict[int, str] = {}
    waiting, taking = iter(enumerate(files)), Lock()

    def serve(inspector: Inspector) -> None:
        while True:
            with taking:
                number, source = next(waiting, (-1, None))
            if source is None:
                return
            try:
                results[number] = work(inspector, source)
            except ContractError as error:
                problems[number] = str(error)

    for served in [threads.submit(serve, inspector) for inspector in inspectors]:
        served.result()
    if problems:
        first = " | ".join(problems[number] for number in sorted(problems)[:3])
        raise ContractError(
            f"{len(problems)} of {len(files)} files can't be used; nothing was published. First: {first}"
        )
    return [results[number] for number in sorted(results)]


@contextmanager
def lent(published: dict[str, Any]) -> Iterator[Path]:
    """Lend a file that a parent sample lists, with the bytes that were inspected then.

    Raises
    ------
    StorageError
        If it isn't what was published.
    """
    source = source_file(published, published["path"])
    with source.lend(published["sha256"]) as path, naming(source.name):
        yield path


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Say which file it was whose values don't fit.

    Raises
    ------
    ContractError
        Instead of Arrow's own error.
    """
    try:
        yield
    except pa.ArrowException as error:
        raise ContractError(f"{name}: a value doesn't fit its column: {error}. Mend the column in the file.") from error


def stream_rows(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns of an inspected file, those that it has; memory doesn't grow with the file."""
    with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
        there = [name for name in columns if name in file.schema_arrow.names]
        yield from file.iter_batches(batch_size=_BATCH, columns=there, use_threads=False)
