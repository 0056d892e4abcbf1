"""``lens_pipeline doctor``: one GO or NO-GO about what is published, each finding with its cause and what to type next."""

import textwrap
from dataclasses import replace

from lens_pipeline.audits.doctor import DoctorConfig, Finding, Status, examine
from lens_pipeline.cli.predict import Which
from lens_pipeline.contracts.errors import ConfigError, first_few
from lens_pipeline.defs.assets.doctor import declared_checks
from lens_pipeline.defs.sections import validate_run_config
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import DEFAULT_MODEL, Home

_MARKS = {Status.no_go: "NO-GO", Status.look: "look ", Status.go: "fine "}


def run(which: Which, *, strict: bool, verbose: bool) -> int:
    """Print the answer, and return 1 where it is NO-GO.

    Parameters
    ----------
    strict : bool
        Whether a finding that blocks nothing is NO-GO as well, whatever the preset says.
    verbose : bool
        Whether what is fine is listed too.

    Raises
    ------
    ConfigError
        If nothing was ever made of the dataset that is named instead of a preset.
    """
    home = Home.from_environment()
    if which.preset is None and which.dataset is None:
        which = replace(which, dataset=str(Workspace.model_fields["dataset"].default))
    elif which.dataset is not None:
        _refuse_unknown(home, which.dataset)
    dataset, model = which.dataset_and_model()
    section = validate_run_config(which.settings())["doctor"]
    assert isinstance(section, DoctorConfig)
    found = examine(
        home,
        dataset,
        model or DEFAULT_MODEL,
        declared_checks(),
        strict=strict or section.strict,
    )
    shown = [status for status in Status if verbose or status is not Status.go]
    for finding in found.findings:
        if finding.status in shown:
            _show(finding, str(which.preset or "PRESET"))
    print(found.headline)
    return 0 if found.go else 1


def _refuse_unknown(home: Home, dataset: str) -> None:
    there = sorted({folder.relative_to(home.path).parts[0] for folder in home.folders(local=False)})
    if dataset not in there:
        raise ConfigError(
            f"there is no dataset {dataset!r} in {home}; there are: {first_few(there) or 'none'}. Name one of them, or "
            "the preset that makes it."
        )


def _show(finding: Finding, preset: str) -> None:
    print(f"{_MARKS[finding.status]}  {finding.asset}: {finding.check}")
    for words in (finding.what, f"why: {finding.why}" if finding.why else ""):
        print(textwrap.indent(textwrap.fill(words, 110, break_on_hyphens=False), "       "), end="\n" if words else "")
    if finding.next_step:
        # In one line, so that it can be copied.
        print(f"       next: {finding.next_step.replace('PRESET', preset)}")
    if finding.status is not Status.go:
        print()
