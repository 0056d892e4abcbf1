"""Rows that the matched filter looks at, and with which seeing: the table beside the network's scores."""

import os

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import MATCHED_FILTER
from lens_pipeline.evaluation.scored_rows import CALIBRATE, TEST
from lens_pipeline.evaluation.scored_rows import MATCHED_FILTER as TABLE
from lens_pipeline.scoring.matched_filter import Exact, filter_rows
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging

# The median of DECaLS DR10 in r, for a survey that doesn't know its seeing.
TYPICAL_FWHM_ARCSEC = 1.35


def write_matched_filter(rows: pa.Table, store: Publication, staging: Staging, threads: int) -> None:
    """Write the MATCHED_FILTER table of val_calibrate and test, which thresholds are fitted on and read at.

    Where a row's seeing isn't known the median of the others is taken, else `TYPICAL_FWHM_ARCSEC`; the attribute
    ``matched_filter`` says of how many.

    Parameters
    ----------
    rows : pyarrow.Table
        SPLIT_ROWS of this store.
    threads : int
        0: one for each core.
    """
    looked_at = rows.filter(pc.is_in(rows["split"], value_set=pa.array([CALIBRATE, TEST]))).sort_by("logical")
    logical = looked_at["logical"].to_numpy()
    opened = StampStore.open(store)
    column, fwhm = _seeing(opened, logical)
    known = np.isfinite(fwhm)
    taken = float(np.median(fwhm[known])) if known.any() else TYPICAL_FWHM_ARCSEC
    snr = filter_rows(opened, logical, np.where(known, fwhm, taken), threads or len(os.sched_getaffinity(0)))
    columns = {name: looked_at[name] for name in ("task_id", "logical", "split", "label")}
    staging.write_table(TABLE, pa.table(columns | {"snr": pa.array(snr)}), MATCHED_FILTER)
    staging.attributes["matched_filter"] = {
        "bands": [opened.contract.bands[0], opened.contract.bands[-1]],
        "seeing": column,
        "n_without_seeing": int((~known).sum()),
        "fwhm_arcsec_where_unknown": taken,
    }


def _seeing(store: StampStore, logical: np.ndarray) -> tuple[str, Exact]:
    """Column and FWHM (arcsec) of some rows' seeing in the bluest band, else in r; NaN where nobody measured it."""
    there = store.publication.entry(f"{store.publication.asset}.parquet").schema or {}
    of_band, of_r = f"psf_fwhm_used_{store.contract.bands[0]}", "psf_fwhm_used_r"
    for column in (of_band, of_r):
        if column in there:
            values = pl.DataFrame(store.columns([column]))[column].cast(pl.Float64).to_numpy()[logical]
            if column == of_r or np.isfinite(values).any():
                return column, values
    return of_r, np.full(len(logical), np.nan)
