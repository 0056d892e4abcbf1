"""The process that computes with a trained model: ``python -m lens_pipeline.scoring JOB RUN.json``, see `process.py`."""

import gc
import sys

if __name__ == "__main__":
    # Importing torch and timm makes millions of objects that live on; collecting among them costs 7 % of the start.
    gc.disable()
    from lens_pipeline.scoring.worker import main

    gc.freeze()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
