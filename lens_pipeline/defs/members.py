"""Members of a cross-validation or of a seed ensemble: models by name, each made by lens_classifier with settings of its own."""

import copy
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError, TrainingError
from lens_pipeline.defs.sections import RunConfig, job_part, resource_settings, validate_run_config
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.code import code_sha256
from lens_pipeline.training.config import HANDLING, TrainingConfig
from lens_pipeline.training.folds import folds_are_disjoint
from lens_pipeline.training.processes import run_for_us
from lens_pipeline.training.rows import read_rows, refuse_unusable

EVALUATION = ("scores", "operating_point", "completeness", "evaluation_report", "shortcut_gates")
_CLASSIFIER = "lens_classifier"
# Dagster says that its own command is superseded, and which of its parameters are new: nothing that a user could act on.
_QUIET = ("-W", "ignore:Function", "-W", "ignore:Parameter")


@dataclass(frozen=True)
class Member:
    """One model of several.

    Attributes
    ----------
    model : str
        Its name in the home: HOME/dataset/lens_classifier/model.
    settings : dict
        What it has otherwise than the preset's lens_classifier.
    """

    model: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Members, and the name of the model that their mean is.

    Attributes
    ----------
    model : str
        Its scores, operating point, completeness and report stand under this name.
    """

    model: str
    members: tuple[Member, ...]

    @classmethod
    def of_folds(cls, base: str, folds: int) -> "Group":
        """Name the members of a cross-validation.

        Raises
        ------
        ConfigError
            If there are fewer than two folds.
        """
        if folds < 2:
            raise ConfigError(f"--folds {folds}: a cross-validation has 2 folds at least.")
        members = [Member(f"{base}.fold-{fold}-of-{folds}", {"folds": folds, "fold": fold}) for fold in range(folds)]
        return cls(f"{base}.folds-{folds}", tuple(members))

    @classmethod
    def of_seeds(cls, base: str, seeds: Sequence[int]) -> "Group":
        """Name the members of a seed ensemble; in whichever order the seeds come, it is the same.

        Raises
        ------
        ConfigError
            If there are fewer than two seeds, or one twice.
        """
        if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
            raise ConfigError(f"--seeds {','.join(map(str, seeds))}: an ensemble has 2 seeds at least, each once.")
        members = [Member(f"{base}.seed-{seed}", {"seed": seed}) for seed in sorted(seeds)]
        return cls(f"{base}.seeds-{'-'.join(str(seed) for seed in sorted(seeds))}", tuple(members))


def run_config_of(preset: RunConfig, member: Member) -> RunConfig:
    """Return the run configuration that makes a member: the preset's part for lens_classifier, changed where it differs.

    Raises
    ------
    ConfigError
        If the settings aren't possible.
    """
    config = _for_model(preset, member.model, (_CLASSIFIER,))
    config["ops"].setdefault(_CLASSIFIER, {}).setdefault("config", {}).update(member.settings)
    validate_run_config(config, where=f"the configuration of model {member.model}")
    return config


def evaluation_config(preset: RunConfig, group: Group) -> RunConfig:
    """Return the run configuration that scores a group's mean and evaluates it."""
    config = _for_model(preset, group.model, EVALUATION)
    members = [member.model for member in group.members]
    config["ops"].setdefault("scores", {}).setdefault("config", {})["members"] = members
    validate_run_config(config, where=f"the configuration of model {group.model}")
    return config


def refuse_unusable_members(preset: RunConfig, group: Group) -> None:
    """Refuse, before the first is trained, members that can't be: of folds that lack a class or share something.

    Raises
    ------
    TrainingError
        Naming the member.
    """
    workspace = Workspace(**resource_settings(preset, "workspace"))
    store = workspace.open("stamp_store")
    splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    for member in group.members:
        config = _settings(preset, member)
        rows = read_rows(splits, store, config)
        refuse_unusable(rows, contract, config)
        found = folds_are_disjoint(config.folds, rows.train, rows.validation, splits, store)
        if not found.passed:
            raise TrainingError(f"model {member.model}: {found.message()}")


def published(preset: RunConfig, member: Member) -> Publication | None:
    """Return a member's current version, if it is what these settings, this code and the current store and splits give."""
    workspace = Workspace(**{**resource_settings(preset, "workspace"), "model": member.model})
    there = workspace.open_if_there(_CLASSIFIER)
    if there is None:
        return None
    is_current = all(
        there.inputs.get(name) == workspace.open(name).version for name in ("stamp_store", "region_splits")
    )
    same_code = there.manifest.provenance.get("code_sha256") == code_sha256()
    wanted = _settings(preset, member).model_dump(mode="json")
    same = _trains(there.attributes["config"]) == _trains(wanted)
    return there if is_current and same_code and same else None


def materialize(assets: Sequence[str], config: RunConfig) -> None:
    """Make assets as a person does, in a process of its own, so that the run stands in Dagster's history.

    Raises
    ------
    TrainingError
        If the run failed; its own words stand above.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix="lens_pipeline-") as file:
        yaml.safe_dump(config, file)
        file.flush()
        selection = ["--select", ",".join(assets), "-m", "lens_pipeline.definitions", "-c", file.name]
        command = [sys.executable, *_QUIET, "-m", "dagster", "asset", "materialize", *selection]
        code = run_for_us(command)
    if code:
        model = config["resources"]["workspace"]["config"]["model"]
        raise TrainingError(
            f"{', '.join(assets)} of model {model} failed (exit status {code}); why is said above. The same command "
            "again goes on from here: what is published is not made again."
        )


def _for_model(preset: RunConfig, model: str, assets: Sequence[str]) -> RunConfig:
    config = copy.deepcopy(job_part(preset, frozenset(assets)))
    resources: dict[str, Any] = config.setdefault("resources", {})
    resources["workspace"] = {"config": {**resource_settings(preset, "workspace"), "model": model}}
    return config


def _settings(preset: RunConfig, member: Member) -> TrainingConfig:
    values = run_config_of(preset, member)["ops"][_CLASSIFIER]["config"]
    return TrainingConfig.model_validate(values)


def _trains(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in HANDLING}
