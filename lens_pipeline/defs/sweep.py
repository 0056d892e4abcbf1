"""The job that searches better settings for lens_classifier. It makes no asset of the chain: `--select '*'` never starts it."""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import yaml

from lens_pipeline.contracts.catalogue import SWEEP
from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.defs.console import console
from lens_pipeline.defs.mirror import Mirror
from lens_pipeline.defs.mlflow_runs import MlflowRun, Record, as_text, is_at_work, unsettled
from lens_pipeline.defs.notifications import Notifications, notify
from lens_pipeline.defs.publishing import markdown_table, picture
from lens_pipeline.defs.sections import RunConfig, SweepSection, load_preset, validate_run_config
from lens_pipeline.defs.tracking import RUN_TAG, Tracking, work_folders
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.splits.withholding import withhold
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.work_folder import WorkFolder, work_path
from lens_pipeline.training.code import code_sha256
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import TrainingInterruptedError
from lens_pipeline.training.folder import TRIALS
from lens_pipeline.training.rows import names_of_sides, read_rows
from lens_pipeline.training.search import SweepConfig, check_corners
from lens_pipeline.training.stopping import refuse_unresolvable_monitor

if TYPE_CHECKING:
    from lens_pipeline.training.sweep import Sweep, Trial

BEST = "best.yaml"
_PARENT, _STATE, _REASON = "mlflow.parentRunId", "lens_pipeline.trial_state", "lens_pipeline.trial_reason"
_TRIALS_SHOWN = 100


@dg.op(name="sweep", description="Tries settings of lens_classifier on train and val_select, and publishes the best.")
def sweep_op(context: dg.OpExecutionContext, config: SweepSection, workspace: Workspace, tracking: Tracking) -> None:
    """Search, publish, show; a sweep that was killed goes on where it stood."""
    try:
        store = workspace.open("stamp_store")
        splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
        shelf = workspace.home.shelf(workspace.dataset, "sweep", workspace.model)
        # From here on no splits that tell of test are at hand.
        told = withhold(splits, store, work_path(shelf, "splits"))
        published, absent = _search(context, config, workspace, tracking, store, told)
    except PipelineError as error:
        raise dg.Failure(description=f"{type(error).__name__}: {error}", allow_retries=False) from error
    context.log_event(dg.AssetMaterialization("sweep", metadata=_metadata(published, absent)))


def sweep_job(preset: RunConfig) -> dg.JobDefinition:
    """Return the job `hyperparameter_sweep` for a preset."""

    @dg.job(
        name="hyperparameter_sweep",
        config=sweep_run_config(preset),
        hooks={notify},
        description="Search better settings for lens_classifier, on train and val_select alone.",
    )
    def sweep() -> None:
        sweep_op()

    return sweep


def sweep_run_config(preset: RunConfig, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Return the run configuration of the job: the preset's section `sweep`, and the preset itself.

    Parameters
    ----------
    changes : mapping, optional
        Settings of the sweep in place of the preset's.
    """
    section = ((preset.get("ops") or {}).get("sweep") or {}).get("config") or {}
    around = {key: value for key, value in preset.items() if key != "ops"}
    return {**around, "ops": {"sweep": {"config": {**section, **(changes or {}), "preset": preset}}}}


def run_in_process(preset: RunConfig, changes: Mapping[str, Any], instance: dg.DagsterInstance) -> None:
    """Run the job here and now.

    Raises
    ------
    dagster.Failure
        If it failed, with the reason.
    ConfigError
        If preset or changes aren't sound.
    """
    run_config = sweep_run_config(preset, changes)
    validate_run_config(run_config)
    definitions = dg.Definitions(
        jobs=[sweep_job(preset)],
        resources={
            "workspace": Workspace.configure_at_launch(),
            "tracking": Tracking.configure_at_launch(),
            "notifications": Notifications.configure_at_launch(),
        },
        loggers={"console": console},
    )
    definitions.resolve_job_def("hyperparameter_sweep").execute_in_process(run_config=run_config, instance=instance)


def best_preset(preset: RunConfig, settings: Mapping[str, Any], path: Path, *, why: str) -> None:
    """Write a preset with other settings of lens_classifier, as a file that the loader of presets takes.

    Parameters
    ----------
    why : str
        Where the settings come from: the file's first line.

    Raises
    ------
    ConfigError
        If the outcome is no preset.
    """
    changed = copy.deepcopy(dict(preset))
    ops = changed["ops"] = changed.get("ops") or {}
    section = ops["lens_classifier"] = ops.get("lens_classifier") or {}
    section["config"] = {**(section.get("config") or {}), **settings}
    written = path.with_name(f"unchecked-{path.name}")
    write_atomically(written, f"# {why}\n{yaml.safe_dump(changed, sort_keys=False)}".encode())
    load_preset(written)
    written.replace(path)


def figure_of(best: Mapping[str, Any]) -> str:
    """Say what the best trial reached, and on how many rows, for people; `best` is the attribute of a published sweep."""
    error = best["standard_error"]
    spread = f", standard error {error:.2g}," if error is not None else ""
    return f"{best['monitor']} {best['value']:.5g}{spread} on {best['rows']:,} rows of {best['of']}"


def _search(
    context: dg.OpExecutionContext,
    config: SweepSection,
    workspace: Workspace,
    tracking: Tracking,
    store: Publication,
    told: Publication,
) -> tuple[Publication, dict[str, str]]:
    """Try settings to the end. Returns the published outcome, and which pictures there are not, and why."""
    # Optuna takes a second to import, which loading the definitions shouldn't pay.
    from lens_pipeline.training.study import VARIABLE, TrialStore
    from lens_pipeline.training.sweep import Sweep, study_name, trainer
    from lens_pipeline.training.sweep_figures import sweep_figures

    base = TrainingConfig.model_validate(validate_run_config(config.preset)["lens_classifier"].model_dump(mode="json"))
    space = SweepConfig.model_validate(config.model_dump(mode="json", exclude={"preset"}))
    check_corners(space, base)
    rows = read_rows(told, store, base)
    refuse_unresolvable_monitor(base, rows, store)
    shelf = workspace.home.shelf(workspace.dataset, "sweep", workspace.model)
    name = study_name(space, base, told, store, code_sha256())
    work = WorkFolder(work_path(shelf, name))
    try:
        larger = base.monitor.larger_is_better
        trials = TrialStore(name, work.path, larger_is_better=larger, address=os.environ.get(VARIABLE) or None)
        runs = _Runs(context, tracking, workspace, work.path, {**space.model_dump(mode="json"), "study": name})
        context.log.info(f"study {name} in {trials.where}")
        with runs.parent():
            sweep = Sweep(space, base, trials, work.path, trainer(store, told), around=runs.trial, say=context.log.info)
            best = sweep.run()
            settings = {key: best.params[key] for key in space.searched}
            outcome = {
                "trial": best.number,
                "monitor": base.monitor.value,
                "value": best.value,
                "standard_error": sweep.standard_error(best),
                "rows": len(rows.validation),
                "of": names_of_sides(base)[1],
                "settings": settings,
            }
            why = f"trial {best.number} of sweep {name}: {figure_of(outcome)}"
            best_preset(config.preset, settings, work.path / BEST, why=why)
            pictures, absent = sweep_figures(trials.study, base.monitor.value)
            provenance = {"config": space.model_dump(mode="json"), "dagster_run_id": context.run.run_id, "study": name}
            with workspace.stage("sweep", [store], provenance) as staging:
                staging.inputs[told.asset] = told.attributes["withheld_from"]
                staging.write_table(None, sweep.table(), SWEEP)
                staging.write_bytes(BEST, (work.path / BEST).read_bytes())
                for picture_name, png in pictures.items():
                    staging.write_bytes(f"{picture_name}.png", png)
                staging.attributes |= {
                    "trials": len(trials.counted()),
                    "corners": {"n": sweep.corners.n, "refused": sweep.corners.refused},
                    "best": outcome,
                }
                published = staging.commit()
            workspace.home.conclude(published, [])
            runs.tell_outcome(sweep, published)
    finally:
        work.close()
    for why in absent.values():
        context.log.warning(f"not drawn: {why}")
    return published, absent


class _Runs:
    """MLflow's view of a sweep: one run, and below it one a trial."""

    def __init__(
        self,
        context: dg.OpExecutionContext,
        tracking: Tracking,
        workspace: Workspace,
        folder: Path,
        params: Mapping[str, Any],
    ) -> None:
        self._context, self._tracking, self._folder = context, tracking, folder
        self._name = f"{workspace.dataset} sweep"
        self._tags = {
            RUN_TAG: context.run.run_id,
            "lens_pipeline.dataset": workspace.dataset,
            "lens_pipeline.model": workspace.model,
            "lens_pipeline.sweep": folder.name,
        }
        self._params = {name: as_text(value) for name, value in params.items() if name != "trials"}

    @contextmanager
    def parent(self) -> Iterator[None]:
        """Keep the sweep's own run."""
        record = self._tracking.record(self._folder, self._name)
        record.tags |= self._tags
        record.params = self._params
        try:
            with self._ending(record, self._folder):
                self._tracking.tell(self._context, self._folder, record, earlier=self._left_behind())
                yield
        finally:
            self._tracking.tell(self._context, self._folder, Record.read(self._folder) or record)

    @contextmanager
    def trial(self, trial: "Trial") -> Iterator[None]:
        """Keep a trial's run while it is trained."""
        trial.folder.mkdir(parents=True, exist_ok=True)
        record = self._tracking.record(trial.folder, f"trial {trial.number}")
        record.tags |= self._tags | self._below()
        record.params = {name: as_text(value) for name, value in trial.config.model_dump(mode="json").items()}
        try:
            with self._ending(record, trial.folder):
                mirror = Mirror(trial.folder)
                try:
                    yield
                finally:
                    mirror.close()
                    for words in mirror.words():
                        self._context.log.warning(words)
        finally:
            # The sweep may go on for days: nobody should take this trial for one at work.
            self._tracking.tell(self._context, trial.folder, Record.read(trial.folder) or record)

    def tell_outcome(self, sweep: "Sweep", published: Publication) -> None:
        """Tell how each trial ended, and give the sweep's run what was published."""
        for trial, folder in sweep.trained():
            record = Record.read(folder)
            if record is None:
                continue
            record.tags |= self._below() | {
                _STATE: trial.state.name.lower(),
                _REASON: trial.user_attrs.get("reason", ""),
            }
            if trial.value is not None:
                record.metrics["objective"] = trial.value
            self._tracking.tell(self._context, folder, record)
        record = self._tracking.record(self._folder, self._name)
        record.metrics |= {"objective": published.attributes["best"]["value"], "trials": published.attributes["trials"]}
        record.tags["lens_pipeline.best_trial"] = str(published.attributes["best"]["trial"])
        record.artifacts = [str(published.path(name)) for name in published.manifest.files]
        record.write(self._folder)

    def _left_behind(self) -> list[Path]:
        """Folders of runs that MLflow doesn't know the end of; this sweep's trials whose process was killed are ended here."""
        own = self._folder / TRIALS
        found = [folder for folder in unsettled(work_folders()) if folder.parent == own or not is_at_work(folder)]
        for folder in found:
            record = Record.read(folder)
            # Now, and not when MLflow answers: the trial may be at work again by then.
            if folder.parent == own and record is not None and record.status == "RUNNING":
                record.status = "KILLED"
                record.write(folder)
        return [folder for folder in found if folder != self._folder]

    @contextmanager
    def _ending(self, record: Record, folder: Path) -> Iterator[None]:
        """Write how a run ended into its record, which others may have added to meanwhile."""
        from optuna import TrialPruned

        record.status = "RUNNING"
        record.write(folder)
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except (TrialPruned, TrainingInterruptedError, KeyboardInterrupt):
            # Given up, or asked for.
            status = "KILLED"
            raise
        finally:
            now = Record.read(folder) or record
            now.status = status
            now.write(folder)

    def _below(self) -> dict[str, str]:
        run_id = MlflowRun(self._folder).last_told().get("run_id")
        return {_PARENT: run_id} if run_id else {}


def _metadata(published: Publication, absent: Mapping[str, str]) -> dict[str, dg.MetadataValue[Any]]:
    best, table = published.attributes["best"], published.read_table()
    shown: dict[str, dg.MetadataValue[Any]] = {
        "version": dg.MetadataValue.text(published.version),
        "folder": dg.MetadataValue.path(str(published.folder)),
        "best": dg.MetadataValue.text(f"trial {best['trial']}, {figure_of(best)}"),
        "best_preset": dg.MetadataValue.md(f"```yaml\n{published.path(BEST).read_text()}```"),
        "trials": markdown_table(table.slice(max(table.num_rows - _TRIALS_SHOWN, 0))),
    }
    for name in ("history", "importances", "parallel_coordinates"):
        file = f"{name}.png"
        shown[name] = (
            picture(published.path(file).read_bytes(), name)
            if file in published.manifest.files
            else dg.MetadataValue.text(absent.get(name, "not drawn"))
        )
    return shown
