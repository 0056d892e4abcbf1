"""The errors that a user can meet: each says what, how many, which first, why, and what to do next."""

from collections.abc import Iterable, Sequence
from pathlib import Path

FIRST_FEW = 5


class PipelineError(Exception):
    """Base of every error that this package raises on purpose."""


class ContractError(PipelineError):
    """Data do not have the columns, types, units or ranges that their contract promises."""


class ConfigError(PipelineError):
    """A setting is unknown, out of range, or contradicts another."""


class StorageError(PipelineError):
    """A published file is missing, damaged, or was never published."""


class SplitError(PipelineError):
    """No assignment of regions to splits meets the stated floors."""


class TrainingError(PipelineError):
    """The training job refused to start or ended without a model."""


class ScoringError(PipelineError):
    """A checkpoint and a store do not belong together, or rows were lost while scoring."""


class EvaluationError(PipelineError):
    """A metric was asked for that these rows cannot define."""


def first_few(values: Iterable[object], n: int = FIRST_FEW) -> str:
    """Name the first few of many values for a message, e.g. ``a, b, c, ... (120 in all)``."""
    listed: Sequence[object] = list(values)
    shown = ", ".join(str(value) for value in listed[:n])
    return shown if len(listed) <= n else f"{shown}, ... ({len(listed):,} in all)"


def no_folder(path: Path) -> str:
    """Say in what way a path is no folder."""
    return f"{path} is a file, not a folder" if path.is_file() else f"there is no folder {path}"


def no_file(path: Path) -> str:
    """Say in what way a path is no file."""
    return f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}"
