"""How often intervals of differences hold the truth: two models on the same rows, as `model_comparison` compares them.

A case draws 2,000 sets of rows of one size and kind. Both models' scores are normal, a lens's by a shift higher, and alike from
model to model; their shifts are the same or not, each model stands at a threshold of its own. Nearly perfect models are compared
too, and models on 30 lenses among 3,000 controls.
"""

from collections.abc import Iterator
from functools import cache, partial
from itertools import product

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import special

from lens_pipeline.evaluation.comparison import Contestant, compare
from lens_pipeline.evaluation.metrics import BootstrapSettings
from lens_pipeline.evaluation.resolution import ResolutionRule
from reliability.coverage import DRAWS, KINDS, Found, Kind, coverage_case
from reliability.interval_coverage import ALL_SHIFTS, FAR_SHIFTS, FEW_KINDS, FEW_LENSES, true_decisions, true_ranks
from reliability.subject import Case, Subject

SHIFTS = np.linspace(1.0, 2.5, 16)
# Correlation of two models' scores of a row: about that of two trainings on the same stamps.
_ALIKE = 0.7
_TARGETS = (0.1, 0.01)
_SETTINGS, _RULE = BootstrapSettings(200, 0), ResolutionRule(5, 0.5)
_BOUNDS = {"": (0.93, 0.97)}
# Tango's interval of 25 rows of a class is careful.
_BOUNDS_OF_FEW = {"recall": (0.93, 0.985), "fpr": (0.93, 0.985)} | _BOUNDS
# So are those of areas that rest on few galaxies, and of rates near 0 and 1.
_AREAS = {area: (0.93, 1.0) for area in ("auroc", "average_precision")}
_CAREFUL = {"McNemar": (0.94, 1.0), "": (0.93, 1.0)}
# McNemar's test is exact, so careful, and an interval of equal rates holds 0 wherever the test doesn't exclude it.
_BOUNDS_OF_EQUAL = {"McNemar": (0.94, 1.0), "recall": (0.94, 1.0), "fpr": (0.94, 1.0)} | _BOUNDS


def case(number: int) -> Case:
    """Draw one size and kind, of equally good models or of others."""
    kind, equal, (name, shifts, one_in) = CASES[number]
    how = (", equally good" if equal else "") + name
    bounds = _BOUNDS_OF_EQUAL if equal else _BOUNDS_OF_FEW if kind.n == KINDS[0].n else _BOUNDS
    if kind.n == KINDS[0].n:
        bounds = _AREAS | bounds
    if name:
        bounds = _CAREFUL
    family = partial(_draw, equal=equal, shifts=shifts, one_in=one_in)
    return coverage_case("difference_coverage", number, kind, family, bounds, how)


def _draw(
    rng: np.random.Generator, kind: Kind, *, equal: bool, shifts: npt.NDArray[np.float64], one_in: int
) -> Iterator[Found]:
    is_lens = np.arange(kind.n) % one_in == one_in - 1
    (first, galaxy), (second, _) = kind.noise(rng), kind.noise(rng)
    apart = rng.choice(shifts, 2, replace=False)
    thresholds = rng.uniform(0.5, 1.5, 2)
    if equal:
        apart[1], thresholds[1] = apart[0], thresholds[0]
    noises = first, _ALIKE * first + np.sqrt(1 - _ALIKE**2) * second
    this, other = (
        Contestant(name, name, _rows(noise + shift * is_lens, is_lens, galaxy), {"t": float(threshold)})
        for name, noise, shift, threshold in zip(("this", "other"), noises, apart, thresholds, strict=True)
    )
    mine, others = (
        true_values(float(shift), float(threshold), one_in) for shift, threshold in zip(apart, thresholds, strict=True)
    )
    for record in compare(this, other, _TARGETS, _RULE, _SETTINGS):
        metric = record["metric"]
        yield metric, mine[metric] - others[metric], (record["low"], record["high"])
        if equal and record["p_value"] is not None:
            # Of equally good models one in twenty may have a p below 0.05.
            yield f"McNemar of {metric}", 0.05, (0.0, record["p_value"])


def _rows(
    logit: npt.NDArray[np.float64], is_lens: npt.NDArray[np.bool_], galaxy: npt.NDArray[np.int64]
) -> pl.DataFrame:
    key = np.arange(len(logit)).astype(str)
    return pl.DataFrame({
        "task_id": key, "pixel_hash": key, "galaxy_id": galaxy, "logit": logit, "is_lens": is_lens,
        "label": is_lens.astype(np.int8),
    })  # fmt: skip


@cache
def true_values(shift: float, threshold: float, one_in: int) -> dict[str, float]:
    """Every metric of two normal laws of unit variance, `shift` apart, with one row in so many a lens."""
    ranks, decisions = true_ranks(shift, one_in), true_decisions(shift, threshold)
    # Two thousand quantiles of a normal law stand for it; losses are smooth.
    noise = special.ndtri((np.arange(2000) + 0.5) / 2000)
    lens, control = special.expit(noise + shift), special.expit(noise)

    def of_both(of_lenses: npt.NDArray[np.float64], of_controls: npt.NDArray[np.float64]) -> float:
        return float(of_lenses.mean() + (one_in - 1) * of_controls.mean()) / one_in

    return {
        **{name: ranks[name] for name in ("auroc", "average_precision", "tpr_at_fpr_1e-01", "tpr_at_fpr_1e-02")},
        "log_loss": of_both(np.logaddexp(0, -noise - shift), np.logaddexp(0, noise)),
        "brier": of_both((1 - lens) ** 2, control**2),
        **{name: decisions[name] for name in ("recall_at_t", "fpr_at_t")},
    }


_USUAL, _FAR = ("", SHIFTS, 2), (", nearly perfect", FAR_SHIFTS, 2)
_FEW = ", few lenses", ALL_SHIFTS, FEW_LENSES
CASES = [
    *product(KINDS, (False, True), [_USUAL]),
    *product(KINDS[:4], (False, True), [_FAR]),
    *product(FEW_KINDS, (False, True), [_FEW]),
]

SUBJECT = Subject(
    name="difference_coverage",
    question="95 % intervals of the differences of two models on the same rows hold the truth in 93 to 97 % of 2,000 draws (of "
    "rates in up to 98.5 % from 50 rows), McNemar's test takes equally good ones for different in at most 5 % (6 % of 2,000 "
    "draws), and so do intervals of their rates, from rows alone and from galaxies with an intra-galaxy correlation of 0.1; "
    "of areas of 50 rows, of nearly perfect models and of 30 lenses among 3,000 controls they hold it in 93 % or more.",
    unit="sets of rows",
    goal=len(CASES) * DRAWS,
    case=case,
    n_cases=len(CASES),
)
