"""Write, audit, publish: the one way in which an asset's version comes to be current."""

import base64
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import dagster as dg
import pyarrow as pa

from lens_pipeline.contracts.catalogue import CATALOGUE
from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

Result = TypeVar("Result")
Event = dg.AssetCheckResult | dg.MaterializeResult
Metadata = dict[str, dg.MetadataValue[Any]]

_WHEN_RED = "docs/red-checks.md"


def publish(
    context: dg.AssetExecutionContext,
    workspace: Workspace,
    config: Section,
    *,
    inputs: Sequence[Publication],
    build: Callable[[Staging], Result],
    check: Callable[[Publication, Result], list[Check]],
    describe: Callable[[Publication, Result], Metadata],
) -> Iterator[Event]:
    """Stage a version, check it, and make it current only if every blocking check is green.

    Parameters
    ----------
    build : callable
        Writes the version into a staging and returns what was made.
    check : callable
        Looks at the committed version as any reader would.
    describe : callable
        Returns what a person wants to see of it.

    Raises
    ------
    dagster.Failure
        If a blocking check is red, or the stage refused its input; nothing becomes current.
    """
    asset = context.asset_key.path[-1]
    provenance = {"config": config.model_dump(mode="json"), "dagster_run_id": context.run.run_id}
    try:
        with workspace.stage(asset, list(inputs), provenance) as staging:
            result = build(staging)
            publication = staging.commit()
        checks = check(publication, result)
        is_green = all(finding.passed or not finding.blocking for finding in checks)
        seen = describe(publication, result) if is_green else {}
        workspace.home.conclude(publication, checks)
    except PipelineError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False) from error
    for finding in checks:
        log = context.log.info if finding.passed else context.log.error if finding.blocking else context.log.warning
        log(finding.message())
        yield dg.AssetCheckResult(
            check_name=finding.name,
            passed=finding.passed,
            severity=dg.AssetCheckSeverity.ERROR if finding.blocking else dg.AssetCheckSeverity.WARN,
            metadata={"finding": finding.message(), "count": finding.count, **_figures(finding)},
        )
    if not is_green:
        red = [finding.message() for finding in checks if finding.blocking and not finding.passed]
        raise dg.Failure(
            description="\n".join(red)
            + f"\nNothing was made current. The red version can be read: version={publication.version!r}.",
            allow_retries=False,
        )
    context.log.info(f"{asset} {publication.version} is current")
    yield dg.MaterializeResult(
        metadata={**_standard(publication), **seen},
        data_version=dg.DataVersion(publication.version),
    )


def check_specs(asset: str, *names: str, advisory: Sequence[str] = ()) -> list[dg.AssetCheckSpec]:
    """Declare an asset's checks; the advisory ones are shown and don't block."""
    return [
        dg.AssetCheckSpec(
            name, asset=asset, blocking=name in names, description=f"What to do when it is red: {_WHEN_RED}, {name}."
        )
        for name in (*names, *advisory)
    ]


def _figures(finding: Check) -> dict[str, Any]:
    return {name: value for name, value in finding.figures.items() if value is not None and name != "count"}


def _standard(publication: Publication) -> Metadata:
    metadata: Metadata = {
        "folder": dg.MetadataValue.path(str(publication.folder)),
        "published_at": dg.MetadataValue.text(publication.address),
        "version": dg.MetadataValue.text(publication.version),
        "read_from": dg.MetadataValue.json(dict(publication.inputs)),
    }
    own = publication.manifest.files.get(f"{publication.asset}.parquet")
    if own is not None:
        metadata["dagster/row_count"] = dg.MetadataValue.int(own.rows or 0)
    schema = column_schema(publication)
    if schema is not None:
        metadata["dagster/column_schema"] = dg.MetadataValue.table_schema(schema)
    return metadata


def column_schema(publication: Publication) -> dg.TableSchema | None:
    """Return the columns of an asset's own table, each with what it means; None where it publishes no table.

    A table is described by the contract of its name.
    """
    name, files = publication.asset, publication.manifest.files
    # Stamps stand in fragments of one schema.
    entry = files.get(f"{name}.parquet") or next((entry for entry in files.values() if entry.schema), None)
    if entry is None or entry.schema is None:
        return None
    contract = next((table for table in CATALOGUE if table.name == name), None)
    columns = [
        dg.TableColumn(column, dtype, description=None if contract is None else contract.meaning_of(column))
        for column, dtype in entry.schema.items()
    ]
    return dg.TableSchema(columns)


def picture(png: bytes, alt: str) -> dg.MetadataValue[Any]:
    """Return a small inline picture that Dagster's page shows."""
    return dg.MetadataValue.md(f"![{alt}](data:image/png;base64,{base64.b64encode(png).decode()})")


def markdown_table(table: pa.Table) -> dg.MetadataValue[Any]:
    """Return a small table as Dagster's page shows one."""
    return dg.MetadataValue.md(markdown_rows(table))


def markdown_rows(table: pa.Table) -> str:
    """Write a small table in Markdown; a missing value is a dash."""
    rows = [" | ".join(_cell(value) for value in row.values()) for row in table.to_pylist()]
    header = f"| {' | '.join(table.column_names)} |\n|{'---|' * table.num_columns}\n"
    return header + "".join(f"| {row} |\n" for row in rows)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")
