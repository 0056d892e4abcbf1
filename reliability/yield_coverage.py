"""How often intervals of what a threshold gives in the survey hold the truth: purity, so contamination, and candidates.

A case draws 2,000 sets of rows of one size and kind from two normal laws, each with a stated prevalence and a count of
galaxies that are off by chance. Thresholds are given, or fitted on the very rows that they are judged by, as
`operating_point` does it. Controls are made up, or real galaxies of which as many are lenses as of the survey's.
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np
import polars as pl
import pyarrow as pa
from scipy import special

from lens_pipeline.evaluation.contamination import resolve_contamination
from lens_pipeline.evaluation.intervals import Estimate
from lens_pipeline.evaluation.prevalence import Prevalence
from lens_pipeline.evaluation.ranking import RankedScores, roc_curve
from lens_pipeline.evaluation.resolution import ResolutionRule, resolve
from lens_pipeline.evaluation.survey_yield import Survey, survey_yield
from lens_pipeline.survey.parent_density import galaxy_density
from reliability.coverage import DRAWS, KINDS, Found, Kind, coverage_case
from reliability.subject import Case, Subject

_SHIFTS = np.linspace(1.0, 2.5, 31)
_PREVALENCE, _LOGIT_ERROR = 0.05, 0.5
_PER_DEG2, _AREA_DEG2 = 40.0, 25.0
_TARGET_FPR, _BUDGET = 0.1, 0.5
_RULE = ResolutionRule(5, 0.5)
# Wilson's between 93 and 97 %; Clopper & Pearson's, and what is combined of it, from 94 and 93 % up.
_BOUNDS = {"recall": (0.93, 0.97), "fpr": (0.94, 1.0), "true_fpr": (0.94, 1.0), "purity": (0.93, 1.0)}
_BOUNDS |= {"candidates_per_deg2": (0.93, 1.0)}


def case(number: int) -> Case:
    """Draw one size and kind, with given or fitted thresholds, and lenses among controls or none."""
    made_up, kind, fitted = CASES[number]
    how = (", fitted" if fitted else "") + ("" if made_up else ", lenses among controls")
    return coverage_case("yield_coverage", number, kind, partial(_draw, fitted=fitted, made_up=made_up), _BOUNDS, how)


def _draw(rng: np.random.Generator, kind: Kind, *, fitted: bool, made_up: bool) -> Iterator[Found]:
    shift = float(rng.choice(_SHIFTS))
    hidden = 0.0 if made_up else _PREVALENCE
    rows = _rows(rng, kind, shift, hidden)
    stated = _stated(rng)
    thresholds = _fitted(rows, stated) if fitted else {"given": float(rng.uniform(0.5, 1.5))}
    points = pa.table(
        {
            "operating_point": [*thresholds],
            "threshold": pa.array([*thresholds.values()], pa.float64()),
            "max_contamination": pa.array(
                [_BUDGET if "contamination" in name else None for name in thresholds], pa.float64()
            ),
        }
    )
    found = survey_yield(rows, points, stated, Survey(_density(rng), simulated=made_up))
    judged = {record["operating_point"]: record for record in found.to_pylist()}
    for name, threshold in thresholds.items():
        truth = true_yield(shift, threshold if threshold is not None else 0.0, hidden)
        record = judged.get(name, {})
        ends = {metric: (record.get(f"{metric}_low"), record.get(f"{metric}_high")) for metric in truth}
        ends["true_fpr"] = (record.get("true_fpr_low"), record.get("fpr_high"))
        for metric, value in truth.items():
            yield f"{metric} {name}", value, ends[metric]


def _rows(rng: np.random.Generator, kind: Kind, shift: float, hidden: float) -> pl.DataFrame:
    """Rows of both classes in turn, a share of controls being lenses; injections weigh differently.

    Scores of a galaxy share a tenth of their variance.
    """
    lens = np.arange(kind.n) % 2 == 1
    noise, galaxy = kind.noise(rng)
    weight = np.where(lens, rng.uniform(0.5, 1.5, kind.n), 1.0)
    logit = noise + shift * (lens | (rng.random(kind.n) < hidden))
    return pl.DataFrame({"logit": logit, "is_lens": lens, "galaxy_id": galaxy, "weight": weight})


def _stated(rng: np.random.Generator) -> Prevalence:
    """State a prevalence that is off the true one by chance, with the range that says so."""
    middle = special.logit(_PREVALENCE) + rng.normal(0, _LOGIT_ERROR)
    reach = special.ndtri(0.975) * _LOGIT_ERROR
    value, low, high = (float(special.expit(middle + step)) for step in (0, -reach, reach))
    return Prevalence(value, low, high, "drawn")


def _density(rng: np.random.Generator) -> Estimate:
    found = galaxy_density(int(rng.poisson(_PER_DEG2 * _AREA_DEG2)), {"left_out": {}, "area_deg2": _AREA_DEG2})
    return Estimate(found.value, found.low, found.high, found.n, found.n, None)


def _fitted(rows: pl.DataFrame, stated: Prevalence) -> dict[str, float | None]:
    """Thresholds for a false-positive rate and for a contamination; None where the rows don't resolve it."""
    curve = roc_curve(RankedScores.of(rows["logit"], rows["is_lens"], rows["galaxy_id"]))
    lenses = rows.filter(pl.col("is_lens"))
    return {
        f"at FPR {_TARGET_FPR:g}": resolve(curve, _TARGET_FPR, _RULE).threshold,
        f"at contamination {_BUDGET:g}": resolve_contamination(curve, lenses, _BUDGET, stated, _RULE).threshold,
    }


def true_yield(shift: float, threshold: float, hidden: float) -> dict[str, float]:
    """Return what a threshold gives of two normal laws of unit variance, `shift` apart, at the true prevalence and density.

    Parameters
    ----------
    hidden : float
        Share of lenses among controls; `fpr` is the rate of controls, `true_fpr` that of those which are no lenses.
    """
    recall, fpr = float(special.ndtr(shift - threshold)), float(special.ndtr(-threshold))
    lenses, others = _PREVALENCE * recall, (1 - _PREVALENCE) * fpr
    return {
        "recall": recall,
        "fpr": hidden * recall + (1 - hidden) * fpr,
        "true_fpr": fpr,
        "purity": lenses / (lenses + others),
        "candidates_per_deg2": _PER_DEG2 * (lenses + others),
    }


CASES = list(product((True, False), KINDS, (False, True)))

SUBJECT = Subject(
    name="yield_coverage",
    question="95 % intervals of recall, false-positive rate, purity (1 less contamination) and candidates per square degree "
    "hold the truth in 93 % or more of 2,000 draws (recall in at most 97 %), at given thresholds and at ones that were fitted on "
    "the same rows, with a prevalence and a density that are off by chance too; of controls that hold no lens, and of ones that "
    "hold as many as the survey, there with the rate of those that are none.",
    unit="sets of rows",
    goal=len(CASES) * DRAWS,
    case=case,
    n_cases=len(CASES),
)
