"""The step's side of exporting: start the process that does it, and put the program into the version. Imports no torch."""

import json
import tempfile
from pathlib import Path

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.scoring.process import compute
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

PROGRAM = "model.pt2"
CHECK = "exported_program_agrees"
_TRIAL = "program"


def export(store: Publication, staging: Staging) -> None:
    """Add ``model.pt2`` to a version of lens_classifier that holds model.json and model.safetensors.

    A model that can't be exported is published without, and `exported_program_agrees` says so: hours of training stand.
    """
    store.fetch()
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-export-") as name:
        folder = Path(name)
        run = {"classifier": str(staging.folder.absolute()), "store": str(store.folder.absolute())}
        try:
            compute("export", run, folder)
        except ScoringError as error:
            staging.provenance[_TRIAL] = {"refused": str(error)}
            return
        staging.write_bytes(PROGRAM, (folder / PROGRAM).read_bytes())
        staging.provenance[_TRIAL] = json.loads((folder / "trial.json").read_bytes())


def exported_program_agrees(classifier: Publication) -> Check:
    """Check that the version holds a program that loads without this package and gives the model's own logits."""
    trial = classifier.manifest.provenance.get(_TRIAL, {})
    if PROGRAM not in classifier.manifest.files:
        return red(
            CHECK,
            f"lens_classifier {classifier.version} has no {PROGRAM}",
            wrong=[trial.get("refused", "it was made without one")],
            why="the model can be scored with here, but not loaded without this package",
            next_step="train another architecture, or take model.safetensors and model.json to where this package is",
            blocking=False,
        )
    return green(
        CHECK,
        f"{PROGRAM}, read back, gives the model's own logits on {trial.get('rows', 0)} stored rows: the largest difference is "
        f"{trial.get('largest_difference', 0.0):.3g}",
        blocking=False,
        rows=trial.get("rows"),
        largest_difference=trial.get("largest_difference"),
    )
