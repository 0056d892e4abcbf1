"""The ledgers of a whole training at full size: what they take on disk, and what it takes to prove them.

A case writes the ledgers of 4 ranks in one order of 10.6 million rows, and a process of its own verifies them. The memory
that counts is what that process allocates (RssAnon), watched from outside.
"""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from lens_pipeline.stamps.ledger import Ledger
from lens_pipeline.stamps.orders import Ordering, Shuffled
from lens_pipeline.stamps.pairs import Paired
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.weighted import Repeated, WithReplacement
from reliability.subject import Case, Subject

FULL_SIZE = 10_600_000
WORLD = 4
GLOBAL_BATCH = 256
# Name of the order, epochs.
CASES = (("shuffled", 12), ("repeated", 2), ("with_replacement", 2), ("paired", 2))

_VERIFY = """
import sys
from pathlib import Path
from reliability.ledger_full_size import verified
sys.exit(verified(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])))
"""


def case(number: int, n_rows: int = FULL_SIZE) -> Case:
    """Write the ledgers of one training, and verify them in another process."""
    order, epochs = CASES[number]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n_fed = _train(sampler_of(order, n_rows), epochs, n_rows, folder)
        size = sum(path.stat().st_size for path in folder.iterdir())
        arguments = [order, str(epochs), str(n_rows), str(folder)]
        process = subprocess.Popen([sys.executable, "-c", _VERIFY, *arguments])
        peak, ended = 0.0, 0
        while not ended:
            peak = max(peak, _anonymous_mb(process.pid))
            time.sleep(0.02)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
    return Case(
        problem=None if process.returncode == 0 else f"not green: exit code {process.returncode}",
        n=n_fed,
        largest={
            "bytes a row and epoch": size / n_fed,
            "MB to verify": peak,
            "CPU s to verify 1 M rows": (usage.ru_utime + usage.ru_stime) / n_fed * 1e6,
        },
        counts={"ledgers": WORLD, "epochs": epochs},
    )


def sampler_of(order: str, n_rows: int) -> GlobalSampler:
    """Return the sampler of a case: three groups, or a control for every two injections."""
    rows = np.arange(n_rows)
    ordering: Ordering = Shuffled
    if order == "paired":
        rows = rows[: n_rows // 3 * 3]
        ordering = partial(Paired, control=np.where(rows % 3 == 2, -1, rows // 3 * 3 + 2))
    elif order != "shuffled":
        kind = Repeated if order == "repeated" else WithReplacement
        ordering = partial(kind, group=(rows % 3).astype(np.int8), weights=[1.0, 0.4, 2.5])
    return GlobalSampler(rows, seed=1, global_batch=GLOBAL_BATCH, order=ordering)


def verified(order: str, epochs: int, n_rows: int, folder: Path) -> int:
    """Verify the ledgers in a folder; 0 if the check is green."""
    from lens_pipeline.stamps.ledger_check import verify_ledger

    check = verify_ledger(
        sorted(folder.iterdir()),
        sampler_of(order, n_rows),
        epochs=epochs,
        n_rows=n_rows,
        names=lambda rows: [*map(str, rows)],
    )
    print(check.message())
    return 0 if check.passed else 1


def _train(sampler: GlobalSampler, epochs: int, n_rows: int, folder: Path) -> int:
    ledgers = [Ledger(folder / f"rank-{rank}.ledger", n_rows=n_rows) for rank in range(WORLD)]
    for epoch in range(epochs):
        for step in range(sampler.steps_per_epoch):
            # What rank_slice gives each rank, without drawing the step four times.
            for ledger, part in zip(ledgers, np.array_split(sampler.step(epoch, step), WORLD), strict=True):
                ledger.append(epoch, step, part)
    for ledger in ledgers:
        ledger.close()
    return epochs * sampler.order.n_places


def _anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")), 0.0)


SUBJECT = Subject(
    name="ledger_full_size",
    question="the ledgers of 4 ranks over 10.6 M rows and 12 epochs take at most 4 bytes a row and epoch, and are proven in one "
    "pass in little memory",
    unit="rows fed to a model",
    goal=12 * FULL_SIZE,
    case=case,
    n_cases=len(CASES),
    bounds={"bytes a row and epoch": 4.0, "MB to verify": 1000.0},
)
