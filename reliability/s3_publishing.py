"""Publishing at an s3:// address under faults: the proxy of `s3_faults` between the pipeline and the server.

A case is one fault and one seed over one publication and one reader of it, a tenth of the requests hit. The server checks what it
is sent, as Amazon's and Swift do. Faults that stand for another person who overwrites or removes what is published are left out:
they are met by refusing (lens_pipeline_tests/storage/test_remote.py).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lens_pipeline.contracts.checks import green
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.remote import Remote
from lens_pipeline.storage.s3 import Address, ObjectStore, S3Error
from reliability.s3_faults import BUCKET, NAMES, Bench, bench, plan_of
from reliability.subject import Case, Subject

_VANDALS = {"replaced_before_get", "replaced_while_read", "deleted_before_get", "another_writer_was_first"}
FAULTS = tuple(name for name in NAMES if name not in _VANDALS)
SEEDS = 25
_BEFORE, _NOW = 1, 2


def case(number: int) -> Case:
    """Publish over an older version under one fault and one seed, read under it, and look what is there without it."""
    name, seed = FAULTS[number % len(FAULTS)], number // len(FAULTS)
    with tempfile.TemporaryDirectory(prefix="s3-publishing-") as folder:
        return _Shelf(bench(), Address(BUCKET, f"publishing-{name}-{seed}"), Path(folder)).tried(name, seed)


@dataclass
class _Shelf:
    bench: Bench
    root: Address
    folder: Path

    def tried(self, name: str, seed: int) -> Case:
        calm = ObjectStore(self.bench.store.server)
        self._without_faults()
        _publish(self._machine("writer", calm), _BEFORE)
        self.bench.proxy.begin(plan_of(name, seed), f"{name}:{seed}", strict=True)
        error, problem, counts = None, None, {}
        try:
            _publish(self._machine("writer", self.bench.store), _NOW)
        except S3Error as caught:
            error = caught
        try:
            if (read := _read(self._machine("reader", self.bench.store))) not in (_BEFORE, _NOW) or (
                error is None and read != _NOW
            ):
                problem = f"a reader under the fault saw {read}"
        except S3Error:
            counts["readers with a typed error"] = 1
        n_hit = sum(fault is not None for _, fault in self.bench.proxy.asked)
        self._without_faults()
        seen = _read(self._machine("fresh", calm))
        if error is None and seen != _NOW:
            problem = f"it said published, readers see {seen}"
        _publish(self._machine("writer", calm), _NOW)
        if _read(self._machine("fresher", calm)) != _NOW:
            problem = "a rerun did not finish it"
        counts |= {
            "published": int(error is None),
            "typed errors, the old version stands": int(error is not None and seen == _BEFORE),
            "typed errors, though the last word had arrived": int(error is not None and seen == _NOW),
            "requests hit": n_hit,
        }
        return Case(problem and f"{name}, seed {seed}: {problem}", counts=counts)

    def _machine(self, name: str, store: ObjectStore) -> Home:
        return Home(self.folder / name, Remote(self.root, self.folder / name, store))

    def _without_faults(self) -> None:
        self.bench.proxy.begin(lambda asked: None)


def _publish(home: Home, n: int) -> None:
    with home.stage("sky", "scores") as staging:
        staging.write_table(None, pa.table({"n": [n]}))
        staging.write_bytes("pixels", bytes([n]) * 20_000)
        publication = staging.commit()
    home.conclude(publication, [green("sound", "fine")])


def _read(home: Home) -> int:
    """Read the current version whole, and return its number; -1 if its files don't belong together."""
    publication = home.open("sky", "scores")
    [n] = publication.read_table()["n"].to_pylist()
    return int(n) if publication.path("pixels").read_bytes() == bytes([n]) * 20_000 else -1


SUBJECT = Subject(
    name="s3_publishing",
    question="Under any fault on the way to S3 a version is published whole, or a typed error says that the old one stands.",
    unit="publications under faults",
    goal=1_000,
    case=case,
    n_cases=len(FAULTS) * SEEDS,
)
