"""The model group: the classifier, trained by a torchrun job whose border with this step is files."""

from collections.abc import Iterator

import dagster as dg

from lens_pipeline.contracts.checks import Check
from lens_pipeline.defs import registry
from lens_pipeline.defs.publishing import Event, Metadata, check_specs, markdown_table, picture, publish
from lens_pipeline.defs.sections import LensClassifierSection
from lens_pipeline.defs.tracking import Tracking
from lens_pipeline.defs.training_page import TrainingPage
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.scoring.export import CHECK, export, exported_program_agrees
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.training.checks import ADVISORY, BLOCKING, classifier_checks
from lens_pipeline.training.code import code_sha256
from lens_pipeline.training.finding import find_run
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.history import History
from lens_pipeline.training.run import TrainingResult, collect, launch, prepare_run
from lens_pipeline.training.spec import RunSpec


@dg.asset(
    group_name="model",
    deps=["stamp_store", "region_splits"],
    check_specs=check_specs("lens_classifier", *BLOCKING, advisory=[*ADVISORY, CHECK]),
)
def lens_classifier(
    context: dg.AssetExecutionContext, config: LensClassifierSection, workspace: Workspace, tracking: Tracking
) -> Iterator[Event]:
    """A trained lens finder: checkpoint, history, row ledger; the DistributedDataParallel job."""
    store = workspace.open("stamp_store")
    splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
    spec = RunSpec.of(config, store, splits)
    own = workspace.home.work_folder(workspace.dataset, "lens_classifier", spec.name, model=workspace.model)
    found = find_run(own.parent, spec)
    folder = found.folder
    if found.words:
        context.log.warning(found.words)
    if folder != own:
        own.rmdir()

    def build(staging: Staging) -> TrainingResult:
        # Whoever else is at work there is left in peace, and nobody changes what was trained before it is collected.
        with RunFolder(folder).occupied():
            prepare_run(config, store, splits, folder)
            with tracking.training_run(context, config, workspace, inputs=[store, splits], folder=folder) as run:
                summary = launch(folder, on_event=run.on_event)
            again = " (it was trained before, with these settings on these rows)" if summary.was_complete else ""
            context.log.info(f"training ended: {summary.ended}; {summary.seconds:.0f} s{again}")
            result = collect(folder, staging)
        staging.provenance["code_sha256"] = code_sha256()
        export(store, staging)
        return result

    def check(made: Publication, result: TrainingResult) -> list[Check]:
        history = History.of(RunFolder(folder).history)
        checks = [*classifier_checks(made, store, splits, history), exported_program_agrees(made)]
        page = TrainingPage.of(made, history)
        tracking.tell_outcome(context, folder, made, checks, note=page.note(checks), files=page.files())
        return checks

    def describe(classifier: Publication, result: TrainingResult) -> Metadata:
        page = TrainingPage.of(classifier, History.of(RunFolder(folder).history))
        return {
            "why_it_ended": dg.MetadataValue.text(classifier.attributes["ended"]),
            "epochs": dg.MetadataValue.int(result.epochs),
            "best_epoch": dg.MetadataValue.int(result.best_epoch),
            "training_rows": dg.MetadataValue.int(result.n_train),
            "validation_rows": dg.MetadataValue.int(result.n_validation),
            "reader": dg.MetadataValue.text(result.reader),
            "training_curves": picture(page.curves, "training curves"),
            "confusion_on_val_select": markdown_table(page.confusion),
            **page.speed,
            **tracking.describe_classifier(folder),
            **registry.describe(workspace.home, tracking, classifier),
        }

    yield from publish(context, workspace, config, inputs=[store, splits], build=build, check=check, describe=describe)
