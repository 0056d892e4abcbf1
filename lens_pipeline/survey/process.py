"""One worker process: reads settings and then jobs as JSON lines, answers each with a line.

Run by `engines.py` as ``python -m lens_pipeline.survey.process TASK``, so that a worker never inherits threads or the main module
of whoever started it, and ends when its input ends, in the midst of a job: nobody is left who wants the answer.
"""

import json
import os
import sys
from queue import SimpleQueue
from threading import Thread

from lens_pipeline.survey.engines import load


def main() -> None:
    """Do jobs until the input ends."""
    work = load(sys.argv[1], json.loads(sys.stdin.readline()))
    jobs: SimpleQueue[str] = SimpleQueue()
    Thread(target=_read, args=(jobs,), daemon=True).start()
    while True:
        print(json.dumps(work(json.loads(jobs.get()))), flush=True)


def _read(jobs: SimpleQueue[str]) -> None:
    for line in sys.stdin:
        jobs.put(line)
    os._exit(0)


if __name__ == "__main__":
    main()
