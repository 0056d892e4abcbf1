"""The doctor: one GO or NO-GO from the checks of every other asset."""

from collections.abc import Iterator
from functools import cache

import dagster as dg

from lens_pipeline.audits.doctor import Declared, Examination, Status, examine
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.doctor_tables import DOCTOR
from lens_pipeline.defs.assets import dataset, evaluation, model, real_lenses, survey
from lens_pipeline.defs.publishing import Event, check_specs, markdown_table, publish
from lens_pipeline.defs.sections import DoctorSection
from lens_pipeline.defs.workspace import Workspace

CHECK = "everything_is_go"
# Of every other asset, in the order of the chain.
MODULES = (survey, dataset, model, evaluation, real_lenses)


@cache
def declared_checks() -> Declared:
    """Every other asset, in the order of the chain, to its checks, each with whether it blocks."""
    return {
        asset.key.path[-1]: {spec.name: spec.blocking for spec in asset.check_specs}
        for module in MODULES
        for asset in vars(module).values()
        if isinstance(asset, dg.AssetsDefinition)
    }


@dg.asset(
    group_name="evaluation",
    deps=["evaluation_report", "realism_report", "real_lens_recovery"],
    check_specs=check_specs("doctor", advisory=[CHECK]),
)
def doctor(context: dg.AssetExecutionContext, config: DoctorSection, workspace: Workspace) -> Iterator[Event]:
    """GO or NO-GO: what every check says of all that is published, each red with its cause and what to do next."""
    found = examine(workspace.home, workspace.dataset, workspace.model, declared_checks(), strict=config.strict)
    looked_at = [workspace.open(one.asset) for one in found.findings if one.check == "is_published" and one.version]
    yield from publish(
        context,
        workspace,
        config,
        inputs=looked_at,
        build=lambda staging: staging.write_table(None, found.table(), DOCTOR),
        check=lambda _, __: [_check(found)],
        describe=lambda _, __: {
            "answer": dg.MetadataValue.text(found.headline),
            "findings": markdown_table(found.table().select(["asset", "check", "status", "what", "next_step"])),
        },
    )


def _check(found: Examination) -> Check:
    """Red where something is NO-GO. It blocks nothing: the table that says so must be what readers get."""
    if found.go:
        return green(CHECK, found.headline, blocking=False)
    reds = found.of(Status.no_go)
    return red(
        CHECK,
        found.headline,
        wrong=[f"{one.asset}: {one.check}" for one in reds],
        why=reds[0].why,
        next_step=reds[0].next_step,
        blocking=False,
    )
