"""A thread that keeps MLflow told while a training runs; the training, and the step that waits for it, never wait for MLflow."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lens_pipeline.defs.mlflow_runs import MlflowRun, Record
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.history import is_held

# How long the end of a step waits for MLflow to take the last events; what it doesn't take then is told by a later step.
PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 60.0


class Mirror:
    """Tells MLflow of one run until it is closed, again and again after failures, with pauses that double up to a minute.

    Parameters
    ----------
    folder : Path
        Of the run.
    earlier : sequence of Path
        Folders of other runs that MLflow lacks something of; told once it answers.
    afterwards : callable, optional
        Called with the run once, after the first success.
    pause : float
        Seconds between looks at the history.
    """

    def __init__(
        self,
        folder: Path,
        *,
        earlier: Sequence[Path] = (),
        afterwards: Callable[[MlflowRun], None] | None = None,
        pause: float = _PAUSE_SECONDS,
    ) -> None:
        self.run = MlflowRun(folder)
        self._earlier, self._afterwards, self._pause = list(earlier), afterwards, pause
        self._closing = threading.Event()
        self._words: list[str] = []
        self.cpu_seconds = 0.0
        # A daemon: a server that hangs must not keep the process alive.
        self._thread = threading.Thread(target=self._tell, name="mlflow", daemon=True)
        self._thread.start()

    def words(self) -> list[str]:
        """Return what is to be said to people since the last call; the thread itself doesn't log."""
        said, self._words = self._words, []
        return said

    def close(self, patience: float = PATIENCE_SECONDS) -> bool:
        """Tell the rest once more, waiting at most so many seconds. Returns whether MLflow knows everything."""
        self._closing.set()
        self._thread.join(patience)
        if self.run.is_told:
            return True
        self._words.append(
            "MLflow was not told everything; nothing is lost: the next materialization of lens_classifier tells it the rest"
        )
        return False

    def _tell(self) -> None:
        failures = 0
        while True:
            # Asked before the telling: what was written before the closing is told after it.
            last = self._closing.is_set()
            try:
                self.run.sync()
                if failures:
                    self._words.append("MLflow answers again and has been told what it missed")
                failures = 0
                self._tell_of_others()
            except Exception as error:
                # Whatever a server, its database or its client may do: a training does not fail of it.
                failures += 1
                if failures == 1:
                    self._words.append(
                        f"MLflow can't be reached, the training goes on and it is told later: {_short(error)}"
                    )
            self.cpu_seconds = time.thread_time()
            if last:
                return
            self._closing.wait(min(self._pause * 2**failures, _LONGEST_PAUSE_SECONDS))

    def _tell_of_others(self) -> None:
        if self._afterwards is not None:
            self._afterwards(self.run)
            self._afterwards = None
        while self._earlier:
            folder = self._earlier.pop(0)
            record = Record.read(folder)
            if record is None or is_held(RunFolder(folder).lock):
                continue
            if record.status == "RUNNING":
                # Nobody is at work there, and it was never ended: its step was killed.
                record.status = "KILLED"
                record.write(folder)
            try:
                MlflowRun(folder).sync()
            except Exception as error:
                # Perhaps it was tracked on a server that is no more; the next training tries again.
                self._words.append(f"MLflow still lacks a part of the training {folder.name}: {_short(error)}")
            else:
                self._words.append(f"MLflow was told the rest of the training {folder.name}")


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + " ..."
