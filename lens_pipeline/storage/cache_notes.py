"""What is remembered of objects that were read: the hash of the bytes that an ETag stood for, a checksummed note an object."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.s3 import ObjectInfo, ObjectStore

_HASH = 64


@dataclass(frozen=True)
class Notes:
    """Notes in a folder, the newest of each object; another size or ETag is another object."""

    folder: Path

    def recall(self, store: ObjectStore, info: ObjectInfo) -> str | None:
        """SHA-256 of the bytes that this very object was read as before; None if it wasn't."""
        noted = _read(self._path(store, info))
        return noted[2] if noted is not None and noted[:2] == (info.etag, str(info.size)) else None

    def remember(self, store: ObjectStore, info: ObjectInfo, sha256: str) -> None:
        """Note what an object was read as, in place of what it was before."""
        if self.recall(store, info) != sha256:
            self.folder.mkdir(parents=True, exist_ok=True)
            body = json.dumps([info.etag, str(info.size), sha256]).encode()
            write_atomically(self._path(store, info), hashlib.sha256(body).hexdigest().encode() + body)

    def current(self) -> set[str]:
        """SHA-256 of the newest known bytes of every object."""
        return {note[2] for path in self.folder.glob("*") if (note := _read(path)) is not None}

    def name(self, store: ObjectStore, info: ObjectInfo) -> str:
        """Name of an object's note: 64 hexadecimal digits, the same for all of its versions."""
        return hashlib.sha256(f"{store.server.endpoint} {info.address}".encode()).hexdigest()

    def _path(self, store: ObjectStore, info: ObjectInfo) -> Path:
        return self.folder / self.name(store, info)


def _read(path: Path) -> tuple[str, str, str] | None:
    """Return ETag, size and SHA-256; None if nothing was noted, or what was noted is damaged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = content[:_HASH], content[_HASH:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        return None
    etag, size, sha256 = json.loads(body)
    return etag, size, sha256
