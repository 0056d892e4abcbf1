"""Which version of a shelf is current, where nothing can be overwritten: a log of verdicts, an object each.

Every verdict is an object of its own name, so two writers never contend for one: a server whose "create only if it isn't there"
is only nearly exclusive (two of eight concurrent writers are both told yes by OpenStack Swift) loses nobody's word. A name is
``000005-20260102T030405678901Z-green-VERSION-WRITER.json``: writers take the number after the last that they see; those that
took the same one at the same moment are ordered by time, then by the random name of the writer. All readers see one order, the
last word wins, and a listing alone tells what is current.
"""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lens_pipeline.contracts.errors import StorageError, first_few

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

    def content(self, verdict: dict[str, object]) -> bytes:
        """Bytes of its object."""
        return json.dumps({"version": self.version, **verdict}, indent=1, sort_keys=True, default=str).encode()


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


def last_event(events: Sequence[Event], version: str) -> Event | None:
    """Return the last word on a version."""
    return next((event for event in reversed(events) if event.version == version), None)
