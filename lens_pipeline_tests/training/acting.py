"""Plays torchrun with one rank, without torch: does in each attempt what the run's plan.json says, in the order of attempts."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.checkpoint import Progress, checkpoint_name, write_checkpoint
from lens_pipeline.training.failures import RankFailure
from lens_pipeline.training.folder import STOPPED_STATUS, HistoryWriter, RunFolder
from lens_pipeline.training.processes import ATTEMPT
from lens_pipeline.training.spec import RunSpec


def command(config: Any, specification: Path, attempt: Path) -> list[str]:
    """Build the command that takes the place of torchrun's."""
    del config, attempt
    return ["/usr/bin/env", "RANK=0", sys.executable, "-m", "lens_pipeline_tests.training.acting", str(specification)]


def plan(folder: RunFolder, *parts: str) -> None:
    """Say what each attempt does."""
    (folder.path / "plan.json").write_text(json.dumps(parts))


class Actor:
    """One attempt."""

    def __init__(self, specification: Path) -> None:
        self.folder, self.attempt = RunFolder(specification.parent), Path(os.environ[ATTEMPT])
        self.spec = RunSpec.read(specification)
        self.history = HistoryWriter(self.folder.history, self.attempt.name)
        self.folder.beat(self.attempt, 0)
        self.folder.beat(self.attempt, 1)

    def end(self) -> None:
        """Train to the end."""
        self.history.write("run_started", ranks=2, train_rows=1, epochs=1, resumed_from=None)
        self.checkpoint(Progress(epoch=1, best_epoch=0, best_value=0.5, history=[{}], ended="all epochs were trained"))

    def gain(self) -> NoReturn:
        """Write the checkpoint after the last one, and be killed."""
        names = [path.stem for path in self.folder.checkpoints.glob("*.json")]
        self.checkpoint(Progress(step=1 + max((int(name.removeprefix("step-")) for name in names), default=0)))
        self.kill()

    def kill(self) -> NoReturn:
        """Be killed."""
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    def hang(self) -> None:
        """Wait for ever."""
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        self.wait_for_what_never_comes()

    def wait_for_what_never_comes(self) -> None:
        """Stand in the stack."""
        time.sleep(1000)

    def halt(self) -> None:
        """Be stopped."""
        os.kill(os.getpid(), signal.SIGSTOP)

    def refuse(self) -> NoReturn:
        """Fail with an error of ours."""
        self.fail(TrainingError("the loss on rank 0 is nan"))

    def crash(self) -> NoReturn:
        """Fail with another error."""
        self.fail(RuntimeError("the driver said no"))

    def refuse_beside_one_that_leaves(self) -> NoReturn:
        """Fail with an error of ours in one rank, while torchrun asks the other to stop."""
        self.history.write("stopped", why="asked to", epoch=0, step=7)
        self.refuse()

    def crash_elsewhere(self) -> NoReturn:
        """Fail with another error, at a later step."""
        self.fail(RuntimeError("the driver said no"), step=5)

    def fail(self, error: Exception, step: int = 4) -> NoReturn:
        """Leave word of an error."""
        try:
            raise error
        except Exception as raised:
            RankFailure.of(raised, rank=0, epoch=1, step=step).write(self.attempt)
        raise SystemExit(1)

    def leave(self) -> NoReturn:
        """Do as ranks that a SIGTERM reached."""
        self.checkpoint(Progress(epoch=0, step=7))
        self.history.write("stopped", why="SIGTERM", epoch=0, step=7)
        raise SystemExit(STOPPED_STATUS)

    def work(self) -> NoReturn:
        """Get on until a SIGTERM comes."""
        signal.signal(signal.SIGTERM, lambda *_: self.leave())
        self.go_on()

    def ignore(self) -> NoReturn:
        """Get on, deaf to SIGTERM, beside a child in a session of its own."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        self.go_on()

    def go_on(self) -> NoReturn:
        """Take steps for ever."""
        self.history.write("step", epoch=0, step=1, epochs=1, steps_per_epoch=9, loss=0.5, stamps_per_second=1.0)
        while True:
            for rank in (0, 1):
                self.folder.beat(self.attempt, rank)
            time.sleep(0.05)

    def checkpoint(self, progress: Progress) -> None:
        """Write a checkpoint."""
        name = checkpoint_name(100 * progress.epoch + progress.step)
        run = self.spec.sha256()
        parts = {"model": b"m", "optimizer": b"o"}
        allowed = self.folder.refuse_superseded
        write_checkpoint(
            self.folder.checkpoints, name, run=run, about={}, progress=progress, parts=parts, kept=2, allowed=allowed
        )


if __name__ == "__main__":
    actor = Actor(Path(sys.argv[1]))
    parts = json.loads((actor.folder.path / "plan.json").read_text())
    getattr(actor, parts[int(actor.attempt.name) - 1])()
