"""Which version of a shelf is current, where nothing can be overwritten: a log of verdicts, an object each.

Every verdict is an object of its own name, so two writers never contend for one: a server whose "create only if it isn't there"
is only nearly exclusive (two of eight concurrent writers are both told yes by OpenStack Swift) loses nobody's word. A name is
``000005-20260102T030405678901Z-green-VERSION-WRITER.json``: writers take the number after the last that they see; those that
took the same one at the same moment are ordered by time, then by the random name of the writer. All readers see one order, the
last word wins, and a listing alone tells what is current.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.s3 import Address, ListingChangedError, ObjectInfo, ObjectStore

Shelf = tuple[str, ...]
_SHELF_PARTS = 3
_LISTINGS = 10
_LARGEST_EVENT = 64 << 20
_NAME = re.compile(r"(\d{6,18})-(\d{8}T\d{12}Z)-(green|red)-([0-9a-f]{16})-([0-9a-f]{8})\.json")


@dataclass(frozen=True, order=True)
class Event:
    """One verdict on one version; events are ordered as they count.

    Attributes
    ----------
    at : str
        UTC by the writer's clock, to the microsecond.
    writer : str
        Random: no two events have the same name.
    """

    number: int
    at: str
    writer: str
    version: str
    passed: bool

    @classmethod
    def after(cls, events: Sequence["Event"], version: str, *, passed: bool) -> "Event":
        """Make the event that follows those that were seen."""
        at = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        number = 1 + max((event.number for event in events), default=0)
        return cls(number=number, at=at, writer=secrets.token_hex(4), version=version, passed=passed)

    @classmethod
    def parse_all(cls, names: Sequence[str], *, where: object) -> list["Event"]:
        """Read the names of a shelf's log, in the order that counts.

        Raises
        ------
        StorageError
            If one isn't the name of an event.
        """
        found = [(name, _NAME.fullmatch(name)) for name in names]
        if odd := [name for name, match in found if match is None]:
            raise StorageError(
                f"{where} holds {len(odd)} objects that are no events of its log: {first_few(odd)}. "
                "What is current can't be told. Look who wrote them, and remove them by hand."
            )
        matches = [match.groups() for _, match in found if match is not None]
        return sorted(
            cls(number=int(number), at=at, writer=writer, version=version, passed=colour == "green")
            for number, at, colour, version, writer in matches
        )

    @property
    def name(self) -> str:
        """Name of its object."""
        colour = "green" if self.passed else "red"
        return f"{self.number:06d}-{self.at}-{colour}-{self.version}-{self.writer}.json"


def current_version(events: Sequence[Event]) -> str | None:
    """Return the version that the log makes current.

    It is the last green one, unless that same version was found red after it: the same content, having passed under other
    settings, is current no more.
    """
    red_since = set()
    for event in reversed(events):
        if event.passed:
            return None if event.version in red_since else event.version
        red_since.add(event.version)
    return None


@dataclass(frozen=True)
class RemoteLog:
    """The logs of all shelves of a home.

    Attributes
    ----------
    top : Address
        A shelf (dataset, asset, model) has its events under ``top/dataset/asset/model/``.
    """

    top: Address
    store: ObjectStore

    def events(self, shelf: Shelf) -> list[Event]:
        """Every verdict on a shelf's versions, in the order that counts."""
        top = self._of(shelf)
        return Event.parse_all([info.address.name for info in listed(self.store, top)], where=top)

    def all_events(self) -> dict[Shelf, list[Event]]:
        """Every verdict in the home."""
        names: dict[Shelf, list[str]] = {}
        for info in listed(self.store, self.top):
            *shelf, name = info.address.key.removeprefix(f"{self.top.key}/").split("/")
            if len(shelf) != _SHELF_PARTS:
                raise StorageError(f"{info.address} is no event of a log. Look who wrote it, and remove it by hand.")
            names.setdefault(tuple(shelf), []).append(name)
        return {shelf: Event.parse_all(found, where=self._of(shelf)) for shelf, found in names.items()}

    def append(self, shelf: Shelf, version: str, verdict: dict[str, Any]) -> Event:
        """Put a verdict at the end of a shelf's log."""
        event = Event.after(self.events(shelf), version, passed=bool(verdict["passed"]))
        content = json.dumps({"version": version, **verdict}, indent=1, sort_keys=True, default=str).encode()
        self.store.create(self._of(shelf) / event.name, content, hashlib.sha256(content).hexdigest())
        return event

    def verdict(self, shelf: Shelf, version: str) -> dict[str, Any] | None:
        """Read the last verdict on a version; None if there is none.

        Raises
        ------
        StorageError
            If it is gone, or isn't what its name says.
        """
        event = next((event for event in reversed(self.events(shelf)) if event.version == version), None)
        if event is None:
            return None
        address = self._of(shelf) / event.name
        content = self.store.read(address, at_most=_LARGEST_EVENT)
        if content is None:
            raise StorageError(f"{address} was listed and is gone. Nothing of ours removes objects: ask who did.")
        verdict: dict[str, Any] = json.loads(content)
        if verdict.pop("version", None) != event.version or verdict.get("passed") != event.passed:
            raise StorageError(f"{address} says something else than its name: it was changed by hand.")
        return verdict

    def _of(self, shelf: Shelf) -> Address:
        address = self.top
        for part in shelf:
            address = address / part
        return address


def listed(store: ObjectStore, top: Address) -> list[ObjectInfo]:
    """List objects, also while others are being added by other writers.

    Raises
    ------
    S3Error
        If the server couldn't be asked, or never gave the same listing twice.
    """
    for _ in range(_LISTINGS - 1):
        with suppress(ListingChangedError):
            return store.list(top)
    return store.list(top)
