"""What is published of arcs themselves, beside the stamps that they were added to."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

NOISELESS_ARCS = TableContract(
    name="stamps/noiseless_arcs",
    meaning="The light that was added to a stamp's host, before noise; only rows that light was added to.",
    key=("task_id",),
    columns=(
        Column("task_id", pa.string(), "key of the stamp"),
        Column(
            "arc_npz",
            pa.binary(),
            "np.savez_compressed of image_g, image_r, image_z, float32: what was added, through the PSF and without noise",
            "nanomaggy",
        ),
    ),
)
