"""What torchrun runs on every rank: ``python -m torch.distributed.run ... -m lens_pipeline.training RUN.json``."""

import faulthandler
import gc
import signal
import sys

from lens_pipeline.training.processes import die_with_parent

if __name__ == "__main__":
    # First of all: a launcher that is killed must leave no rank behind.
    die_with_parent()
    # A launcher that sees no progress asks what every thread is doing; the answer goes to this rank's log.
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    # Importing torch and timm makes millions of objects that live on; collecting among them costs 7 % of the start.
    gc.disable()
    from lens_pipeline.training.rank import main

    gc.freeze()
    gc.enable()
    sys.exit(main(sys.argv[1:]))
