"""Starting the process that computes with a trained model, and hearing what became of it. Imports no torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.training.processes import compute_environment, start, wait

REFUSED = 3
_LOG_LINES = 15


def compute(job: str, run: dict[str, Any], folder: Path) -> None:
    """Run one job of `worker.py` in a process of its own, which leaves its results in the folder.

    Parameters
    ----------
    job : str
        ``score``, ``export`` or ``predict``.
    run : dict
        What it reads from the folder's run.json.

    Raises
    ------
    ScoringError
        With the process's own refusal, or the last lines of its log.
    """
    path, log = folder / "run.json", folder / "log"
    path.write_text(json.dumps(run))
    command = [sys.executable, "-m", "lens_pipeline.scoring", job, str(path)]
    process: subprocess.Popen[bytes] = start(command, compute_environment(1), log)
    code = wait(process)
    if code == REFUSED:
        raise ScoringError(json.loads((folder / "refusal.json").read_bytes())["message"])
    if code != 0:
        last = "\n".join(log.read_text(errors="replace").rstrip().splitlines()[-_LOG_LINES:])
        raise ScoringError(f"the process that computes ended with code {code}; the last lines of its log:\n{last}")
