"""Arcs without noise, as they were added to stamps: what a counterfactual takes away, or puts elsewhere."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.decode import decode_pixels
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication

_READ_ROWS = 64


def iterate_arcs(stamps: Publication) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Stream task_id and (band, y, x) float32 pixels, nanomaggy, of every stamp that light was added to; memory is flat.

    Raises
    ------
    StorageError
        If the stamps were made without them, or a file is damaged.
    """
    if "noiseless_arcs" not in stamps.attributes:
        raise StorageError(
            f"stamps {stamps.version} were made without noiseless arcs. Set stamps.noiseless_arcs: true in the preset and "
            "materialize stamps again."
        )
    contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
    for file in stamps.attributes["noiseless_arcs"]:
        for batch in iterate_parquet(stamps.path(file["file"]), rows=_READ_ROWS):
            pixels = np.empty((batch.num_rows, *contract.stamp_shape), np.float32)
            verdicts = decode_pixels(batch["arc_npz"].to_pylist(), contract, pixels)
            for task_id, arc, verdict in zip(batch["task_id"].to_pylist(), pixels, verdicts, strict=True):
                if verdict is not None:
                    raise StorageError(f"the arc of {task_id} in {file['file']} can't be read: {verdict}.")
                yield task_id, arc
