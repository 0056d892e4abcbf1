"""The manifest of a survey's own stamps: every row of its files, without pixels, under our names and types.

Belongs here: copying what the rows say. Whether a row is right is judged by checks and by the store's quarantine.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.fragments import unpack_schema
from lens_pipeline.storage.parquet import parquet_writer
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.external_files import lent, stream_rows
from lens_pipeline.survey.external_stamps import POSITIONS, GalaxyNames


def write_external_manifest(parent: Publication, path: Path) -> dict[str | None, int]:
    """Stream the rows of a survey's files into one manifest.

    Columns beyond the contract are kept where every file has them in one type. A galaxy is named as in the parent sample,
    and a row without weight has weight 1.

    Parameters
    ----------
    parent : Publication
        The parent sample, whose attributes list the files.

    Returns
    -------
    dict
        Rows of each lens model; None for a null and for values that the dataset contract doesn't know.

    Raises
    ------
    StorageError
        If a file isn't what was published.
    ContractError
        If a value doesn't fit its column.
    """
    contract = DatasetContract.model_validate(parent.attributes["dataset_contract"])
    schema = _schema([unpack_schema(packed) for packed in parent.attributes["schemas"]], contract)
    names = GalaxyNames(parent.read_table(POSITIONS))
    counts: dict[str | None, int] = {}
    with parquet_writer(path, schema) as writer:
        for file in parent.attributes["files"]:
            with lent(file) as local:
                for batch in stream_rows(local, schema.names):
                    writer.write_batch(_translate(batch, schema, names))
                    for entry in pc.value_counts(pc.cast(batch["lens_model"], pa.string())).to_pylist():
                        label = entry["values"] if entry["values"] in contract.label_of else None
                        counts[label] = counts.get(label, 0) + entry["counts"]
    return counts


def _schema(schemas: Sequence[pa.Schema], contract: DatasetContract) -> pa.Schema:
    declared = INJECTION_MANIFEST.schema
    given = {name for schema in schemas for name in schema.names} | {"galaxy_id", "weight"}
    fields = [pa.field(field.name, field.type) for field in declared if field.name in given]
    for field in schemas[0]:
        if field.name in declared.names or field.name == contract.blob_column or pa.types.is_binary(field.type):
            continue
        if all(field.name in other.names and other.field(field.name).type == field.type for other in schemas):
            fields.append(pa.field(field.name, field.type))
    return pa.schema(fields)


def _translate(batch: pa.RecordBatch, schema: pa.Schema, names: GalaxyNames) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name == "galaxy_id":
            columns.append(names.of(batch))
        elif field.name in batch.schema.names:
            columns.append(pc.cast(batch[field.name], field.type))
        elif field.name == "weight":
            columns.append(pa.array([1.0] * batch.num_rows, field.type))
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.record_batch(columns, schema=schema)
