"""Cuts on catalogue rows that the settings ask for beside the published selection, and judging rows by both."""

from collections.abc import Sequence

import polars as pl

from lens_pipeline.contracts.errors import first_few
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.selections import Cut, Selection, magnitude, where_extinction_is_known


def own_cuts(config: ParentSampleConfig) -> tuple[Cut, ...]:
    """Cuts of the settings, beside those of the selection."""
    between = where_extinction_is_known(magnitude("r").is_between(config.mag_r_low, config.mag_r_high))
    meaning = f"{config.mag_r_low:g} <= r <= {config.mag_r_high:g}"
    cuts = [_cut("mag_r", meaning, between, "FLUX_R", "MW_TRANSMISSION_R")]
    if config.least_observations:
        columns = [f"NOBS_{band}" for band in "GRZ"]
        enough = pl.all_horizontal(*(pl.col(name) >= config.least_observations for name in columns))
        cuts.append(_cut("observations", f"NOBS >= {config.least_observations} in g, r and z", enough, *columns))
    if config.excluded_maskbits:
        bits = sum(1 << bit for bit in set(config.excluded_maskbits))
        clear = pl.col("MASKBITS") & bits == 0
        cuts.append(_cut("maskbits", f"MASKBITS {first_few(config.excluded_maskbits, 31)} not set", clear, "MASKBITS"))
    if config.morphologies:
        cuts.append(_cut("morphology", f"TYPE is {first_few(config.morphologies, 20)}",
                         pl.col("TYPE").is_in(config.morphologies), "TYPE"))  # fmt: skip
    return tuple(cuts)


def judge(rows: pl.DataFrame, selection: Selection, own: Sequence[Cut]) -> pl.DataFrame:
    """Judge rows by every cut of a selection and by one's own: one boolean column each."""
    return selection.passed(rows).hstack(rows.select(cut.south.fill_null(False).alias(cut.name) for cut in own))


def _cut(name: str, meaning: str, keeps: pl.Expr, *columns: str) -> Cut:
    return Cut(name, meaning, keeps, keeps, columns)
