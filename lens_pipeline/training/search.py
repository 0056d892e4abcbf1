"""The space that a sweep searches: typed, and held against the training's own settings before anything runs.

Imports neither torch nor Optuna.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.training.choices import Architecture
from lens_pipeline.training.config import TrainingConfig

RANGES = ("learning_rate", "weight_decay", "dropout", "warmup_epochs", "label_smoothing")
CHOICES = ("model", "batch_size")
_MOST_CHOICES = 16

Value = float | int | str
Params = dict[str, Value]


class Pruner(StrEnum):
    """Which trials are given up early, by the monitor after each epoch."""

    none = "none"
    median = "median"
    hyperband = "hyperband"


class SweepConfig(Section):
    """Which settings of lens_classifier are searched, and how long.

    A range is a list of the lowest and the highest value, a choice a list of values; an empty list leaves the setting as
    the preset has it.
    """

    trials: int = Field(20, ge=1, le=100_000, description="trials in all, those of earlier starts counted")
    seed: int = Field(
        1, ge=0, le=2**31 - 1, description="seed of the sampler; trainings keep the seed of lens_classifier"
    )
    pruner: Pruner = Field(
        Pruner.median,
        description="gives trials up early: median (worse than half of the trials so far), hyperband or none",
    )
    startup_trials: int = Field(
        8, ge=1, le=10_000, description="trials drawn at random before TPE chooses, and before median gives any up"
    )
    epochs_before_pruning: int = Field(
        1,
        ge=0,
        le=10_000,
        description="epochs that every trial is left to train; hyperband: its least resource, 1 at least",
    )
    learning_rate: list[float] = Field([3e-4, 1e-2], max_length=2, description="lowest and highest peak learning rate")
    weight_decay: list[float] = Field([5e-3, 0.3], max_length=2, description="lowest and highest weight decay")
    dropout: list[float] = Field([0.0, 0.4], max_length=2, description="lowest and highest dropout before the head")
    warmup_epochs: list[float] = Field([0.0, 2.0], max_length=2, description="shortest and longest warmup")
    label_smoothing: list[float] = Field([0.0, 0.1], max_length=2, description="least and most label smoothing")
    logarithmic: list[str] = Field(
        ["learning_rate", "weight_decay"],
        description="ranges that are drawn by their logarithm; others are drawn evenly",
    )
    model: list[str] = Field(
        ["test_resnet", "resnet10t"],
        max_length=_MOST_CHOICES,
        description="architectures to choose from (docs/models.md)",
    )
    batch_size: list[int] = Field([32, 64, 128], max_length=_MOST_CHOICES, description="batch sizes to choose from")

    @field_validator(*RANGES)
    @classmethod
    def _is_range(cls, value: list[float]) -> list[float]:
        if value and (len(value) != 2 or not value[0] < value[1]):
            raise ValueError("a range is [lowest, highest], and [] leaves the setting as the preset has it")
        return value

    @field_validator("model")
    @classmethod
    def _are_known(cls, value: list[str]) -> list[str]:
        unknown = [name for name in value if name not in list(Architecture)]
        if unknown:
            raise ValueError(f"{first_few(unknown)}: unknown; there are {', '.join(Architecture)}")
        return value

    @field_validator(*CHOICES)
    @classmethod
    def _differ(cls, value: list[Any]) -> list[Any]:
        twice = [choice for choice, n in Counter(value).items() if n > 1]
        if twice:
            raise ValueError(f"{first_few(twice)} stands there more than once")
        return value

    @model_validator(mode="after")
    def _can_be_drawn(self) -> "SweepConfig":
        other = [name for name in self.logarithmic if name not in RANGES]
        if other:
            raise ValueError(f"logarithmic names {first_few(other)}; ranges are {', '.join(RANGES)}")
        from_zero = [name for name in self.logarithmic if getattr(self, name) and getattr(self, name)[0] <= 0]
        if from_zero:
            raise ValueError(
                f"{first_few(from_zero)} begins at 0 or below and has no logarithm: raise its lowest value, or take it out "
                "of logarithmic"
            )
        if not self.searched:
            raise ValueError("nothing is searched: every range and every choice is empty")
        return self

    @property
    def searched(self) -> list[str]:
        """Settings of lens_classifier that differ from trial to trial."""
        return [name for name in (*RANGES, *CHOICES) if getattr(self, name)]

    def identity(self) -> dict[str, Any]:
        """Return what makes trials comparable: all but how many of them there are to be."""
        return self.model_dump(mode="json", exclude={"trials"})

    def corners(self) -> Iterator[Params]:
        """Every combination of ends of ranges and of choices."""
        ends = [getattr(self, name) for name in self.searched]
        for values in itertools.product(*ends):
            yield dict(zip(self.searched, values, strict=True))


@dataclass(frozen=True)
class Corners:
    """What the training's own rules say of a space's corners.

    Attributes
    ----------
    n : int
        Corners.
    refused : dict
        Reason to how many corners are refused for it; a trial there is given up with that reason.
    """

    n: int
    refused: dict[str, int]

    @property
    def words(self) -> str:
        """Say it in a sentence."""
        out = sum(self.refused.values())
        first = "" if not out else f"; the commonest reason: {max(self.refused, key=lambda why: self.refused[why])}"
        return f"{out:,} of {self.n:,} corners of the space are no valid training{first}"


def setting_of(base: TrainingConfig, params: Mapping[str, Value]) -> TrainingConfig:
    """Return a trial's settings: the base's with the trial's values in their places.

    Raises
    ------
    ValueError
        If they contradict one another, in the words of `TrainingConfig`.
    """
    try:
        return TrainingConfig.model_validate({**base.model_dump(mode="json"), **params})
    except ValidationError as error:
        raise ValueError("; ".join(_said(detail) for detail in error.errors(include_url=False))) from error


def check_corners(space: SweepConfig, base: TrainingConfig) -> Corners:
    """Hold every corner of the space against the rules of `TrainingConfig`.

    Raises
    ------
    ConfigError
        If an end of a range or a choice is refused in every combination: all of its trials would be in vain.
    """
    sound: set[tuple[str, Value]] = set()
    why: dict[tuple[str, Value], str] = {}
    refused: Counter[str] = Counter()
    n = 0
    for corner in space.corners():
        n += 1
        try:
            setting_of(base, corner)
            sound.update(corner.items())
        except ValueError as error:
            refused[str(error)] += 1
            for item in corner.items():
                why.setdefault(item, str(error))
    hopeless = [item for item in why if item not in sound]
    if hopeless:
        # Where nothing at all is sound every end is hopeless, and one reason says it.
        whole = "" if sound else "No corner of the space is a valid training. "
        listed = "\n  ".join(f"{name} {value}: {why[name, value]}" for name, value in hopeless)
        raise ConfigError(
            f"the sweep's space was refused before anything ran. {whole}{len(hopeless)} of its ends are refused whatever they "
            f"stand with:\n  {listed}\nChange that end (sweep), or the setting of lens_classifier that it stands against."
        )
    return Corners(n, dict(refused))


def _said(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    return f"{place}: {detail['msg']}" if place else str(detail["msg"]).removeprefix("Value error, ")
