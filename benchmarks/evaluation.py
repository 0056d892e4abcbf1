"""What metrics with intervals cost at full size: 10.6 million scored rows, whole and in 12 strata, each with 1,000 replicates.

Replicates are over galaxies and over regions, of every rank metric (areas, rates, precision at a prevalence) and of the
calibration error, losses beside. On the other side the usual way: resample the rows of drawn regions and call scikit-learn, for
two of these metrics, on a hundredth of the rows.
"""

import resource
import time
from collections.abc import Callable, Iterator

import numpy as np
import polars as pl
from sklearn import metrics as oracle

from benchmarks.harness import Result, summarise
from lens_pipeline.evaluation.likelihood_metrics import calibration_metric, likelihood_metrics
from lens_pipeline.evaluation.metrics import BootstrapSettings, Metric
from lens_pipeline.evaluation.rank_metrics import Asked, rank_metrics
from lens_pipeline.evaluation.resolution import ResolutionRule

ROWS, STRATA, REGIONS, REPLICATES = 10_600_000, 12, 12_000, 1000
_RULE = ResolutionRule(5, 0.5)
_ASKED = Asked(tprs=(0.5, 0.7, 0.85), max_fprs=(0.1, 0.01), prevalence=1e-3)
_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
_NAIVE_REPLICATES = 5


def run(quick: bool) -> list[Result]:
    """Measure time and memory at full size, and the ratio to resampled rows at a hundredth of it."""
    n = ROWS // 100 if quick else ROWS
    rows = generate(n)
    before = _gigabytes()
    began, began_cpu = time.monotonic(), time.process_time()
    counted = sum(len(metrics) for metrics in measure(rows, REPLICATES))
    wall, seconds = time.monotonic() - began, time.process_time() - began_cpu
    print(
        f"{n:,} rows, whole and in {STRATA} strata, {counted} metrics: {seconds:.1f} s of CPU ({wall:.1f} s on the "
        f"clock, beside whatever else ran), {_gigabytes():.2f} GB at most, "
        f"{before:.2f} GB with the table alone"
    )
    part = generate(ROWS // 1000 if quick else ROWS // 100)
    ours = _seconds(lambda: list(measure(part, REPLICATES)))
    theirs = _seconds(lambda: naive(part, _NAIVE_REPLICATES)) * REPLICATES / _NAIVE_REPLICATES
    here = {"against": "60 s of CPU, all threads together", "n": n}
    return [
        summarise("evaluation_time", [60 / seconds], goal=1.0, **here),
        summarise("evaluation_memory", [4 / _gigabytes()], goal=1.0, against="4 GB asked for", n=n),
        summarise(
            "evaluation_ratio", [theirs / ours], goal=None, n=part.height,
            against=f"rows of regions resampled {REPLICATES} times, AUROC and average precision of scikit-learn alone",
        ),
    ]  # fmt: skip


def generate(n: int, seed: int = 0) -> pl.DataFrame:
    """Return scored rows: half of them lenses, a control and an injection a galaxy, galaxies in regions, a stratum a row."""
    rng = np.random.default_rng(seed)
    galaxy = np.arange(n) // 2
    region = (galaxy * min(REGIONS, n // 20)) // (n // 2 + 1)
    lens = np.arange(n) % 2 == 0
    taste = 0.3 * rng.normal(size=galaxy[-1] + 1)[galaxy] + 0.2 * rng.normal(size=region[-1] + 1)[region]
    logit = (rng.normal(size=n) + taste + 3.0 * lens).astype(np.float32).astype(np.float64)
    return pl.DataFrame(
        {
            "logit": logit, "is_lens": lens, "galaxy_id": galaxy, "region_id": region,
            "stratum": rng.integers(0, STRATA, n, dtype=np.int8)[galaxy],
        }
    )  # fmt: skip


def measure(rows: pl.DataFrame, n_replicates: int) -> Iterator[list[Metric]]:
    """Yield every metric of all rows, and of each stratum."""
    settings = BootstrapSettings(n_replicates, 0)
    for stratum in (None, *range(STRATA)):
        mine = rows if stratum is None else rows.filter(pl.col("stratum") == stratum)
        ranks = rank_metrics(mine, "test", _TARGETS, _RULE, settings, asked=_ASKED, stratum=str(stratum))
        yield [*ranks, *likelihood_metrics(mine, "test"), calibration_metric(mine, "test", settings)]


def naive(rows: pl.DataFrame, n_replicates: int) -> None:
    """Resample the rows of drawn regions and measure two metrics with scikit-learn."""
    rng = np.random.default_rng(0)
    for stratum in range(STRATA):
        mine = rows.filter(pl.col("stratum") == stratum).sort("region_id")
        logit, lens = mine["logit"].to_numpy(), mine["is_lens"].to_numpy()
        starts = np.flatnonzero(np.diff(mine["region_id"].to_numpy(), prepend=-1))
        places = np.split(np.arange(logit.size), starts[1:])
        for _ in range(n_replicates):
            drawn = np.concatenate([places[i] for i in rng.integers(0, len(places), len(places))])
            oracle.roc_auc_score(lens[drawn], logit[drawn])
            oracle.average_precision_score(lens[drawn], logit[drawn])


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def _gigabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
