"""A shuffled epoch into batches of 256, page cache warm: our loader against other readers of the same float16 stamps.

Every reader runs in a process of its own, with the interpreter that has it (`make peers`), and takes turns with ours; wall
clock. A reader that isn't there, or fails, is named with the reason in results/absent/ and on the page.
"""

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness import RESULTS, Result, summarise
from benchmarks.peers import READERS
from benchmarks.synthetic import publish
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home

ROOT = Path(__file__).parent.parent
ABSENT = RESULTS / "absent"
OUR_THREADS = 2
_ANSWER_S = 120.0
_LEAST_S = 0.3


class Opponent(NamedTuple):
    """A reader to measure against: its interpreter, how many times faster we want to be, and the workers it may use."""

    name: str
    interpreter: Path
    goal: float
    workers: tuple[int, ...] = (0, 2)


_PEERS = ROOT / ".venv-peers" / "bin" / "python"
OPPONENTS = (
    Opponent("dataloader", Path(sys.executable), 5, workers=(2,)),
    Opponent("hf_datasets", _PEERS, 20),
    Opponent("webdataset", _PEERS, 30),
    Opponent("mds", ROOT / ".venv-mds" / "bin" / "python", 30),
    Opponent("litdata", _PEERS, 8),
    Opponent("lance", _PEERS, 8),
    Opponent("tensorstore", _PEERS, 8),
    Opponent("dali", _PEERS, 4),
    Opponent("ffcv", ROOT / ".venv-ffcv" / "bin" / "python", 1.5),
)


class AbsentError(Exception):
    """A reader can't be measured, and why."""


class Side:
    """A process that runs epochs when asked."""

    def __init__(self, command: list[str], expected: float, n: int) -> None:
        self._expected, self._n = expected, n
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the side)
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=ROOT
            )
        except FileNotFoundError as error:
            raise AbsentError(f"{Path(command[0]).relative_to(ROOT)} is not there: run make peers") from error
        self._epoch = 0
        try:
            self.version: str = self._answer()["reader"]
            self.rate()
        except AbsentError:
            self.close()
            raise

    def rate(self) -> float:
        """Stamps a second over as many epochs as take a while."""
        rows, seconds = 0, 0.0
        while seconds < _LEAST_S:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{self._epoch}\n")
            self._process.stdin.flush()
            self._epoch += 1
            said = self._answer()
            if said["rows"] != self._n or abs(said["sum"] - self._expected) > 1e-6 * self._n:
                raise AbsentError(
                    f"an epoch gave {said['rows']} rows of {self._n}, of sum {said['sum']}, not {self._expected}"
                )
            rows, seconds = rows + said["rows"], seconds + said["seconds"]
        return rows / seconds

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        while True:
            assert self._process.stdout is not None
            if not select.select([self._process.stdout], [], [], _ANSWER_S)[0]:
                raise AbsentError(f"no answer in {_ANSWER_S:.0f} s")
            line = self._process.stdout.readline()
            if not line:
                self._errors.seek(0)
                said = [text for text in self._errors.read().splitlines() if text.strip()]
                raise AbsentError(said[-1].strip() if said else "it ended without a word")
            if line.startswith("{"):  # Some readers talk on standard output.
                return json.loads(line)


def run(quick: bool) -> list[Result]:
    n, rounds = (512, 2) if quick else (16_384, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = _write(folder, n)
        with _ours(folder, OUR_THREADS, expected, n) as ours, _ours(folder, 1, expected, n) as alone:
            rates = [(ours.rate(), alone.rate()) for _ in range(rounds)]
            results = [
                summarise("epoch_two_threads_to_one", [two / one for two, one in rates], goal=None, n=n,
                          against=f"ours with one thread, {np.median([one for _, one in rates]):,.0f} stamps/s"),
            ]  # fmt: skip
            for opponent in OPPONENTS:
                try:
                    results.append(_compare(opponent, ours, folder, expected, n, rounds))
                    why = None
                except AbsentError as reason:
                    why = str(reason)
                _note(opponent, why, quick)
    return results


def _compare(opponent: Opponent, ours: Side, folder: Path, expected: float, n: int, rounds: int) -> Result:
    """Measure each number of workers that it may use, and compare with the fastest."""
    found: dict[int, tuple[list[float], list[float], str]] = {}
    refused: dict[int, str] = {}
    for workers in opponent.workers:
        command = [str(opponent.interpreter), "-m", "benchmarks.peers", opponent.name, str(folder), str(workers)]
        try:
            theirs = Side(command, expected, n)
        except AbsentError as reason:
            refused[workers] = str(reason)
            continue
        try:
            pairs = [
                (ours.rate(), theirs.rate()) if turn % 2 else (theirs.rate(), ours.rate())[::-1]
                for turn in range(rounds)
            ]
        except AbsentError as reason:
            refused[workers] = str(reason)
            continue
        finally:
            theirs.close()
        found[workers] = ([our / their for our, their in pairs], [their for _, their in pairs], theirs.version)
    if not found:
        raise AbsentError("; ".join(dict.fromkeys(refused.values())))
    best = max(found, key=lambda workers: float(np.median(found[workers][1])))
    ratios, rates, version = found[best]
    said = f"{version}, {best} workers" + (", its faster way" if len(found) > 1 else "")
    said += "".join(f"; {workers} workers failed: {why[:80]}" for workers, why in refused.items())
    return summarise(
        f"epoch_over_{opponent.name}",
        ratios,
        against=f"{said}: {np.median(rates):,.0f} stamps/s",
        goal=opponent.goal,
        n=n,
    )


def _note(opponent: Opponent, why: str | None, quick: bool) -> None:
    """Keep the reason why a reader wasn't measured, what its installation said before all; or forget an earlier one."""
    path = ABSENT / f"{opponent.name}.json"
    if why is not None:
        log = opponent.interpreter.parent.parent / "install.log"
        package = READERS[opponent.name].package
        if log.exists() and "rror" in (said := log.read_text()):
            told = [line.strip() for line in said.splitlines() if "rror:" in line]
            why = f"it did not install: {told[-1] if told else said[-200:]}"
        print(f"{opponent.name}: not measured: {why}", flush=True)
        if not quick:
            ABSENT.mkdir(parents=True, exist_ok=True)
            content = {"reader": opponent.name, "package": package, "goal": opponent.goal, "why": why}
            path.write_text(json.dumps(content, indent=1) + "\n")
            (RESULTS / f"epoch_over_{opponent.name}.json").unlink(missing_ok=True)
    elif not quick:
        path.unlink(missing_ok=True)


@contextmanager
def _ours(folder: Path, threads: int, expected: float, n: int) -> Iterator[Side]:
    command = [sys.executable, "-m", "benchmarks.our_reader", str(folder / "home"), str(threads)]
    side = Side(command, expected, n)
    try:
        yield side
    finally:
        side.close()


def _write(folder: Path, n: int) -> float:
    """Publish a store, write its stamps as one array for the others, and return the sum over every stamp's first pixel."""
    home = Home(folder / "home")
    stamps = publish(home, n)
    with home.stage("bench", "stamp_store", inputs=[stamps]) as staging:
        build_store(StoreConfig.model_validate({}), stamps, staging)
        publication = staging.commit()
    home.conclude(publication, [])
    pixels = StampStore.open(publication).take(np.arange(n)).pixels
    np.save(folder / "stamps.npy", pixels)
    return float(pixels[:, 0, 0, 0].sum(dtype=np.float64))
