"""What a rank finds already done when it is forked; the fork server imports this, and nobody else."""

import numpy as np
import pyarrow as pa

import lens_pipeline.training.rank  # noqa: F401
from lens_pipeline.stamps.gather import Joined

# numba reads its registries, and imports scipy, when something compiled is first called; pyarrow imports pandas when an array is
# first handed to numpy. Both take longer than a run of a few steps.
Joined([np.zeros((1, 1), np.uint8)], (1,), np.uint8).take(np.zeros(1, np.int64), np.empty((1, 1), np.uint8))
pa.array([0]).to_numpy()
