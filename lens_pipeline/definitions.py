"""The one Definitions object, built by a function so that tests can swap resources."""

from typing import Any, cast

import dagster as dg

from lens_pipeline.defs.assets import doctor
from lens_pipeline.defs.automation import jobs, preset_from_environment, weekly_retraining
from lens_pipeline.defs.console import console
from lens_pipeline.defs.new_data import new_data_sensors
from lens_pipeline.defs.notifications import Notifications, lost_runs_sensor, notify
from lens_pipeline.defs.sections import RunConfig
from lens_pipeline.defs.sweep import sweep_job
from lens_pipeline.defs.tracking import Tracking
from lens_pipeline.defs.workspace import Workspace


def build_definitions(preset: RunConfig | None = None, **resources: Any) -> dg.Definitions:
    """Build the definitions.

    Parameters
    ----------
    preset : dict, optional
        Validated run configuration that the jobs start with.
    **resources
        Replace ``workspace``, ``tracking`` or ``notifications``.
    """
    full_chain, ingest, retrain = jobs(preset or {})
    assets = cast(
        list[dg.AssetsDefinition],
        dg.load_assets_from_modules([*doctor.MODULES, doctor]),
    )
    return dg.Definitions(
        assets=[asset.with_hooks({notify}) for asset in assets],
        jobs=[full_chain, ingest, retrain, sweep_job(preset or {})],
        schedules=[weekly_retraining(retrain)],
        sensors=[*new_data_sensors(preset or {}, ingest, retrain), lost_runs_sensor(preset or {})],
        resources={
            "workspace": Workspace.configure_at_launch(),
            "tracking": Tracking.configure_at_launch(),
            "notifications": Notifications.configure_at_launch(),
            **resources,
        },
        loggers={"console": console},
        executor=dg.in_process_executor,
    )


defs = build_definitions(preset_from_environment())
