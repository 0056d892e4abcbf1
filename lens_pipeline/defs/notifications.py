"""Word of a failure or a red check, by a command or a webhook that somebody named; nobody named one by default.

A notice that can't be delivered is a warning in the log, and the run goes on as it would have.
"""

import json
import os
import shlex
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import dagster as dg
from dagster import AssetCheckEvaluation, HookContext, HookExecutionResult
from pydantic import Field, field_validator

_COMMAND_SECONDS = 30.0
_WEBHOOK_SECONDS = 10.0
_REASON_CHARACTERS = 4000
Notice = dict[str, Any]


class Notifications(dg.ConfigurableResource):
    """Who is told of failures and red checks."""

    command: str = Field(
        "", description="command that gets the notice as JSON on its standard input; no shell reads it"
    )
    webhook: str = Field(
        "", description="http or https address that the notice is posted to as JSON; {env: NAME} hides it"
    )
    token_variable: str = Field(
        "", description="name of the environment variable whose content is the webhook's bearer token"
    )

    @field_validator("webhook")
    @classmethod
    def _is_web(cls, value: str) -> str:
        if problem := _why_no_webhook(value):
            raise ValueError(problem)
        return value

    @field_validator("command")
    @classmethod
    def _is_command(cls, value: str) -> str:
        shlex.split(value)
        return value

    @property
    def is_on(self) -> bool:
        """Whether anybody is to be told."""
        return bool(self.command or self.webhook)

    def tell(self, notice: Notice) -> list[str]:
        """Deliver a notice. Returns what went wrong, in words that hold neither address nor token nor the command's output."""
        content = json.dumps(notice).encode()
        wrong = [self._run(content) if self.command else None, self._post(content) if self.webhook else None]
        return [words for words in wrong if words]

    def _run(self, content: bytes) -> str | None:
        try:
            process = subprocess.Popen(
                shlex.split(self.command),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            return f"the notification command can't be started: {error.strerror}"
        try:
            process.communicate(content, timeout=_COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            # With all that it started.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"the notification command did not end within {_COMMAND_SECONDS:.0f} s and was killed"
        return f"the notification command ended with code {process.returncode}" if process.returncode else None

    def _post(self, content: bytes) -> str | None:
        headers = {"Content-Type": "application/json"}
        if self.token_variable:
            token = os.environ.get(self.token_variable)
            if not token:
                return f"the notification was not posted: the environment has no {self.token_variable}"
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(self.webhook, content, headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=_WEBHOOK_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            return f"the notification webhook answered {error.code}"
        except (OSError, ValueError) as error:
            # The message may name the address, which may be a secret.
            return f"the notification webhook can't be reached: {type(error).__name__}"


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Sends a token nowhere but where it belongs."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _notify(context: HookContext, events: Sequence[dg.DagsterEvent]) -> HookExecutionResult:
    """Tell of a step that failed or of its red checks, advisory ones too; once for a step."""
    notifications = cast(Notifications, context.resources.notifications)
    notice = _notice_of(events) if notifications.is_on else None
    if notice is None:
        return HookExecutionResult("notify", is_skipped=True)
    try:
        wrong = notifications.tell({**notice, "run_id": context.run_id, "job": context.job_name, "time": time.time()})
    except Exception as error:
        # Whatever goes wrong here must not be what a run fails of.
        wrong = [f"the notification failed: {type(error).__name__}"]
    for words in wrong:
        context.log.warning(words)
    return HookExecutionResult("notify", is_skipped=False)


notify = dg.HookDefinition(name="notify", hook_fn=_notify, required_resource_keys={"notifications"})


def lost_runs_sensor(preset: Mapping[str, Any]) -> dg.SensorDefinition:
    """Return the sensor that tells of runs that ended in failure without any step's saying so: a process was killed."""
    notifications = Notifications(**_settings(preset))

    @dg.run_failure_sensor(
        name="notify_of_lost_runs",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Tells of runs whose process was killed; of a step that fails its own hook tells.",
    )
    def notify_of_lost_runs(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if not notifications.is_on:
            return dg.SkipReason("resources.notifications names neither a command nor a webhook")
        failed = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        if failed:
            return dg.SkipReason(f"the step {failed[0].step_key} has told of its failure itself")
        reason = context.failure_event.message or ""
        notice: Notice = {"event": "run_lost", "asset": None, "reason": reason, "checks": []}
        for words in notifications.tell({**notice, "run_id": run.run_id, "job": run.job_name, "time": time.time()}):
            context.log.warning(words)
        return None

    return notify_of_lost_runs


def notification_problems(run_config: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with a run configuration's notifications, before anything is run."""
    try:
        Notifications(**_settings(run_config))
    except ValueError as error:
        # The validation's own words hold the value.
        return [f"resources.notifications.config: {_first_words(error)}"]
    return []


def _notice_of(events: Sequence[dg.DagsterEvent]) -> Notice | None:
    checks: list[dict[str, Any]] = []
    failure = None
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            found = cast(AssetCheckEvaluation, event.event_specific_data)
            if not found.passed:
                words = found.metadata.get("finding")
                blocking = found.severity == dg.AssetCheckSeverity.ERROR
                message = str(words.value) if words is not None else ""
                checks.append({"name": found.check_name, "blocking": blocking, "message": message[:_REASON_CHARACTERS]})
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            failure = event
    if failure is None and not checks:
        return None
    return {
        "event": "step_failed" if failure is not None else "checks_red",
        "asset": events[0].step_key if events else None,
        "reason": _reason(failure)[:_REASON_CHARACTERS] if failure is not None else "",
        "checks": checks,
    }


def _reason(failure: dg.DagsterEvent) -> str:
    data = failure.step_failure_data
    if data.user_failure_data is not None and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    return str((error.cause or error).message) if error is not None else ""


def _settings(run_config: Mapping[str, Any]) -> dict[str, Any]:
    settings = ((run_config.get("resources") or {}).get("notifications") or {}).get("config") or {}
    # As Dagster does: {env: NAME} stands for what the environment says.
    return {
        name: os.environ.get(str(value["env"]), "") if isinstance(value, dict) and set(value) == {"env"} else value
        for name, value in settings.items()
    }


def _why_no_webhook(address: str) -> str | None:
    if not address:
        return None
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    return None if sound else "webhook must be an http:// or https:// address"


def _first_words(error: ValueError) -> str:
    problems = getattr(error, "errors", None)
    if problems is None:
        return str(error)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems(include_input=False))
