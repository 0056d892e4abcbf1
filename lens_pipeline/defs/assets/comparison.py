"""The comparison of a model with others, or with the champion."""

from collections.abc import Iterator

import dagster as dg

from lens_pipeline.audits.champion import CHECK, challenger_is_not_worse, compare_models, find_rivals
from lens_pipeline.defs.assets.evaluation import evaluated
from lens_pipeline.defs.publishing import Event, check_specs, markdown_table, publish
from lens_pipeline.defs.sections import ModelComparisonSection
from lens_pipeline.defs.workspace import Workspace


@dg.asset(
    group_name="evaluation",
    deps=["scores", "operating_point", "stamp_store", "region_splits"],
    check_specs=check_specs("model_comparison", advisory=[CHECK]),
)
def model_comparison(
    context: dg.AssetExecutionContext, config: ModelComparisonSection, workspace: Workspace
) -> Iterator[Event]:
    """Champion and challenger, or named models, on the same rows of test: differences with intervals."""
    scores, point, store, _ = evaluated(workspace)
    rivals, reason = find_rivals(config, workspace.home, scores)
    # The champion is an earlier version of the same assets, which stand among the inputs once: its versions are in the table.
    others = [
        one for rival in rivals if rival.scores.model != scores.model for one in (rival.scores, rival.operating_point)
    ]
    yield from publish(
        context,
        workspace,
        config,
        inputs=[scores, point, store, *others],
        build=lambda staging: compare_models(
            config, rivals, reason, scores=scores, operating_point=point, store=store, staging=staging
        ),
        check=lambda _, result: [challenger_is_not_worse(result)],
        describe=lambda _, result: {
            "comparison": markdown_table(result.table)
            if result.table.num_rows
            else dg.MetadataValue.text(result.reason or "nothing to compare with")
        },
    )
