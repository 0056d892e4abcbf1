"""Calibration of an operating point: every method judged by cross-validation inside val_calibrate, the chosen one frozen.

val_calibrate alone is read. A figure of merit is never of rows that its fit has seen: galaxies are dealt into folds, and a row is
judged by the fit without its galaxy's fold.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from lens_pipeline.contracts.catalogue import CALIBRATION, CALIBRATION_RELIABILITY
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.calibrators import Bools, Calibrator, Floats, Method, even_weights, fit_calibrator
from lens_pipeline.evaluation.config import OperatingPointConfig
from lens_pipeline.evaluation.intervals import Estimate, kish, numbered
from lens_pipeline.evaluation.likelihood_metrics import brier_scores, log_losses
from lens_pipeline.evaluation.mean_losses import Losses
from lens_pipeline.evaluation.metrics import Clusters
from lens_pipeline.evaluation.regions import region_numbers
from lens_pipeline.evaluation.reliability_bins import reliability_rows
from lens_pipeline.evaluation.scored_rows import galaxy_numbers
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

FILE = "calibration.json"
# At even odds a mean rests on the rarer class: simulated intervals of a log loss hold in 95 % of draws of 200 rows, 93 % of 100.
_MIN_ROWS_A_CLASS = 200
# Of 200 lenses among 3,000 controls, AUROC 0.9977, a score three times too certain: simulated intervals of a log loss hold in
# 91 % of all draws, in 94 % of those with so many galaxies on the wrong side. By how few losses carry the spread one would keep
# the draws that happen to lack large ones, of which 48 % hold.
_MIN_WRONG = 5
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Labelled:
    """Scored rows as a calibration needs them, each array of shape (n,).

    Attributes
    ----------
    weights : array of float64
        What a row counts within its class: an injection's weight in the population, 1 for a control.
    galaxies : array of int64
    regions : array of int64 or None
        As `regions.region_numbers` gives them; None where nobody knows of regions.
    """

    logits: Floats
    is_lens: Bools
    weights: Floats
    galaxies: Counts
    regions: Counts | None = None

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Labelled":
        """Take `logit`, `is_lens`, `weight` and `galaxy_id` of rows, and `region_id` where there is one; distinct controls."""
        lens = rows["is_lens"].to_numpy()
        weights = np.where(lens, rows["weight"].to_numpy(), 1.0)
        return cls(rows["logit"].to_numpy(), lens, weights, galaxy_numbers(rows), region_numbers(rows))

    def fit(self, method: Method, prior_logit: float, rows: Bools | slice = slice(None)) -> Calibrator:
        """Fit a calibrator to some of the rows."""
        lens, weights, galaxies = self.is_lens[rows], self.weights[rows], self.galaxies[rows]
        n_lenses, n_controls = (np.unique(galaxies[(weights > 0) & of]).size for of in (lens, ~lens))
        fitted = fit_calibrator(method, self.logits[rows], lens, weights, prior_logit)
        return replace(fitted, n_lens_galaxies=n_lenses, n_control_galaxies=n_controls)

    def reliability(self, method: Method, ratio: Floats, n_bins: int) -> list[dict[str, object]]:
        """Rows of a reliability table of these log likelihood ratios."""
        return reliability_rows(method.value, ratio, self.is_lens, self.weights, self.galaxies, n_bins)


@dataclass(frozen=True)
class Calibration:
    """What was fitted.

    Attributes
    ----------
    calibrator : Calibrator
        The chosen one, on all of val_calibrate.
    table, reliability : pyarrow.Table
        CALIBRATION and CALIBRATION_RELIABILITY.
    """

    calibrator: Calibrator
    table: pa.Table
    reliability: pa.Table


def publish_calibration(
    config: OperatingPointConfig, rows: pl.DataFrame, alike: pl.DataFrame, prior_logit: float, staging: Staging
) -> Calibration:
    """Judge every method, fit the chosen one, and write both beside the thresholds.

    Parameters
    ----------
    rows : polars.DataFrame
        val_calibrate, joined to the store; distinct controls, both classes.
    alike : polars.DataFrame
        Of these the injections and the controls that the survey has (`of_survey`), which it is fitted on. Without such a control
        it is fitted on all, and no row has a `p_lens`.
    prior_logit : float
        Log-odds of a lens among the rows that the model was trained on.
    """
    has_controls = not alike["is_lens"].all()
    mine = Labelled.of(alike if has_controls else rows)
    folds = galaxy_folds(mine.galaxies, mine.is_lens, config.calibration_folds)
    ratios = {method: cross_fitted(method, mine, folds, prior_logit) for method in Method}
    records = [
        judged(method, ratio, ratios[Method.uncalibrated], mine, folds) | {"chosen": method is config.calibration}
        for method, ratio in ratios.items()
    ]
    bins = [
        row
        for method in dict.fromkeys((Method.uncalibrated, config.calibration))
        if (ratio := ratios[method]) is not None
        for row in mine.reliability(method, ratio, config.reliability_bins)
    ]
    calibrator = mine.fit(config.calibration, prior_logit)
    if not has_controls:
        calibrator = replace(calibrator, n_control_galaxies=0)
    table = pa.Table.from_pylist(records, schema=CALIBRATION.schema)
    reliability = pa.Table.from_pylist(bins, schema=CALIBRATION_RELIABILITY.schema)
    staging.write_table("calibration", table, CALIBRATION)
    staging.write_table("reliability", reliability, CALIBRATION_RELIABILITY)
    staging.write_json(FILE, calibrator.as_json())
    staging.attributes["reliability_bins"] = config.reliability_bins
    return Calibration(calibrator, table, reliability)


def frozen_calibrator(operating_point: Publication) -> Calibrator:
    """Read the calibrator that an operating point was frozen with.

    Raises
    ------
    EvaluationError
        If it was published before there was a calibration.
    """
    if FILE not in operating_point.manifest.files:
        raise EvaluationError(
            f"operating_point {operating_point.version} holds no calibration ({FILE}). Next: dagster asset materialize "
            "--select 'operating_point*' -m lens_pipeline.definitions -c PRESET"
        )
    return Calibrator.from_json(operating_point.read_json(FILE))


def prior_logit_of(labels: npt.ArrayLike) -> float:
    """Log-odds of a lens among rows with these labels; 0 (even odds) where one class is absent.

    Parameters
    ----------
    labels : array of bool, shape (n,)
    """
    lens = np.asarray(labels, dtype=bool)
    n_lenses = int(lens.sum())
    return float(np.log(n_lenses / (lens.size - n_lenses))) if 0 < n_lenses < lens.size else 0.0


def galaxy_folds(galaxies: Counts, is_lens: Bools, n_folds: int) -> Counts | None:
    """Deal galaxies into folds, in an order drawn with a fixed seed, so that each class is in at least two of them.

    Returns
    -------
    array of int64, shape (n,), or None
        Fold of each row; fewer folds where a class has fewer galaxies. None where a class has less than two.
    """
    names, galaxy = np.unique(galaxies, return_inverse=True)
    m = names.size
    lenses = np.bincount(galaxy[is_lens], minlength=m) > 0
    controls = np.bincount(galaxy[~is_lens], minlength=m) > 0
    dealt = min(n_folds, int(lenses.sum()), int(controls.sum()))
    if dealt < 2:
        return None
    drawn = np.random.default_rng(0).permutation(m)
    # Galaxies with lenses alone, with both, with controls alone: each class is one run, which no single fold can swallow.
    order = drawn[np.argsort((controls.astype(int) - lenses)[drawn], kind="stable")]
    fold = np.empty(m, dtype=np.int64)
    fold[order] = np.arange(m) % dealt
    return fold[galaxy]


def cross_fitted(method: Method, rows: Labelled, folds: Counts | None, prior_logit: float) -> Floats | None:
    """Log likelihood ratio of each row by the fit without its fold, shape (n,); None where there are no folds."""
    if folds is None:
        return None
    ratio = np.empty_like(rows.logits)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        ratio[out] = rows.fit(method, prior_logit, ~out).log_likelihood_ratio(rows.logits[out])
    return ratio


def judged(
    method: Method, ratio: Floats | None, base: Floats | None, rows: Labelled, folds: Counts | None
) -> dict[str, object]:
    """Row of CALIBRATION of one method, but for `chosen`, from log likelihood ratios of rows that its fits have not seen.

    Parameters
    ----------
    ratio, base : array of float64, shape (n,), or None
        Of this method and of the uncalibrated score, as `cross_fitted` gives them.
    folds : array of int64, shape (n,), or None
        As `galaxy_folds` gives them.
    """
    lens = rows.is_lens
    record: dict[str, object] = {
        "method": method.value,
        "n_lenses": int(lens.sum()),
        "n_controls": int((~lens).sum()),
        "n_galaxies": int(np.unique(rows.galaxies).size),
    }
    if ratio is None or base is None or folds is None:
        return record | {"reason": "a class has fewer than two galaxies, so none can be left out of a fit"}
    loss, before = (log_losses(one, lens) for one in (ratio, base))
    log_loss = _mean(loss, rows, ratio, floor=0.0)
    record |= {"n_folds": int(folds.max()) + 1, "reason": log_loss.reason}
    record |= _with_ends("log_loss", log_loss) | _with_ends(
        "brier", _mean(brier_scores(ratio, lens), rows, ratio, floor=0.0)
    )
    if method is not Method.uncalibrated:
        record |= _with_ends("gain", _widened(_mean(before - loss, rows, ratio), int(folds.max()) + 1))
    return record


def _mean(losses: Floats, rows: Labelled, ratio: Floats, floor: float | None = None) -> Estimate:
    """Mean of losses at even odds, over galaxies or over regions where those know less.

    Without an interval where a class has less than 200 effective rows, on which the mean rests whatever the other class has, or
    where less than 5 galaxies, by the variance that their weights give them, have rows whose ratio is on the wrong side of even
    odds: those have the large losses, and of so few the largest may be missing.
    """
    even = even_weights(rows.is_lens, rows.weights)
    found = Losses.of(losses, rows.is_lens, even).over_both(Clusters(rows.galaxies, rows.regions), floor=floor)
    n_eff, name = min(
        (kish(rows.weights[of]), name) for of, name in ((rows.is_lens, "lenses"), (~rows.is_lens, "controls"))
    )
    wrong = kish(np.bincount(numbered(rows.galaxies)[0], weights=even**2 * ((ratio > 0) != rows.is_lens)))
    if n_eff < _MIN_ROWS_A_CLASS:
        words = f"{n_eff:.3g} effective {name}, of fewer than {_MIN_ROWS_A_CLASS} a mean rests on a few large ones"
    elif wrong < _MIN_WRONG:
        words = f"{wrong:.3g} effective galaxies on the wrong side of even odds, of fewer than {_MIN_WRONG} none may be far off"
    else:
        return found
    return replace(found, low=None, high=None, reason=f"no interval: {words}")


def _widened(found: Estimate, n_folds: int) -> Estimate:
    """Widen the interval of what k folds say of a difference by sqrt(1 + k / (k - 1)), for the fits share most of their rows.

    Corrected variance of Nadeau & Bengio 2003 (Machine Learning 52, 239): 1 / k becomes 1 / k + 1 / (k - 1).
    """
    if found.value is None or found.low is None or found.high is None:
        return found
    factor = np.sqrt(1 + n_folds / (n_folds - 1))
    low, high = (found.value + factor * (end - found.value) for end in (found.low, found.high))
    return replace(found, low=float(low), high=float(high))


def _with_ends(name: str, found: Estimate) -> dict[str, object]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
