"""``lens_pipeline check``: a preset's settings, and whether what they name is there; nothing is run."""

from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.defs.sections import load_preset, validate_run_config
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig
from lens_pipeline.survey.inputs import addresses, missing_inputs
from lens_pipeline.training.choices import Device
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.processes import refuse_missing_gpus
from lens_pipeline.training.weights_file import refuse_other_weights


def run(path: Path) -> int:
    """Print what a preset sets to something else than the default, and how many settings it leaves.

    Raises
    ------
    ConfigError
        If a setting is wrong, or settings name folders, files or GPUs that aren't there, listing all of them.
    """
    sections = validate_run_config(load_preset(path))
    at_default = 0
    for name, section in sections.items():
        fields = type(section).model_fields
        settings = section.model_dump(mode="json")
        changed = {setting: value for setting, value in settings.items() if value != fields[setting].default}
        at_default += len(settings) - len(changed)
        if changed:
            print("\n  ".join([name, *(f"{setting}: {value}" for setting, value in changed.items())]))
    print(f"{at_default} other settings have their defaults, which docs/settings.md lists.")
    parent, injections = sections["parent_sample"], sections["injection_manifest"]
    training, scoring = sections["lens_classifier"], sections["scores"]
    assert isinstance(parent, ParentSampleConfig)
    assert isinstance(injections, InjectionConfig)
    assert isinstance(training, TrainingConfig)
    assert isinstance(scoring, ScoringConfig)
    for address in addresses(parent):
        print(f"{address}: only its spelling was looked at, no server was asked")
    if missing := [*missing_inputs(parent, injections), *_missing_for_models(training, scoring)]:
        listed = "\n  ".join(missing)
        raise ConfigError(
            f"{path} has sound settings, and names what isn't there on this machine; {len(missing)} to mend before a run:\n  "
            f"{listed}"
        )
    print(f"{path} is sound.")
    return 0


def _missing_for_models(training: TrainingConfig, scoring: ScoringConfig) -> list[str]:
    """Say which GPUs and weights training and scoring would miss, in the words that they refuse to start with."""
    wanted = {"lens_classifier": (training.device, training.world_size), "scores": (scoring.device, 1)}
    missing = [
        f"{asset}.device: {problem}"
        for asset, (device, n) in wanted.items()
        if (problem := refuse_missing_gpus(device, n if device is Device.cuda else 0))
    ]
    if training.pretrained is not None and training.pretrained_sha256 is not None:
        try:
            refuse_other_weights(Path(training.pretrained), training.pretrained_sha256)
        except ConfigError as error:
            missing.append(f"lens_classifier.pretrained: {error}")
    return missing
