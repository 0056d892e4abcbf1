"""The questions that a trained model must answer before it is promoted."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from lens_pipeline.audits.askings import earlier_askings
from lens_pipeline.audits.checks import AGREE, FOLLOWS, SEPARATES, gate_checks
from lens_pipeline.defs.publishing import Event, Metadata, check_specs, markdown_table, picture, publish
from lens_pipeline.defs.sections import ShortcutGatesSection
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication

if TYPE_CHECKING:
    from lens_pipeline.audits.shortcut_gates import GatesResult


@dg.asset(
    group_name="evaluation",
    deps=["stamps", "stamp_store", "region_splits", "lens_classifier", "scores"],
    check_specs=check_specs("shortcut_gates", SEPARATES, AGREE, advisory=[FOLLOWS]),
)
def shortcut_gates(
    context: dg.AssetExecutionContext, config: ShortcutGatesSection, workspace: Workspace
) -> Iterator[Event]:
    """Can anything but the arc tell the classes apart, and does the score follow the arc? A red answer: no champion."""
    # Imported when it is used: statistics, figures and what compiles lenses take seconds to load.
    from lens_pipeline.audits.model_gates import Audited
    from lens_pipeline.audits.shortcut_gates import build_gates

    scores = workspace.open("scores")
    store = workspace.open_version("stamp_store", scores.inputs["stamp_store"])
    stamps = workspace.open_version("stamps", store.inputs["stamps"])
    audited = Audited(
        classifiers=workspace.open_scored(scores),
        scores=scores,
        store=store,
        stamps=stamps,
        parent=workspace.open_version("parent_sample", stamps.inputs["parent_sample"]),
        manifest=workspace.open_version("injection_manifest", stamps.inputs["injection_manifest"]),
    )

    earlier = earlier_askings(config, workspace.home, audited.classifiers, workspace.dataset, workspace.model)

    def describe(made: Publication, result: "GatesResult") -> Metadata:
        shown = ("name", "kind", "value", "low", "high", "unit", "limit", "n_galaxies", "status", "reason")
        evidence = result.evidence_png
        return {
            "gates": markdown_table(made.read_table(columns=shown)),
            **({"evidence": picture(evidence, "injections, and where the evidence lies")} if evidence else {}),
        }

    yield from publish(
        context,
        workspace,
        config,
        inputs=[*audited.classifiers, scores, store, stamps, audited.parent, audited.manifest],
        build=lambda staging: build_gates(config, audited, staging, earlier),
        check=lambda _, result: gate_checks(result.gates),
        describe=describe,
    )
