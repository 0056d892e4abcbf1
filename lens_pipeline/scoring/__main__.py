"""The process that computes scores: ``python -m lens_pipeline.scoring RUN.json``, started by `lens_pipeline.scoring.run`."""

import gc
import sys

if __name__ == "__main__":
    # Importing torch and timm makes millions of objects that live on; collecting among them costs 7 % of the start.
    gc.disable()
    from lens_pipeline.scoring.logits import main

    gc.freeze()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
