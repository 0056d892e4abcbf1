"""The dataset group: decoded stamps, and which region stands in which split."""

from collections.abc import Iterator

import dagster as dg

from lens_pipeline.defs.publishing import Event, Metadata, check_specs, markdown_table, picture, publish
from lens_pipeline.defs.sections import RegionSplitsSection, StampStoreSection
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.splits.checks import leak_checks, split_balance
from lens_pipeline.splits.region_splits import build_region_splits
from lens_pipeline.splits.set_aside import known_lenses_are_no_negatives
from lens_pipeline.stamps import checks
from lens_pipeline.stamps.ingest import StoreResult, build_store
from lens_pipeline.stamps.previous import find_previous
from lens_pipeline.stamps.summary import bytes_per_input_byte, quarantine_by_reason, segment_sizes


@dg.asset(
    group_name="dataset",
    deps=["stamps"],
    check_specs=check_specs(
        "stamp_store", "row_conservation", "quarantine_budget", "no_duplicated_fragments", "schema_contract"
    ),
)
def stamp_store(context: dg.AssetExecutionContext, config: StampStoreSection, workspace: Workspace) -> Iterator[Event]:
    """Decoded float16 segments, memory-mapped, with the index and the quarantine table."""
    stamps = workspace.open("stamps")
    previous = find_previous(workspace.home, workspace.dataset, stamps)
    yield from publish(
        context,
        workspace,
        config,
        inputs=[stamps],
        build=lambda staging: build_store(config, stamps, staging, previous),
        check=lambda store, result: checks.store_checks(store, stamps, config),
        describe=lambda _, result: _describe_store(result),
    )


def _describe_store(result: StoreResult) -> Metadata:
    decoding = result.decoding
    shown: Metadata = {
        "rows_in": dg.MetadataValue.int(result.n_in),
        "stored": dg.MetadataValue.int(result.n_stored),
        "quarantined": dg.MetadataValue.int(result.n_quarantined),
        "excluded": dg.MetadataValue.int(result.n_excluded),
        "rows_kept_from_an_earlier_store": dg.MetadataValue.int(result.n_reused),
        "stamps_decoded": dg.MetadataValue.int(decoding.n_decoded),
        "stamps_decoded_by_an_interrupted_run": dg.MetadataValue.int(decoding.n_resumed),
        "holes": dg.MetadataValue.int(result.n_holes),
        "bytes": dg.MetadataValue.int(sum(segment.n_bytes for segment in result.segments)),
        "quarantine_by_reason": markdown_table(quarantine_by_reason(result)),
        "segments": markdown_table(segment_sizes(result)),
    }
    if decoding.n_decoded:
        shown["decoded_stamps_per_second"] = dg.MetadataValue.float(decoding.n_decoded / decoding.seconds)
        shown["decoded_input_MB_per_second"] = dg.MetadataValue.float(decoding.bytes_read / decoding.seconds / 1e6)
    if (ratio := bytes_per_input_byte(result)) is not None:
        shown["store_bytes_per_compressed_input_byte"] = dg.MetadataValue.float(ratio)
    return shown


@dg.asset(
    group_name="dataset",
    deps=["stamp_store"],
    check_specs=check_specs(
        "region_splits",
        "split_balance",
        "regions_are_disjoint",
        "galaxies_are_disjoint",
        "pairs_are_disjoint",
        "sources_are_disjoint",
        "pixels_are_disjoint",
        "known_lenses_are_no_negatives",
    ),
)
def region_splits(
    context: dg.AssetExecutionContext, config: RegionSplitsSection, workspace: Workspace
) -> Iterator[Event]:
    """Region to train, val_select, val_calibrate or test, and the per-row split."""
    # Imported when it is used: matplotlib takes a second to load.
    from lens_pipeline.splits.figures import split_map_png

    store = workspace.open("stamp_store")
    frozen = workspace.open_if_there("region_splits")
    yield from publish(
        context,
        workspace,
        config,
        inputs=[store],
        build=lambda staging: build_region_splits(config, store, staging, frozen=frozen),
        check=lambda splits, _: [
            split_balance(splits, store, floor_rows=config.floor_rows),
            *leak_checks(splits, store),
            known_lenses_are_no_negatives(splits, store, config),
        ],
        describe=lambda splits, result: {
            "seed": dg.MetadataValue.int(result.seed),
            "seeds_tried": dg.MetadataValue.int(result.seeds_tried),
            "rows": dg.MetadataValue.json(result.n_rows),
            "rows_of_known_lenses_set_aside": dg.MetadataValue.int(result.n_set_aside),
            "split_map": picture(split_map_png(splits.read_table()), "regions on the sky, by split"),
        },
    )
