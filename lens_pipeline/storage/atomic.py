"""Bytes that are either wholly on disk under their name or not there at all."""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lens_pipeline.contracts.errors import ConfigError, StorageError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HASH_CHUNK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_REFUSED = _FULL | {errno.EIO, errno.EROFS}


def safe_name(name: str, *, what: str) -> str:
    """Return the name if it can be one file or folder and nothing else.

    Raises
    ------
    StorageError
        If it holds a separator, starts with a dot, is empty, longer than 128 characters, or not plain ASCII.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise StorageError(
            f"{name!r} can't be {what}: use 1 to 128 of the characters A-Z a-z 0-9 . _ - and don't start with '.', '_' or '-'."
        )
    return name


def fsync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Make a written file's bytes durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, their entries durable; a folder that is there is left as it is."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in missing:
        fsync_folder(part.parent)


def refuse_unless_new(path: Path, *, what: str) -> None:
    """Refuse a file that a person named for an outcome where it can't be made, before any work is spent on it.

    Parameters
    ----------
    what : str
        What is to be written.

    Raises
    ------
    ConfigError
        If something has that name already, or there is no folder for it.
    """
    if os.path.lexists(path):
        raise ConfigError(f"{path} is there already: name another file for {what}, or remove it.")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"there is no folder {path.absolute().parent} to write {path.name} into.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; other processes and threads that ask for it wait."""
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(what: str, folder: Path, *, stands: str) -> Iterator[None]:
    """Say what a disk's refusal means for a publication.

    Parameters
    ----------
    what : str
        What was being written.
    stands : str
        A sentence that says what readers see.

    Raises
    ------
    StorageError
        In place of an OSError for a full disk, a quota, a disk that fails or can't be written to; others pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        there = next(part for part in (folder, *folder.parents) if part.exists())
        free = f"{shutil.disk_usage(there).free / 1e9:.2f} GB left"
        mend = f"Free some space ({free})" if error.errno in _FULL else f"Look after the disk ({free})"
        raise StorageError(
            f"{what} could not be written to {folder}: {os.strerror(error.errno)}. {stands} {mend} and materialize it again."
        ) from error


@contextmanager
def appearing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that gets its name when all is written and durable; after an error there is no trace of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def remove_temporaries(folder: Path) -> None:
    """Remove what `appearing` left in a folder whose writers were killed; a living one's is let be."""
    for temporary in folder.glob(".*.tmp"):
        writer = temporary.name.split(".")[-2].split("-")[0]
        if not Path(f"/proc/{writer}").exists():
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old bytes or the new ones, never a part.

    Raises
    ------
    OSError
        If the disk refuses; the old file stands and no temporary file is left.
    """
    with appearing(path) as file:
        file.write(content)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_HASH_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
