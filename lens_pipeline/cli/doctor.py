"""``lens_pipeline doctor``: one GO or NO-GO about what is published, each finding with its cause and what to type next."""

import textwrap
from dataclasses import replace

from lens_pipeline.audits.doctor import DoctorConfig, Finding, Status, examine
from lens_pipeline.cli.predict import Which
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
    """
    if which.preset is None and which.dataset is None:
        which = replace(which, dataset=str(Workspace.model_fields["dataset"].default))
    dataset, model = which.dataset_and_model()
    section = validate_run_config(which.settings())["doctor"]
    assert isinstance(section, DoctorConfig)
    found = examine(
        Home.from_environment(),
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


def _show(finding: Finding, preset: str) -> None:
    print(f"{_MARKS[finding.status]}  {finding.asset}: {finding.check}")
    for words in (finding.what, f"why: {finding.why}" if finding.why else ""):
        print(textwrap.indent(textwrap.fill(words, 110, break_on_hyphens=False), "       "), end="\n" if words else "")
    if finding.next_step:
        # In one line, so that it can be copied.
        print(f"       next: {finding.next_step.replace('PRESET', preset)}")
    if finding.status is not Status.go:
        print()
