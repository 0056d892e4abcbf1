"""Splits as they are handed to whoever chooses settings: only what is trained on and selected by is told."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import SPLIT_ROWS
from lens_pipeline.splits.assignment import TRAIN, VAL_SELECT, WITHHELD
from lens_pipeline.splits.region_splits import ROWS, iterate_split_rows
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

TOLD: tuple[str, ...] = (TRAIN, VAL_SELECT)


def withhold(splits: Publication, store: Publication, folder: Path) -> Publication:
    """Write splits in which rows of val_calibrate and test are all called "withheld".

    Which row is of test can't be learned from them, and no reader of splits opens it: there is no test in them. The same
    splits give the same version, so that this may be done again.

    Parameters
    ----------
    folder : Path
        Of one's own work; nothing is published in the home.

    Raises
    ------
    SplitError
        If the splits were made for another version of the store.
    """
    told = pa.array(TOLD)
    with Home(folder).stage(splits.dataset, splits.asset, inputs=[store]) as staging:
        with staging.table_writer(ROWS, SPLIT_ROWS) as writer:
            for batch in iterate_split_rows(splits, store):
                rows = pa.Table.from_batches([batch])
                split = pc.if_else(pc.is_in(rows["split"], value_set=told), rows["split"], WITHHELD)
                writer.write(rows.set_column(rows.column_names.index("split"), "split", split))
        staging.attributes["withheld_from"] = splits.version
        return staging.commit()
