"""Objects on an S3 server, read whole and verified, and written once.

A ranged read isn't checksummed, a short body of consistent length is silent, and a list can lose a page: here every object is
read whole and hashed by us, every list is taken twice, and every write is create-only, so that nothing published is ever
changed under a reader.
"""

import contextlib
import os
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

from lens_pipeline.storage.atomic import appearing
from lens_pipeline.storage.s3_address import Address, ObjectInfo, is_address
from lens_pipeline.storage.s3_attempts import (
    AccessError,
    Attempts,
    DamagedError,
    ListingChangedError,
    ObjectChangedError,
    Patience,
    S3Error,
)
from lens_pipeline.storage.s3_client import Server, connect
from lens_pipeline.storage.s3_listing import list_once
from lens_pipeline.storage.s3_reading import Expected, etag_of, present, read_verified
from lens_pipeline.storage.s3_writing import examine, put

__all__ = [
    "AccessError",
    "Address",
    "ListingChangedError",
    "ObjectChangedError",
    "ObjectInfo",
    "ObjectStore",
    "Patience",
    "S3Error",
    "is_address",
]

_LARGEST_PUT = 5 << 30
# Above this size it is worth a request to learn that an object is there already, before sending it for nothing.
_LOOK_FIRST = 8 << 20
# Listings are taken with pages of other sizes by turns: a page that gets lost both times leaves other gaps.
_PAGES = (1000, 750, 1000, 750)


class ObjectStore:
    """One S3 server. Threads may share it; a forked or spawned process makes its own connections.

    Attributes
    ----------
    requests : int
        Requests sent so far by this process.
    """

    def __init__(self, server: Server, patience: Patience | None = None) -> None:
        self.server = server
        self.patience = patience or Patience()
        self.requests = 0
        self._clients: dict[int, Any] = {}
        self._locks: dict[int, threading.Lock] = {}

    @classmethod
    def from_environment(cls, patience: Patience | None = None) -> "ObjectStore":
        """Server and credentials that the environment names: AWS_ENDPOINT_URL_S3, AWS_REGION, AWS_ACCESS_KEY_ID ...

        Raises
        ------
        ConfigError
            If a variable is missing or isn't safe.
        """
        return cls(Server.from_environment(), patience)

    def __repr__(self) -> str:
        return f"ObjectStore({self.server.endpoint or 'Amazon S3'})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}, "_locks": {}, "requests": 0}

    def list(self, prefix: Address) -> list[ObjectInfo]:
        """Return every object below a prefix, sorted by key; empty if there are none.

        Folder markers (empty objects whose key ends with a slash, as consoles make them) are no data and are left out.

        Raises
        ------
        S3Error
            If pages are torn or repeat a key, if two listings in a row never agree, or a key can't be an address.
        """
        before: list[ObjectInfo] | None = None
        for page in _PAGES:
            found = list_once(self._client(), prefix, self.patience, page=page)
            if found == before:
                return found
            before = found
        raise Attempts("listing", prefix, self.patience).error(
            f"{len(_PAGES)} listings in a row differed",
            "Somebody is writing there: try again when they are done",
            ListingChangedError,
        )

    def head(self, address: Address) -> ObjectInfo | None:
        """Ask for an object's size and ETag; None if it isn't there."""
        return self._head(Attempts("looking for", address, self.patience))

    def download(self, info: ObjectInfo, path: Path, *, sha256: str | None = None) -> str:
        """Read an object whole into a file, which appears complete and durable or not at all.

        Without a SHA-256 to hold against it, the size must be the listed one and the MD5 the ETag; where the server says
        nothing of the content (an object uploaded in parts), two reads must agree.

        Parameters
        ----------
        path : Path
            Replaced if it exists.

        Returns
        -------
        str
            SHA-256 of what was written.

        Raises
        ------
        ObjectChangedError
            If the object is gone or isn't the listed one.
        S3Error
            If it couldn't be read, or reads as other bytes than it should.
        """
        attempts = Attempts("reading", info.address, self.patience)
        with appearing(path) as file:
            got = read_verified(self._client(), attempts, file, Expected(info=info, sha256=sha256), info.size)
            if got is None:
                raise attempts.error("it is gone", "List its folder again", ObjectChangedError)
        return got.sha256

    def fetch(self, address: Address, path: Path | None, *, size: int, sha256: str) -> None:
        """Read an object whose bytes are known by their hash.

        Parameters
        ----------
        path : Path, optional
            Replaced if it exists, and appears complete and durable or not at all; without it the object is only looked at.

        Raises
        ------
        ObjectChangedError
            If it is gone, or reads as other bytes.
        S3Error
            If it is larger, or couldn't be read.
        """
        attempts, expected = Attempts("reading", address, self.patience), Expected(sha256=sha256, at_most=size)
        with contextlib.nullcontext() if path is None else appearing(path) as file:
            if read_verified(self._client(), attempts, file, expected, size) is None:
                raise attempts.error(
                    "it was published and is gone",
                    "Ask who removed it, or materialize its asset again to put the same bytes back",
                    ObjectChangedError,
                )

    def read(self, address: Address, *, at_most: int, sha256: str | None = None) -> bytes | None:
        """Read a small object into memory; None if it isn't there.

        Raises
        ------
        S3Error
            If it is larger than `at_most` bytes, couldn't be read, or reads as other bytes than it should.
        """
        content = BytesIO()
        attempts = Attempts("reading", address, self.patience)
        got = read_verified(self._client(), attempts, content, Expected(sha256=sha256, at_most=at_most), at_most)
        return None if got is None else content.getvalue()

    def create(self, address: Address, content: bytes | Path, sha256: str) -> bool:
        """Write an object that nobody has written before.

        Parameters
        ----------
        sha256 : str
            Of the content: a file that isn't what it was is not published.

        Returns
        -------
        bool
            True if this call made it; False if it was there with exactly these bytes, which is also the answer where a write
            succeeded and its answer was lost. Some servers (OpenStack Swift) are only nearly exclusive: of writers within
            the same moment more than one may be told True, and the last one's bytes stay.

        Raises
        ------
        StorageError
            If other bytes are there, the content isn't what the hash says, or the server couldn't be asked.
        """
        attempts = Attempts("writing", address, self.patience)
        size, md5 = examine(content, sha256)
        if size > _LARGEST_PUT:
            raise attempts.error(f"it has {size:,} bytes, {_LARGEST_PUT:,} are the most", "Write smaller files")
        there, made = size > _LOOK_FIRST and self._head(attempts) is not None, False
        while True:
            if not there:
                etag = attempts.ask(lambda: put(self._client(), address, content, size, md5), n_bytes=size)
                if etag == md5.hex():
                    return True
                made = etag is not None
            # Somebody was first, or the answer doesn't prove what the server holds: what is there is read and compared.
            if self._holds(attempts, size, sha256):
                return made
            there = False

    def _client(self) -> Any:
        # What a parent process opened or holds can't be shared with it: each process has its own, made by one of its threads.
        pid = os.getpid()
        with self._locks.setdefault(pid, threading.Lock()):
            if pid not in self._clients:
                patience = self.patience
                self._clients[pid] = connect(
                    self.server, connect_s=patience.connect_s, read_s=patience.read_s, count=self._count
                )
        return self._clients[pid]

    def _count(self) -> None:
        self.requests += 1

    def _head(self, attempts: Attempts) -> ObjectInfo | None:
        address = attempts.address

        def send() -> ObjectInfo | None:
            answer = present(self._client().head_object, address)
            if answer is None:
                return None
            if "ContentLength" not in answer or not etag_of(answer):
                raise DamagedError("an answer without length or ETag")
            return ObjectInfo(address, int(answer["ContentLength"]), etag_of(answer))

        return attempts.ask(send)

    def _holds(self, attempts: Attempts, size: int, sha256: str) -> bool:
        """Whether the object that is there has these bytes; False if none is there after all."""
        try:
            got = read_verified(self._client(), attempts, None, Expected(sha256=sha256), size)
        except ObjectChangedError:
            raise attempts.error(
                "other bytes are there, and what is published is never overwritten",
                "Look who wrote them; remove that object by hand if it isn't wanted",
            ) from None
        return got is not None
