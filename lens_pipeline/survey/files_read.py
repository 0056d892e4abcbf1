"""Which files a sample was made of: size and SHA-256 of each, so that the sample can be traced to its bytes.

Belongs here: hashing a file once, before it is read, and refusing one that changes until the sample is made.
"""

from collections import Counter
from collections.abc import Callable, Iterable

import pyarrow as pa

from lens_pipeline.contracts.catalogue import IMAGE_FILES
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.sources import Identity, identity_of, lent

# Is told which files are about to be opened.
OnOpen = Callable[[Iterable[str]], None]


class FilesRead:
    """Files that are opened for a sample, by path or s3:// address."""

    def __init__(self) -> None:
        self._sha256: dict[str, str] = {}
        self._identity: dict[str, Identity] = {}
        self._size: dict[str, int] = {}
        self._galaxies: Counter[str] = Counter()

    def see(self, names: Iterable[str]) -> None:
        """Note which files these are, so that a change from now on is seen; for those that are opened before they are hashed.

        Raises
        ------
        StorageError
            If there is no such object, or the server can't be asked.
        OSError
            If there is no such file.
        """
        for name in names:
            if name not in self._identity:
                self._identity[name] = identity_of(name)

    def add(self, names: Iterable[str]) -> None:
        """Hash those that weren't yet, before they are read; an object is hashed where it is fetched to.

        Raises
        ------
        StorageError
            If there is no such object, or it can't be read.
        OSError
            If there is no such file.
        """
        for name in names:
            if name not in self._sha256:
                self.see([name])
                with lent(name) as path:
                    self._size[name], self._sha256[name] = path.stat().st_size, sha256_of(path)

    def count(self, names: Iterable[str]) -> None:
        """Note that a galaxy of the sample was cut out of these files."""
        self._galaxies.update(names)

    def table(self) -> pa.Table:
        """Return IMAGE_FILES, by name.

        Raises
        ------
        StorageError
            If a file was replaced or rewritten since it was first looked at.
        """
        names = self._unchanged()
        columns = {
            "path": names,
            "size_bytes": [self._size[name] for name in names],
            "sha256": [self._sha256[name] for name in names],
            "n_galaxies": [self._galaxies[name] for name in names],
        }
        return pa.table(columns, schema=IMAGE_FILES.schema)

    def entries(self) -> list[dict[str, object]]:
        """Return path, size and SHA-256 of each, by name.

        Raises
        ------
        StorageError
            As `table` does.
        """
        return [{"path": name, "size": self._size[name], "sha256": self._sha256[name]} for name in self._unchanged()]

    def _unchanged(self) -> list[str]:
        names = sorted(self._sha256)
        if changed := [name for name in names if identity_of(name) != self._identity[name]]:
            raise StorageError(
                f"{len(changed):,} of {len(names):,} files changed while they were read: "
                f"{first_few(changed)}. Wait until their writer is done and run again."
            )
        return names
