"""Probabilities of stamps that are in no store: the calibration that the model's operating point was frozen with, or why none.

Belongs here: which operating point is a model's own, and what its calibration makes of logits. Nothing is fitted.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lens_pipeline.contracts.errors import ConfigError, EvaluationError
from lens_pipeline.evaluation.calibration import frozen_calibrator
from lens_pipeline.evaluation.calibrators import Calibrator
from lens_pipeline.scoring.aliases import SCORES, green_versions
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

COLUMNS = ("p_lens", "extrapolated", "p_lens_reason")
_OPERATING_POINT = "operating_point"


@dataclass(frozen=True)
class FrozenOdds:
    """What turns a logit into the probability of a lens.

    Attributes
    ----------
    calibrator : Calibrator
    prevalence : float
        Share of lenses among the galaxies that are scored, above 0 and below 1.
    source : str
        Where the prevalence comes from, in words.
    operating_point : str
        Version that the calibration was frozen with.
    """

    calibrator: Calibrator
    prevalence: float
    source: str
    operating_point: str

    def __str__(self) -> str:
        return (
            f"at a prevalence of {self.prevalence:g} ({self.source}), "
            f"{self.calibrator.method.value} calibration of operating_point {self.operating_point}"
        )


@dataclass(frozen=True)
class NoOdds:
    """Why no logit becomes a probability.

    Attributes
    ----------
    reason : str
    """

    reason: str

    def __str__(self) -> str:
        return f"null: {self.reason}"


Odds = FrozenOdds | NoOdds


def odds_of(home: Home, named: Publication, *, is_turned: bool, prevalence: float | None = None) -> Odds:
    """Take the calibration of the newest green operating point that was fitted on scores of a version of a model.

    Parameters
    ----------
    named : Publication
        A lens_classifier, or the scores of an ensemble.
    is_turned : bool
        Whether logits are means over a stamp's turns and flips: a calibration is of one kind of logit.
    prevalence : float, optional
        Instead of the one that the operating point states.

    Raises
    ------
    ConfigError
        If the prevalence is none.
    """
    if prevalence is not None and not 0 < prevalence < 1:
        raise ConfigError(
            f"--prevalence {prevalence:g} is none: give the share of lenses among all galaxies, above 0 and below 1."
        )
    scored = _scores_of(home, named)
    points = [
        (point, scores)
        for point in reversed(green_versions(home, named.dataset, _OPERATING_POINT, named.model))
        for scores in scored
        if point.version_read(scores) == scores.version
    ]
    if not points:
        return NoOdds(
            f"{home} has no green operating_point of {named.asset} {named.version}, so nothing says what a logit is worth. "
            "Next: dagster asset materialize --select 'scores*' -m lens_pipeline.definitions -c PRESET"
        )
    alike = [point for point, scores in points if scores.attributes.get("tta", False) == is_turned]
    if not alike:
        kinds = ("single stamps", "means over 8 turns and flips")
        return NoOdds(
            f"operating_point {points[0][0].version} was fitted on logits of {kinds[not is_turned]}, these are of "
            f"{kinds[is_turned]}. Next: {'leave out' if is_turned else 'add'} --tta"
        )
    point = alike[0]
    try:
        calibrator = frozen_calibrator(point)
    except EvaluationError as error:
        return NoOdds(str(error))
    if calibrator.why_no_p_lens:
        return NoOdds(f"operating_point {point.version}: {calibrator.why_no_p_lens}")
    stated = point.attributes["prevalence"]
    if prevalence is None:
        return FrozenOdds(calibrator, stated["value"], stated["source"], point.version)
    return FrozenOdds(calibrator, prevalence, "as was asked for", point.version)


def probability_columns(odds: Odds, logits: npt.ArrayLike, refused: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Columns `p_lens`, `extrapolated` and `p_lens_reason` of some rows.

    Parameters
    ----------
    logits : array of float, shape (n,)
        NaN where refused.
    refused : array of bool, shape (n,)
        Rows without a logit: `reason` says why they have no probability either.
    """
    n = len(refused)
    if isinstance(odds, NoOdds):
        reasons = pa.array([odds.reason] * n, pa.string(), mask=refused)
        return dict(zip(COLUMNS, (pa.nulls(n, pa.float64()), pa.nulls(n, pa.bool_()), reasons), strict=True))
    scores = np.where(refused, 0.0, np.asarray(logits, dtype=np.float64))
    return {
        "p_lens": pa.array(odds.calibrator.p_lens(scores, odds.prevalence), pa.float64(), mask=refused),
        "extrapolated": pa.array(odds.calibrator.is_extrapolated(scores), pa.bool_(), mask=refused),
        "p_lens_reason": pa.nulls(n, pa.string()),
    }


def _scores_of(home: Home, named: Publication) -> list[Publication]:
    """Scores of a version alone: an ensemble's own, or those that one classifier made without others."""
    if named.asset == SCORES:
        return [named]
    versions = home.versions(named.dataset, SCORES, model=named.model)
    return [one for one in versions if not one.attributes.get("members") and one.version_read(named) == named.version]
