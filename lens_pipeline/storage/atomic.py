"""Bytes that are either wholly on disk under their name or not there at all."""

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path

from lens_pipeline.contracts.errors import StorageError

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HASH_CHUNK = 1 << 20


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


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash at any moment, sees the old bytes or the new ones, never a part.

    Raises
    ------
    OSError
        If the disk refuses; the old file stands and no temporary file is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    fsync_folder(path.parent)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_HASH_CHUNK):
            digest.update(piece)
    return digest.hexdigest()
