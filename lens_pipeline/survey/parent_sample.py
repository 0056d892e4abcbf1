"""The parent sample: galaxies that may host an arc, from whichever source the settings name.

Belongs here: the dispatch and what all sources publish alike. Each source has its own module.
"""

from dataclasses import dataclass

import pyarrow as pa

from lens_pipeline.contracts.catalogue import PARENT_SAMPLE
from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig, Source
from lens_pipeline.survey.roles import CONTROL, NO_LENS


@dataclass(frozen=True)
class ParentSampleResult:
    """What a parent sample holds."""

    n_galaxies: int
    n_regions: int
    source: str


def dataset_contract(config: ParentSampleConfig) -> DatasetContract:
    """Return what the stamps of this sample will say of themselves.

    Raises
    ------
    ValueError
        If a lens model stands twice in the settings, means a lens and none, or is CONTROL.
    """
    # What an own survey calls by such a name isn't known here.
    drawn_here = () if config.source is Source.external_stamps else NO_LENS
    return DatasetContract(
        stamp_size=config.stamp_size,
        pixel_scale_arcsec=config.pixel_scale_arcsec,
        classes=(
            StampClass(name="control", label_values=(CONTROL, *drawn_here, *config.no_lens_models)),
            StampClass(name="lens", label_values=tuple(config.lens_models)),
        ),
    )


def build_parent_sample(config: ParentSampleConfig, staging: Staging) -> ParentSampleResult:
    """Write the parent sample of the source that the settings name.

    Publishes the table of galaxies, and as attributes the source, the dataset contract and what the source says of its
    files and assumptions.

    Raises
    ------
    ConfigError
        If a folder or file that the settings name isn't there.
    ContractError
        If a user's files don't hold what their contract promises.
    """
    contract = dataset_contract(config)
    staging.attributes["source"] = config.source.value
    staging.attributes["dataset_contract"] = contract.model_dump(mode="json")
    if config.source is Source.legacy_catalogue:
        return _legacy(config, staging)
    galaxies = _complete(_galaxies(config, contract, staging))
    staging.write_table(None, galaxies, PARENT_SAMPLE)
    return ParentSampleResult(
        n_galaxies=galaxies.num_rows,
        n_regions=len(galaxies["region_id"].unique()),
        source=config.source.value,
    )


def _legacy(config: ParentSampleConfig, staging: Staging) -> ParentSampleResult:
    """Write the tables of the one source that is too large to be in memory."""
    from lens_pipeline.survey.legacy_catalogue import LegacyParents

    parents = LegacyParents.of(config)
    parents.write(staging)
    if config.images:
        from lens_pipeline.survey.legacy_images import add_images

        add_images(config, parents.tally, staging)
    staging.attributes.update(parents.describe())
    return ParentSampleResult(parents.tally.n_kept, len(parents.tally.regions), config.source.value)


def _galaxies(config: ParentSampleConfig, contract: DatasetContract, staging: Staging) -> pa.Table:
    # Each source is imported when it is used: astropy takes a second to load, and every process loads this module.
    if config.source is Source.simulated:
        from lens_pipeline.survey.simulated import simulated_parents

        return simulated_parents(config)
    if config.source is Source.real_cutouts:
        from lens_pipeline.survey.real_cutouts import real_parents

        return real_parents(config, staging)
    from lens_pipeline.survey.external_stamps import external_parents

    return external_parents(config, contract, staging)


def _complete(galaxies: pa.Table) -> pa.Table:
    """Put the contract's columns first and in its types, nulls where a source doesn't know, its further ones after."""
    columns = {}
    for column in PARENT_SAMPLE.columns:
        if column.name in galaxies.column_names:
            columns[column.name] = galaxies[column.name].cast(column.dtype)
        elif column.required:
            columns[column.name] = pa.nulls(galaxies.num_rows, column.dtype)
    further = {name: galaxies[name] for name in galaxies.column_names if name not in columns}
    return pa.table(columns | further)
