"""How often intervals of differences hold the truth: two models on the same rows, as `model_comparison` compares them.

A case draws 2,000 sets of rows of one size and kind. Both models' scores are normal, a lens's by a shift higher, and alike from
model to model; their shifts are the same or not, each model stands at a threshold of its own.
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
from reliability.interval_coverage import true_decisions, true_ranks
from reliability.subject import Case, Subject

SHIFTS = np.linspace(1.0, 2.5, 16)
# Correlation of two models' scores of a row: about that of two trainings on the same stamps.
_ALIKE = 0.7
_TARGETS = (0.1, 0.01)
_SETTINGS, _RULE = BootstrapSettings(200, 0), ResolutionRule(5, 0.5)
_BOUNDS = {"": (0.93, 0.97)}
# Tango's interval of 25 rows of a class is careful.
_BOUNDS_OF_FEW = {"recall": (0.93, 0.985), "fpr": (0.93, 0.985)} | _BOUNDS
# McNemar's test is exact, so careful, and an interval of equal rates holds 0 wherever the test doesn't exclude it.
_BOUNDS_OF_EQUAL = {"McNemar": (0.94, 1.0), "recall": (0.94, 1.0), "fpr": (0.94, 1.0)} | _BOUNDS


def case(number: int) -> Case:
    """Draw one size and kind, of equally good models or of others."""
    kind, equal = CASES[number]
    how = ", equally good" if equal else ""
    bounds = _BOUNDS_OF_EQUAL if equal else _BOUNDS_OF_FEW if kind.n == KINDS[0].n else _BOUNDS
    return coverage_case("difference_coverage", number, kind, partial(_draw, equal=equal), bounds, how)


def _draw(rng: np.random.Generator, kind: Kind, *, equal: bool) -> Iterator[Found]:
    is_lens = np.arange(kind.n) % 2 == 1
    (first, galaxy), (second, _) = kind.noise(rng), kind.noise(rng)
    shifts = rng.choice(SHIFTS, 2, replace=False)
    thresholds = rng.uniform(0.5, 1.5, 2)
    if equal:
        shifts[1], thresholds[1] = shifts[0], thresholds[0]
    noises = first, _ALIKE * first + np.sqrt(1 - _ALIKE**2) * second
    this, other = (
        Contestant(name, name, _rows(noise + shift * is_lens, is_lens, galaxy), {"t": float(threshold)})
        for name, noise, shift, threshold in zip(("this", "other"), noises, shifts, thresholds, strict=True)
    )
    mine, others = (true_values(*map(float, one)) for one in zip(shifts, thresholds, strict=True))
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
def true_values(shift: float, threshold: float) -> dict[str, float]:
    """Every metric of two normal laws of unit variance, `shift` apart, with as many rows each."""
    ranks, decisions = true_ranks(shift), true_decisions(shift, threshold)
    # Two thousand quantiles of a normal law stand for it; losses are smooth.
    noise = special.ndtri((np.arange(2000) + 0.5) / 2000)
    lens, control = special.expit(noise + shift), special.expit(noise)
    return {
        **{name: ranks[name] for name in ("auroc", "average_precision", "tpr_at_fpr_1e-01", "tpr_at_fpr_1e-02")},
        "log_loss": float((np.logaddexp(0, -noise - shift).mean() + np.logaddexp(0, noise).mean()) / 2),
        "brier": float((((1 - lens) ** 2).mean() + (control**2).mean()) / 2),
        **{name: decisions[name] for name in ("recall_at_t", "fpr_at_t")},
    }


CASES = list(product(KINDS, (False, True)))

SUBJECT = Subject(
    name="difference_coverage",
    question="95 % intervals of the differences of two models on the same rows hold the truth in 93 to 97 % of 2,000 draws (of "
    "rates in up to 98.5 % from 50 rows), McNemar's test takes equally good ones for different in at most 5 % (6 % of 2,000 "
    "draws), and so do intervals of their rates, from rows alone and from galaxies with an intra-galaxy correlation of 0.1.",
    unit="sets of rows",
    goal=len(CASES) * DRAWS,
    case=case,
    n_cases=len(CASES),
)
