"""What may be left on a disk after the power fails: a log of changes, replayed up to a moment, with what was not flushed lost.

A file's bytes are safe once the file was synced, a name in a folder once the folder was synced, nothing else is. Of what is
not safe, a loss keeps nothing, all names, or any part; names and bytes are lost independently, as no promise of POSIX ties
them. A rename is one change: it is kept or lost whole.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

OPEN, WRITE, SYNC, RENAME, LINK, UNLINK, MKDIR, RMDIR, TRUNCATE, ALLOCATE, CHMOD = range(1, 12)
_RECORD = struct.Struct("<IIIIQQQ")


@dataclass(frozen=True)
class Change:
    """One call that succeeded, as the library logged it."""

    kind: int
    first: str
    second: str
    offset: int
    length: int
    data: bytes


@dataclass(eq=False)
class Node:
    """A file or a folder, whatever its names are. Folders have no bytes."""

    is_folder: bool
    safe: bytes = b""
    pending: list[tuple[str, int, bytes]] = field(default_factory=list)


Entries = dict[tuple[Node, str], Node]
NameChange = list[tuple[Node, str, Node | None]]


@dataclass(frozen=True)
class Loss:
    """Which changes that were not flushed are lost: "everything", "bytes", "bytes to zeros", "nothing", or "any" by a seed."""

    kind: str
    seed: int = 0


def read_log(path: Path) -> Iterator[Change]:
    """Read what the library logged."""
    log, at = path.read_bytes(), 0
    while at < len(log):
        kind, n_first, n_second, n_data, _, offset, length = _RECORD.unpack_from(log, at)
        at += _RECORD.size
        first, second, data = (
            log[at : at + n_first],
            log[at + n_first : at + n_first + n_second],
            log[at + n_first + n_second : at + n_first + n_second + n_data],
        )
        at += n_first + n_second + n_data
        yield Change(kind, first.decode(), second.decode(), offset, length, data)


class Disk:
    """A tree that changes are made to, and what of them is safe."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._top = Node(is_folder=True)
        self._live: Entries = {}
        for path in sorted(root.rglob("*")):
            node = Node(path.is_dir(), b"" if path.is_dir() else path.read_bytes())
            folder, name = self._place(str(path))
            self._live[folder, name] = node
        self._safe: Entries = dict(self._live)
        self._pending: list[NameChange] = []

    def apply(self, change: Change) -> None:
        """Make a change."""
        match change.kind:
            case 1:  # OPEN
                node = self._find(change.first)
                if node is None:
                    self._rename_entries([(*self._place(change.first), Node(is_folder=False))])
                elif change.length:
                    node.pending.append(("cut", 0, b""))
            case 2:  # WRITE
                self._bytes(change.first, ("write", change.offset, change.data))
            case 3:  # SYNC
                self._sync(change.first)
            case 4:  # RENAME
                moved = self._find(change.first)
                self._rename_entries([(*self._place(change.first), None), (*self._place(change.second), moved)])
            case 5:  # LINK
                self._rename_entries([(*self._place(change.second), self._find(change.first))])
            case 6 | 8:  # UNLINK, RMDIR
                self._rename_entries([(*self._place(change.first), None)])
            case 7:  # MKDIR
                self._rename_entries([(*self._place(change.first), Node(is_folder=True))])
            case 9:  # TRUNCATE
                self._bytes(change.first, ("cut", change.length, b""))
            case 10:  # ALLOCATE
                self._bytes(change.first, ("extend", change.offset + change.length, b""))

    def after(self, loss: Loss) -> dict[str, bytes | None]:
        """Return what is there after the power failed: path under the root to bytes, None for a folder."""
        draw = random.Random(loss.seed)
        entries = dict(self._safe)
        for change in self._pending:
            if loss.kind != "everything" and (loss.kind != "any" or draw.random() < 0.5):
                _change(entries, change)
        found: dict[str, bytes | None] = {}
        self._walk(self._top, PurePosixPath(), entries, loss, draw, found)
        return found

    def _walk(
        self,
        folder: Node,
        at: PurePosixPath,
        entries: Entries,
        loss: Loss,
        draw: random.Random,
        found: dict[str, bytes | None],
    ) -> None:
        for (parent, name), node in entries.items():
            if parent is folder:
                path = at / name
                found[str(path)] = None if node.is_folder else _content(node, loss, draw)
                if node.is_folder:
                    self._walk(node, path, entries, loss, draw, found)

    def _place(self, path: str) -> tuple[Node, str]:
        parts = Path(path).relative_to(self.root).parts
        folder = self._top
        for part in parts[:-1]:
            folder = self._live[folder, part]
        return folder, parts[-1]

    def _find(self, path: str) -> Node | None:
        if Path(path) == self.root:
            return self._top
        try:
            return self._live.get(self._place(path))
        except KeyError:
            return None

    def _rename_entries(self, change: NameChange) -> None:
        _change(self._live, change)
        self._pending.append(change)

    def _bytes(self, path: str, piece: tuple[str, int, bytes]) -> None:
        node = self._find(path)
        if node is not None:  # Else it was removed while open: nobody can see its bytes.
            node.pending.append(piece)

    def _sync(self, path: str) -> None:
        node = self._find(path)
        if node is None:
            return
        if not node.is_folder:
            node.safe, node.pending = _content(node, Loss("nothing"), random.Random(0)), []
            return
        for change in [change for change in self._pending if any(folder is node for folder, _, _ in change)]:
            _change(self._safe, change)
            self._pending.remove(change)


def _change(entries: Entries, change: NameChange) -> None:
    for folder, name, node in change:
        if node is None:
            entries.pop((folder, name), None)
        else:
            entries[folder, name] = node


def _content(node: Node, loss: Loss, draw: random.Random) -> bytes:
    content = bytearray(node.safe)
    if loss.kind in ("everything", "bytes"):
        return bytes(content)
    for kind, at, data in node.pending:
        if loss.kind == "any" and draw.random() < 0.5:
            continue
        if kind == "cut":
            del content[at:]
        end = at + len(data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        if kind == "write" and loss.kind != "bytes to zeros":
            kept = draw.randrange(len(data) + 1) if loss.kind == "any" and draw.random() < 0.5 else len(data)
            content[at : at + kept] = data[:kept]
    return bytes(content)
