"""The recovery of real lenses, beside that of injections."""

from collections.abc import Iterator

import dagster as dg

from lens_pipeline.audits.real_lenses import CHECK, measure_recovery, real_lenses_are_found_like_injections
from lens_pipeline.defs.assets.evaluation import evaluated
from lens_pipeline.defs.publishing import Event, check_specs, markdown_table, publish
from lens_pipeline.defs.sections import RealLensRecoverySection
from lens_pipeline.defs.workspace import Workspace


@dg.asset(
    group_name="evaluation",
    deps=["scores", "operating_point", "completeness", "lens_classifier", "stamp_store", "region_splits"],
    check_specs=check_specs("real_lens_recovery", advisory=[CHECK]),
)
def real_lens_recovery(
    context: dg.AssetExecutionContext, config: RealLensRecoverySection, workspace: Workspace
) -> Iterator[Event]:
    """Share of real lenses found at each frozen threshold, beside the completeness of injections; or why it isn't known."""
    scores, point, store, splits = evaluated(workspace)
    completeness = workspace.open_made_from("completeness", "operating_point", point.version)
    classifiers = workspace.open_scored(scores)
    yield from publish(
        context,
        workspace,
        config,
        inputs=[scores, point, completeness, store, splits, *classifiers],
        build=lambda staging: measure_recovery(
            config,
            scores=scores,
            operating_point=point,
            completeness=completeness,
            splits=splits,
            store=store,
            classifiers=classifiers,
            staging=staging,
        ),
        check=lambda _, result: [real_lenses_are_found_like_injections(result.table)],
        describe=lambda _, result: {
            "stamps": dg.MetadataValue.int(result.stamps.num_rows),
            "recovery": markdown_table(result.table),
        },
    )
