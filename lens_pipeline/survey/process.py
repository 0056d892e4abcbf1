"""One worker process: reads settings and then jobs as JSON lines, answers each with a line.

Run by `engines.py` as ``python -m lens_pipeline.survey.process TASK``, so that a worker never inherits threads or the main module
of whoever started it, and ends when its input ends.
"""

import json
import sys

from lens_pipeline.survey.engines import load


def main() -> None:
    """Do jobs until the input ends."""
    work = load(sys.argv[1], json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(work(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
