"""The process that asks a trained model: ``python -m lens_pipeline.audits ask RUN.json``, see `worker.py`."""

import gc
import sys

if __name__ == "__main__":
    # As in scoring: what torch and timm import lives on, and collecting among it costs 7 % of the start.
    gc.disable()
    from lens_pipeline.audits.worker import main

    gc.freeze()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
