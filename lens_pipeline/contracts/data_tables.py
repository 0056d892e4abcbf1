"""Tables of the store and the splits. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.parent_tables import LENS_COLUMNS
from lens_pipeline.contracts.survey_tables import ARC, ARC_MEASURED, MEASURED, SAMPLE
from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

STAMP_STORE = TableContract(
    name="stamp_store",
    meaning="The index of the store: one row a stored stamp; the place in the table is its logical number.",
    key=("task_id",),
    open_ended=True,
    columns=(
        Column("logical", _INT, "logical number: the row's place by key_hash", minimum=0),
        Column("key_hash", pa.binary(16), "BLAKE2b-128 of the task_id; the index is sorted by it"),
        Column("segment", pa.int32(), "number of the segment that holds the pixels", minimum=0),
        Column("segment_row", _INT, "row within that segment", minimum=0),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("stratum", _TEXT, "class, Einstein-radius bin and lens model"),
        Column("pixel_hash", pa.binary(16), "BLAKE2b-128 of the stored float16 pixels"),
        Column("galaxy_id", _TEXT, "host galaxy; matched by position on the sky where the input names none"),
        *(column for column in (*SAMPLE, *ARC, *MEASURED, *ARC_MEASURED) if column.name != "galaxy_id"),
    ),
)

QUARANTINE = TableContract(
    name="stamp_store/quarantine",
    meaning="Rows that were read but not stored, each with its reason.",
    open_ended=False,
    columns=(
        Column("task_id", _TEXT, "key of the row as the input gave it", "", True),
        Column("fragment", _TEXT, "file that the row stands in"),
        Column("fragment_row", _INT, "row within that file", minimum=0),
        Column("reason", _TEXT, "name of the reason, e.g. bad_crc"),
        Column("detail", _TEXT, "what was found"),
        Column("excluded", _BOOL, "true where the survey itself said so (cutout_ok != 1), false where we refused it"),
    ),
)

STORED_FRAGMENTS = TableContract(
    name="stamp_store/fragments",
    meaning="Files that the store was made from, so that a later store decodes only those it has not seen.",
    open_ended=False,
    columns=(
        Column("file", _TEXT, "name of the file, as the stamps list it"),
        Column("sha256", _TEXT, "SHA-256 of the file; a file is known by it, whatever its name"),
        Column("rows", _INT, "rows of the file", minimum=0),
    ),
)

REGION_SPLITS = TableContract(
    name="region_splits",
    meaning="Region to split: the frozen assignment.",
    key=("region_id",),
    columns=(
        Column("region_id", _TEXT, "unit of splitting"),
        Column("split", _TEXT, "train, val_select, val_calibrate or test"),
        Column("n_rows", _INT, "stored rows in the region", minimum=0),
        Column("n_galaxies", _INT, "galaxies in the region", minimum=0),
        Column("ra", _FLOAT, "mean right ascension of the region's rows", "deg", True),
        Column("dec", _FLOAT, "mean declination of the region's rows", "deg", True),
    ),
)

SPLIT_ROWS = TableContract(
    name="region_splits/rows",
    meaning="Row to split, for one version of the store.",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column("logical", _INT, "logical number in the store version that the table's attributes name", minimum=0),
        Column("split", _TEXT, "train, val_select, val_calibrate or test; or known_lens, which is set aside"),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
    ),
)

SET_ASIDE = TableContract(
    name="region_splits/known_lenses",
    meaning="Rows whose galaxy is a known lens or candidate: in no split that is trained on, calibrated by or tested with.",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column(
            "separation_arcsec",
            _FLOAT,
            "distance of the row's position; null where it is another row of the galaxy that is near",
            "arcsec",
            True,
            minimum=0,
        ),
        *LENS_COLUMNS,
    ),
)
