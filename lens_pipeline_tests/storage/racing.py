"""Writers on several machines that put their verdicts at the same moment."""

import threading
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lens_pipeline.contracts.checks import green
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.remote import Remote
from lens_pipeline.storage.remote_log import Event


@dataclass(frozen=True)
class Racers:
    """Writers, each with a local folder and a version of its own of one asset."""

    homes: list[Home]
    publications: list[Publication]

    @classmethod
    def at(cls, address: str, folder: Path, n: int) -> "Racers":
        """Let n writers commit a version each; nothing is concluded yet."""
        homes = [Home(folder / f"machine-{i}", Remote.open(address, folder / f"machine-{i}")) for i in range(n)]
        publications = []
        for i, home in enumerate(homes):
            with home.stage("sky", "scores") as staging:
                staging.write_table(None, pa.table({"writer": [i]}))
                publications.append(staging.commit())
        return cls(homes, publications)

    def race(self) -> None:
        """Let all conclude at once; raises the first error of any."""
        start = threading.Barrier(len(self.homes))
        errors: list[BaseException] = []

        def conclude(home: Home, publication: Publication) -> None:
            try:
                start.wait()
                home.conclude(publication, [green("sound", "fine")])
            except BaseException as error:
                errors.append(error)

        threads = [
            threading.Thread(target=conclude, args=pair) for pair in zip(self.homes, self.publications, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    def log(self) -> list[Event]:
        """Read the shelf's log as the first machine sees it."""
        remote = self.homes[0].remote
        assert remote is not None
        return remote.log.events(("sky", "scores", "default"))

    def what_is_wrong(self, before: list[Event]) -> list[str]:
        """Look at the log after a race, given how it was before: empty if every word counts once and the last one wins."""
        after = self.log()
        added = after[len(before) :]
        problems = []
        if after[: len(before)] != before:
            problems.append("a word was put before one that had been said already")
        if sorted(event.version for event in added) != sorted(p.version for p in self.publications):
            problems.append(f"{len(self.publications)} words were said, the log has {len(added)} more")
        if {event.number for event in after} != set(range(1, max(event.number for event in after) + 1)):
            problems.append("numbers are missing")
        current = {home.open("sky", "scores").version for home in (self.homes[0], self.homes[-1])}
        if current != {after[-1].version}:
            problems.append(f"the last word is {after[-1].version}, readers see {sorted(current)}")
        return problems
