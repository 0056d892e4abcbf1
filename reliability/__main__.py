"""Take long figures: ``python -m reliability SUBJECT [--cases N] [--seconds S] [--only CASE]``; stop it at any time."""

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import reliability
from reliability.page import write_page
from reliability.subject import Subject, take


def subjects() -> list[str]:
    """Names of the modules in this folder that try something."""
    return [name for name in _modules() if _subject(name)]


def _modules() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(reliability.__path__))
    return sorted(name for name in names if not name.startswith("_"))


def _subject(name: str) -> Subject | None:
    return getattr(importlib.import_module(f"reliability.{name}"), "SUBJECT", None)


@contextmanager
def stopped_in_order() -> Iterator[None]:
    """Let SIGTERM end this process as an exit does, so that what was reached is kept; its children it ends as ever."""
    process = os.getpid()

    def stop(number: int, _: Any) -> None:
        if os.getpid() == process:
            sys.exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    """Run one subject on from where it stopped, write its result and the page made from all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m reliability", description="Long figures, stopped and resumed at will."
    )
    parser.add_argument("subject", help="a module in this folder")
    parser.add_argument("--cases", type=int, help="most cases to run now; by default until stopped or all are done")
    parser.add_argument("--seconds", type=float, help="begin no case after so long")
    parser.add_argument("--only", type=int, metavar="CASE", help="run this case alone and print what it came to")
    chosen = parser.parse_args()
    # The others are looked at only to name them: together they import everything there is.
    subject = _subject(chosen.subject) if chosen.subject in _modules() else None
    if subject is None:
        parser.error(f"no subject {chosen.subject!r}; there are {', '.join(subjects())}")
    if chosen.only is not None:
        print(subject.case(chosen.only))
        return
    with stopped_in_order():
        print(take(subject, cases=chosen.cases, seconds=chosen.seconds).line())
    print(f"written: {write_page()}")


if __name__ == "__main__":
    main()
