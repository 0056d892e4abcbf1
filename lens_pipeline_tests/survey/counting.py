"""A task for the engines: squares numbers, and fails where it is told to."""

import os
import time
from collections.abc import Callable
from typing import Any


def worker(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def square(job: dict[str, Any]) -> dict[str, Any]:
        if job["number"] == settings.get("fails_at"):
            raise ValueError("told to")
        time.sleep(job.get("sleep", 0))
        return {"square": job["number"] ** 2, "process": os.getpid(), "padding": len(job.get("padding", ""))}

    return square
