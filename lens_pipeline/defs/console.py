"""What a person sees in the terminal while a run goes on: one short line for each thing that happened."""

import logging
import os
import sys

import dagster as dg

from lens_pipeline.contracts.errors import PipelineError

_SHOWN = {
    "STEP_START": "  {step} ...",
    "STEP_SUCCESS": "  {step} done{detail}",
    "STEP_SKIPPED": "  {step} skipped: something before it failed",
    "RUN_SUCCESS": "run finished",
    "RUN_FAILURE": "run failed",
    "RUN_CANCELED": "run cancelled",
}

# An error of ours says all that is needed; of any other, the place in the code is shown too.
_OURS = f"{PipelineError.__module__}."


class _ShortLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        meta = getattr(record, "dagster_meta", {}) or {}
        event = meta.get("dagster_event")
        step = meta.get("step_key") or ""
        if event is None:
            return f"    {meta.get('orig_message') or record.getMessage()}"
        kind = event.event_type_value
        if kind == "STEP_FAILURE":
            return f"  {step} FAILED\n{_reason(event)}"
        detail = record.getMessage().rpartition(" in ")[2].rstrip(".") if kind == "STEP_SUCCESS" else ""
        return _SHOWN[kind].format(step=step, detail=f" in {detail}" if detail else "")


class _WorthShowing(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        meta = getattr(record, "dagster_meta", {}) or {}
        event = meta.get("dagster_event")
        if event is None:
            return record.levelno >= logging.INFO
        return event.event_type_value in (*_SHOWN, "STEP_FAILURE")


def _reason(event: dg.DagsterEvent) -> str:
    error = getattr(event.event_specific_data, "error", None)
    if error is None:
        return ""
    failure = getattr(event.event_specific_data, "user_failure_data", None)
    text = failure.description if failure is not None and failure.description else None
    if text is None:
        cause = error.cause or error
        refused = cause.message.startswith(_OURS)
        text = cause.message.strip().removeprefix(_OURS) + ("" if refused else "\n" + "".join(cause.stack[-3:]))
    return "\n".join(f"    {line}" for line in str(text).splitlines())


@dg.logger(config_schema={}, description="short lines for a terminal; Dagster's page keeps every event")
def console(init_context: dg.InitLoggerContext) -> logging.Logger:
    """Log to standard error, one short line an event."""
    del init_context
    logger = logging.Logger("lens_pipeline.console", level=logging.DEBUG)
    # A step's standard error is captured by a process that may end before the last line: write to the terminal itself.
    handler = logging.StreamHandler(
        os.fdopen(os.dup(sys.__stderr__.fileno() if sys.__stderr__ else 2), "w", buffering=1)
    )
    handler.setFormatter(_ShortLines())
    handler.addFilter(_WorthShowing())
    logger.addHandler(handler)
    return logger
