"""The jobs of the process that computes with a trained model, so that no step of the chain ever loads torch."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.scoring.compatibility import refuse_other_stamps
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.digests import COLUMN, published_logits, row_words, score_digests
from lens_pipeline.scoring.ensemble import mean_logits
from lens_pipeline.scoring.logits import score_rows
from lens_pipeline.scoring.model import Ensemble, open_classifier, read_classifier
from lens_pipeline.scoring.process import REFUSED
from lens_pipeline.scoring.program import export_program
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication


def main(arguments: list[str]) -> int:
    """Do a job as RUN.json says; a refusal is written beside it and is exit code 3."""
    if len(arguments) != 2 or arguments[0] not in _JOBS:
        print(f"usage: python -m lens_pipeline.scoring {'|'.join(_JOBS)} RUN.json", file=sys.stderr)
        return 2
    path = Path(arguments[1])
    try:
        _JOBS[arguments[0]](json.loads(path.read_bytes()), path.parent)
    except PipelineError as error:
        refusal = {"kind": type(error).__name__, "message": str(error)}
        path.with_name("refusal.json").write_text(json.dumps(refusal))
        return REFUSED
    return 0


def _score(run: dict[str, Any], folder: Path) -> None:
    """Write logits.safetensors, of each classifier under its place, with the scores' digests, and how the rows were read."""
    models, store = [Publication.open(Path(name)) for name in run["classifiers"]], Publication.open(Path(run["store"]))
    logits = {}
    for place, model in enumerate(models):
        refuse_other_stamps(model, store)
        logits[str(place)] = score_rows(
            open_classifier(model),
            StampStore.open(store),
            ScoringConfig.model_validate(run["config"]),
            on_choice=lambda choice: (folder / "reader.txt").write_text(choice.why),
        )
    scores = published_logits(mean_logits([*logits.values()]))
    digests = score_digests(row_words(store), scores, models)
    save_file(logits | {COLUMN: digests}, folder / "logits.safetensors")


def _export(run: dict[str, Any], folder: Path) -> None:
    """Write model.pt2 of a model that isn't published yet, and what was seen when it was tried."""
    store = StampStore.open(Publication.open(Path(run["store"])))
    trial = export_program(read_classifier(Path(run["classifier"])), store, folder / "model.pt2")
    (folder / "trial.json").write_text(json.dumps(trial.to_json()))


def _predict(run: dict[str, Any], folder: Path) -> None:
    """Write predictions.parquet (PREDICTIONS) of the stamps in some files."""
    # Imported when it is used: readers of other files take a second to load, which scoring a store shouldn't pay.
    from lens_pipeline.scoring.fits_inputs import FitsOptions
    from lens_pipeline.scoring.inputs import expand
    from lens_pipeline.scoring.predict import predict_files

    members = tuple(open_classifier(Publication.open(Path(name))) for name in run["classifiers"])
    model = replace(members[0], is_turned=run["tta"]) if len(members) == 1 else Ensemble(members, run["tta"])
    options = FitsOptions(flux_unit=run["flux_unit"] or None, cut_centre=run["cut_centre"])
    predict_files(model, expand(run["inputs"], model.contract.bands), folder / "predictions.parquet", options=options)


_JOBS = {"score": _score, "export": _export, "predict": _predict}
