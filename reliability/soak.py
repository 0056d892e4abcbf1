"""Every long figure that lacks something of its goal, in turn: ``python -m reliability.soak --minutes M``."""

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable

from reliability.__main__ import stopped_in_order, subjects
from reliability.subject import Figure


def soak(seconds: float, run: Callable[[str, float], None]) -> list[Figure]:
    """Give the figures that lack something equal shares of the time; what one leaves over is the others'.

    Parameters
    ----------
    run : callable
        Takes on a subject, by name, and begins no case of it after so many seconds.

    Returns
    -------
    list of Figure
        What those that lacked something have come to.
    """
    end = time.monotonic() + seconds
    lacking = [name for name in subjects() if not _figure(name).is_reached]
    for done, name in enumerate(lacking):
        share = (end - time.monotonic()) / (len(lacking) - done)
        if share > 0:
            run(name, share)
    return [_figure(name) for name in lacking]


def in_a_process_of_its_own(name: str, seconds: float) -> None:
    """Run a subject on from where it stopped; ended with this process, what it reached is kept."""
    with subprocess.Popen([sys.executable, "-m", "reliability", name, "--seconds", f"{seconds:.0f}"]) as process:
        try:
            process.wait()
        finally:
            process.terminate()


def main() -> int:
    """Soak, and say what was reached; 1 if any figure has a failure."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability.soak", description="All that lacks something, in turn."
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="begin no case after so long, of all figures together"
    )
    with stopped_in_order():
        figures = soak(60 * parser.parse_args().minutes, in_a_process_of_its_own)
    print("\n".join(figure.line() for figure in figures) or "every figure has reached its goal")
    return int(any(figure.n_failures for figure in figures))


def _figure(name: str) -> Figure:
    return Figure.of(importlib.import_module(f"reliability.{name}").SUBJECT)


if __name__ == "__main__":
    sys.exit(main())
