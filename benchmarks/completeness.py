"""Completeness of a survey at full size: 10.6 million scored rows along every axis and grid, and what a loop over cells takes."""

import resource
import time

import numpy as np
import polars as pl

from benchmarks.harness import Result, summarise
from lens_pipeline.evaluation.axes import AXES, with_axes
from lens_pipeline.evaluation.cells import cut_axis
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.counting import Attempts, Tally, Threshold
from lens_pipeline.evaluation.intervals import clustered_proportion
from lens_pipeline.evaluation.parent_share import ParentShare
from lens_pipeline.evaluation.scored_rows import galaxy_numbers

_ROWS, _SECONDS = 10_600_000, 15.0
_INJECTIONS_PER_GALAXY = 4
_REGIONS = 1_000
_THRESHOLDS = [Threshold(name, logit) for name, logit in (("a", -1.0), ("b", 0.5), ("c", 2.0), ("d", 3.5))]


def run(quick: bool) -> list[Result]:
    n, rounds = (106_000, 2) if quick else (_ROWS, 3)
    rows, config = scored_rows(n), CompletenessConfig()
    allowed = _SECONDS * n / _ROWS
    ratios, against_loop = [], []
    for _ in range(rounds):
        began = time.process_time()
        count(rows, config)
        took = time.process_time() - began
        ratios.append(allowed / took)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{n:,} scored rows, {len(_THRESHOLDS)} thresholds: {took:.1f} s of CPU time, {peak:.1f} GiB at most",
            flush=True,
        )
        part = rows.head(max(n // 100, 10_000))
        began = time.process_time()
        records = along_a_loop(part, config)
        against_loop.append(_per_cell(time.process_time() - began, records, part.height))
        against_loop[-1] /= _per_cell(took, _n_records(config, rows), n)
    return [
        summarise("completeness", ratios, against=f"{_SECONDS:g} s for {_ROWS:,} rows, in CPU time", goal=1.0, n=n),
        summarise(
            "completeness_loop",
            against_loop,
            against="a loop over cells with masks, on 1 %, a row and cell",
            goal=None,
            n=n,
        ),
    ]


def scored_rows(n: int) -> pl.DataFrame:
    """Half injections with every column of an axis and half controls, of a test split: what scores joined to a store are."""
    rng = np.random.default_rng(0)
    galaxy = rng.integers(0, max(n // (2 * _INJECTIONS_PER_GALAXY), 1), n)
    snr = rng.lognormal(2.5, 1.2, n)
    return pl.DataFrame(
        {
            "galaxy_id": pl.Series(galaxy).cast(pl.String).str.zfill(12),
            "region_id": pl.Series(galaxy % _REGIONS).cast(pl.String),
            "is_lens": np.arange(n) % 2 == 1,
            "logit": np.log1p(snr) + rng.normal(-2, 1.5, n),
            "weight": rng.lognormal(0, 0.5, n),
            "lens_model": pl.Series(rng.integers(0, 3, n)).replace_strict({0: "SIE", 1: "SIS", 2: "SIE_SHEAR"}),
            "theta_e_arcsec": rng.uniform(0.3, 2.5, n),
            "psf_fwhm_used_r": rng.normal(1.3, 0.15, n).clip(0.8),
            "psfdepth_r": rng.uniform(400, 3000, n),
            "arc_snr": snr / 6,
            "arc_snr_matched": snr,
            "src_mag_r": rng.uniform(20, 26, n),
            "src_mag_g": rng.uniform(20.2, 26.4, n),
            "src_reff_arcsec": rng.uniform(0.1, 0.8, n),
            "src_x_arcsec": rng.normal(0, 0.2, n),
            "src_y_arcsec": rng.normal(0, 0.2, n),
            "magnification": rng.lognormal(1.8, 0.5, n),
            "source_id": pl.Series(rng.integers(0, 9, n)).replace_strict({0: "cosmos-1"}, default=None),
            "is_held_out": rng.random(n) < 0.2,
        }
    )


def count(rows: pl.DataFrame, config: CompletenessConfig) -> int:
    """Count every axis and grid, and return the number of records."""
    lenses = rows.filter(pl.col("is_lens"))
    attempts = Attempts.of(lenses, lenses.head(0), ParentShare.unknown("not asked"))
    tally = Tally(attempts, _THRESHOLDS, config)
    return len(tally.along_axes()) + len(tally.on_grids())


def along_a_loop(rows: pl.DataFrame, config: CompletenessConfig) -> int:
    """Count every axis cell by cell, each with a mask over all rows, and return the number of cells and thresholds."""
    lenses = with_axes(rows.filter(pl.col("is_lens")))
    galaxies, weights, logits = galaxy_numbers(lenses), lenses["weight"].to_numpy(), lenses["logit"].to_numpy()
    n_records = 0
    for axis in AXES:
        cut = cut_axis(axis, lenses, None, config)
        for cell in range(len(cut.cells) if cut else 0):
            for threshold in _THRESHOLDS:
                mine = cut.stored == cell if cut else None
                clustered_proportion(logits[mine] > threshold.logit, galaxies[mine], weights[mine])
                n_records += 1
    return n_records


def _n_records(config: CompletenessConfig, rows: pl.DataFrame) -> int:
    return count(rows.head(10_000), config)


def _per_cell(seconds: float, records: int, n: int) -> float:
    return seconds / records / n
