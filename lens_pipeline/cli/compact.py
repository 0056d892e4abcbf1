"""``lens_pipeline compact``: publish a store anew, in full segments without holes."""

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.compaction import compact, is_compact, refuse_to_compact_damaged
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.storage.home import Home


def run(dataset: str, home: Home) -> int:
    """Compact the current store of a dataset; return 1 if a check of the new one is red, which leaves the old one current."""
    store = home.open(dataset, "stamp_store")
    if (store.verdict or {}).get("passed") is not True:
        raise StorageError(f"stamp_store {store.version} has not passed its checks. Materialize stamp_store first.")
    stamps = home.open(dataset, "stamps", version=store.inputs["stamps"])
    made_with = store.manifest.provenance.get("config", {})
    config = StoreConfig(**{name: value for name, value in made_with.items() if name in StoreConfig.model_fields})
    if is_compact(config, store):
        refuse_to_compact_damaged(store)
        print(f"stamp_store {store.version} is sound, has no holes and full segments: nothing to compact.")
        return 0
    provenance = {"config": config.model_dump(mode="json"), "compacted_from": store.version}
    with home.stage(dataset, "stamp_store", inputs=[stamps], provenance=provenance) as staging:
        done = compact(config, store, staging)
        compacted = staging.commit()
    checks = store_checks(compacted, stamps, config)
    passed = home.conclude(compacted, checks)
    for check in checks:
        if not check.passed:
            print(check.message())
    holes = f"{done.holes_before:,} holes in {done.segments_before:,} segments of {done.bytes_before / 1e6:,.1f} MB"
    print(f"before: {store.version}, {holes}")
    print(
        f"after:  {compacted.version}, no holes in {done.segments_after:,} segments of {done.bytes_after / 1e6:,.1f} MB"
    )
    if not passed:
        print(f"Version {compacted.version} is red, {store.version} is still current.")
        return 1
    print(
        f"{done.n_rows:,} rows, {compacted.version} is current. What was made from {store.version} names that version: next: "
        f"dagster asset materialize --select 'region_splits*' -m lens_pipeline.definitions -c PRESET."
    )
    return 0
