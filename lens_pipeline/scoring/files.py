"""The step's side of scoring stamps that are in no store: start the process that does it. Imports no torch."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lens_pipeline.scoring.process import compute
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication


def score_files(
    classifiers: Sequence[Publication], names: Sequence[str], *, flux_unit: str, tta: bool, cut_centre: bool = False
) -> pa.Table:
    """Score every stamp of some files, as ``lens_pipeline predict`` does.

    Parameters
    ----------
    classifiers : sequence of Publication
        One model, or the members of an ensemble.
    names : sequence of str
        Files as `inputs.read_stamps` takes them; ``*`` is expanded.
    flux_unit : str
        Unit of FITS files that have no BUNIT; empty where all have one.
    cut_centre : bool
        Whether FITS images larger than a stamp are cut to their centre, else refused.

    Returns
    -------
    pyarrow.Table
        PREDICTIONS.

    Raises
    ------
    ScoringError
        If the process refused, or failed.
    """
    for classifier in classifiers:
        classifier.fetch()
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-files-") as name:
        folder = Path(name)
        run = {
            "classifiers": [str(classifier.folder.absolute()) for classifier in classifiers],
            "inputs": list(names),
            "flux_unit": flux_unit,
            "tta": tta,
            "cut_centre": cut_centre,
        }
        compute("predict", run, folder)
        return read_parquet(folder / "predictions.parquet")
