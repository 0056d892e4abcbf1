"""One configuration section an asset, and the one loader that validates them all before the first step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import Field, ValidationError

from lens_pipeline.audits.doctor import DoctorConfig
from lens_pipeline.audits.real_lenses import RealLensConfig
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.defs.notifications import notification_problems
from lens_pipeline.evaluation.config import CompletenessConfig, OperatingPointConfig, ReportConfig
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig
from lens_pipeline.survey.realism_config import RealismConfig
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.search import SweepConfig


class ParentSampleSection(ParentSampleConfig, dg.Config):
    """Settings of parent_sample."""


class InjectionManifestSection(InjectionConfig, dg.Config):
    """Settings of injection_manifest."""


class StampsSection(StampsConfig, dg.Config):
    """Settings of stamps."""


class RealismReportSection(RealismConfig, dg.Config):
    """Settings of realism_report."""


class StampStoreSection(StoreConfig, dg.Config):
    """Settings of stamp_store."""


class RegionSplitsSection(SplitConfig, dg.Config):
    """Settings of region_splits."""


class LensClassifierSection(TrainingConfig, dg.Config):
    """Settings of lens_classifier."""


class ScoresSection(ScoringConfig, dg.Config):
    """Settings of scores."""


class OperatingPointSection(OperatingPointConfig, dg.Config):
    """Settings of operating_point."""


class CompletenessSection(CompletenessConfig, dg.Config):
    """Settings of completeness."""


class RealLensRecoverySection(RealLensConfig, dg.Config):
    """Settings of real_lens_recovery."""


class EvaluationReportSection(ReportConfig, dg.Config):
    """Settings of evaluation_report."""


class DoctorSection(DoctorConfig, dg.Config):
    """Settings of doctor."""


class SweepSection(SweepConfig, dg.Config):
    """Settings of the job hyperparameter_sweep: what is searched, and the preset whose lens_classifier it is searched for."""

    preset: dict[str, Any] = Field({}, description="the whole preset, as the command lens_pipeline sweep puts it here")


SECTIONS: dict[str, type[Section]] = {
    "parent_sample": ParentSampleConfig,
    "injection_manifest": InjectionConfig,
    "stamps": StampsConfig,
    "realism_report": RealismConfig,
    "stamp_store": StoreConfig,
    "region_splits": SplitConfig,
    "lens_classifier": TrainingConfig,
    "scores": ScoringConfig,
    "operating_point": OperatingPointConfig,
    "completeness": CompletenessConfig,
    "real_lens_recovery": RealLensConfig,
    "evaluation_report": ReportConfig,
    "doctor": DoctorConfig,
}

# Sections of jobs that make no asset of the chain.
JOB_SECTIONS: dict[str, type[Section]] = {"sweep": SweepConfig}

RunConfig = dict[str, Any]

# What may stand in each group of a run configuration: name to its settings, where those are not an asset's section.
_KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "ops": {},
    "resources": {
        "workspace": ("dataset", "model"),
        "tracking": ("uri", "experiment"),
        "notifications": ("command", "webhook", "token_variable"),
    },
    "loggers": {"console": ()},
}


def load_preset(path: Path) -> RunConfig:
    """Read a preset and validate every section in it.

    A preset is a run configuration as Dagster takes it (``-c``): one section an asset under ``ops``, and the dataset's
    name under ``resources``.

    Raises
    ------
    ConfigError
        Listing every unknown key and every value out of range, with what is allowed.
    """
    try:
        loaded = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        there = sorted(str(found) for found in path.parent.glob("*.yaml"))
        raise ConfigError(f"there is no preset {path}; there are: {first_few(there) or 'none'}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} isn't YAML: {error}") from error
    run_config = {} if loaded is None else loaded
    validate_run_config(run_config, where=str(path))
    return run_config


def validate_run_config(run_config: Mapping[str, Any], *, where: str = "the run configuration") -> dict[str, Section]:
    """Validate all sections at once.

    Returns
    -------
    dict
        Asset or job to its validated section; one without a section gets its defaults.

    Raises
    ------
    ConfigError
        Listing every problem, not only the first.
    """
    if not isinstance(run_config, Mapping):
        raise ConfigError(
            f"{where} must be a mapping with the keys ops and resources, not {type(run_config).__name__}."
        )
    problems = [
        f"{key}: unknown key; ops, resources, execution and loggers are known"
        for key in run_config
        if key not in ("ops", "resources", "execution", "loggers")
    ]
    problems += _misplaced(run_config)
    ops = _mapping(run_config.get("ops"))
    known = SECTIONS | JOB_SECTIONS
    problems += [f"ops.{name}: no such asset; there are {', '.join(known)}" for name in ops if name not in known]
    sections = {}
    for name, section in known.items():
        values = _mapping(ops.get(name)).get("config") or {}
        if name in JOB_SECTIONS and isinstance(values, Mapping) and "preset" in values:
            # As the job is started, with the preset that it is about.
            validate_run_config(values["preset"], where=f"{where}, ops.{name}.config.preset")
            values = {key: value for key, value in values.items() if key != "preset"}
        try:
            sections[name] = section.model_validate(values)
        except ValidationError as error:
            problems += [_explain(name, section, detail) for detail in error.errors()]
    problems = problems or notification_problems(run_config)
    if problems:
        listed = "\n  ".join(problems)
        raise ConfigError(
            f"{where} was refused before anything ran; {len(problems)} to mend:\n  {listed}\n"
            f"Every setting with its range is listed in docs/settings.md."
        )
    return sections


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _misplaced(run_config: Mapping[str, Any]) -> list[str]:
    """Find keys that stand where nothing reads them."""
    problems = []
    for place, known in _KNOWN.items():
        group = run_config.get(place) or {}
        if not isinstance(group, Mapping):
            problems.append(f"{place}: must be a mapping, not {type(group).__name__}")
            continue
        problems += [
            f"{place}.{name}: unknown; there are {', '.join(known)}" for name in group if known and name not in known
        ]
        for name, section in group.items():
            if section is not None and not isinstance(section, Mapping):
                problems.append(f"{place}.{name}: must be a mapping with the key config, not {type(section).__name__}")
                continue
            problems += [
                f"{place}.{name}.{key}: only config may stand here" for key in section or {} if key != "config"
            ]
            settings = (section or {}).get("config") or {}
            allowed = known.get(name)
            if allowed:
                problems += [
                    f"{place}.{name}.config.{key}: unknown setting; known are {', '.join(allowed)}"
                    for key in settings
                    if key not in allowed
                ]
    return problems


def resource_settings(preset: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a preset sets of a resource (workspace, tracking, ...); what it leaves out has its default there."""
    return dict(((preset.get("resources") or {}).get(name) or {}).get("config") or {})


def job_part(run_config: RunConfig, assets: frozenset[str]) -> RunConfig:
    """Return the part of a validated run configuration that a job of some of the assets takes."""
    part = {key: value for key, value in run_config.items() if key != "ops"}
    part["ops"] = {name: value for name, value in (run_config.get("ops") or {}).items() if name in assets}
    return part


def _explain(asset: str, section: type[Section], detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    where = f"ops.{asset}.config" + (f".{place}" if place else "")
    if detail["type"] == "extra_forbidden":
        return f"{where}: unknown setting; known are {', '.join(section.model_fields)}"
    field = section.model_fields.get(str(detail["loc"][0])) if detail["loc"] else None
    allowed = f" ({allowed_range(field)})" if field is not None and allowed_range(field) else ""
    given = f", {detail['input']!r} was given" if detail["loc"] else ""
    return f"{where}: {detail['msg']}{given}{allowed}"


def allowed_range(field: Any) -> str:
    """Describe the values that a setting may take, e.g. ``allowed: >= 1 and <= 64``."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "min_length": "length >=", "max_length": "length <="}
    bounds = [
        f"{signs[name]} {getattr(bound, name)}" for bound in field.metadata for name in signs if hasattr(bound, name)
    ]
    return f"allowed: {' and '.join(bounds)}" if bounds else ""
