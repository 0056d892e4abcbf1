"""Settings of training that have no numeric effect, each with the reason. Every other one is tested to move a number."""

NO_NUMERIC_EFFECT = {
    "world_size": "how many ranks share a step; its rows and weights are the same, and it is not in the run's hash. Sums round "
    "otherwise, batch normalisation takes each rank's rows by themselves, and dropout and mixing draw for each rank",
    "threads_per_rank": "how many threads compute; on a CPU another number moves last bits, and training makes them grow",
    "loader_threads": "how far rows are gathered ahead; not which, nor in which order",
    "reader": "where the same bytes are read from",
    "channels_last": "how pixels lie in memory; moves last bits",
    "device": "where it is computed; a GPU's last bits differ from a CPU's",
    "compile": "how kernels are made; moves last bits",
    "deterministic": "whether a GPU may take kernels whose last bits vary",
    "checkpoints_kept": "how many checkpoints stay on disk",
    "validation_batch_size": "how many rows are judged at once; the model is in evaluation mode, so rows don't mix",
    "checkpoint_every_steps": "how much work a kill can cost; a resumed run has the same bits",
    "report_every_steps": "how often progress is told",
    "metadata": "none may be named before a metadata-only probe is published and blind",
    "attempts": "how often a run is started again; it goes on with the same bits",
    "hang_seconds": "when a rank counts as stuck",
}
