"""``lens_pipeline sweep``: search better settings for lens_classifier; the same command again goes on after any kill."""

import os
from pathlib import Path

import dagster as dg

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.sweep import BEST, figure_of, run_in_process
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.atomic import refuse_unless_new, write_atomically


def run(preset: RunConfig, trials: int | None, out: Path | None) -> int:
    """Run the job `hyperparameter_sweep` here, and say where the best setting stands.

    Parameters
    ----------
    trials : int, optional
        Trials in all; by default the preset's.
    out : Path, optional
        Preset file to write beside the published one; new, in a folder that is there.

    Raises
    ------
    ConfigError
        If `out` can't be written, before the first trial.
    TrainingError
        If the job failed, with its reason.
    """
    if out is not None:
        refuse_unless_new(out, what="the best setting")
    settings = resource_settings(preset, "workspace")
    if not os.environ.get("DAGSTER_HOME"):
        print("DAGSTER_HOME is not set: Dagster's page won't show this run")
    instance = dg.DagsterInstance.get() if os.environ.get("DAGSTER_HOME") else dg.DagsterInstance.ephemeral()
    try:
        run_in_process(preset, {} if trials is None else {"trials": trials}, instance)
    except dg.Failure as failure:
        raise TrainingError(f"the sweep has stopped. {failure.description}") from failure
    published = Workspace(**settings).open("sweep")
    best = published.attributes["best"]
    print(f"best of {published.attributes['trials']} trials: {figure_of(best)}, trial {best['trial']}")
    for name, value in best["settings"].items():
        print(f"  {name}: {value}")
    where = published.path(BEST)
    if out is not None:
        write_atomically(out, where.read_bytes())
        where = out
    print(f"{where}: train with it by  make run PRESET={where}")
    return 0
