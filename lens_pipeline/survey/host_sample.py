"""A sample of catalogue rows drawn from a stream of unknown length: the same rows whatever the order and cut of the files."""

import numpy as np
import polars as pl

from lens_pipeline.survey.legacy_rows import target_ids

_ROWS = 4000
# An odd constant near 2^64 / golden ratio spreads consecutive numbers over all 64 bits (Knuth, TAOCP 3, sect. 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class HostSample:
    """The rows whose numbers have the smallest hashes."""

    def __init__(self, rows: int = _ROWS) -> None:
        self._rows = rows
        self.table = pl.DataFrame()

    def add(self, rows: pl.DataFrame) -> None:
        """Take in catalogue rows, each once."""
        hashed = pl.Series("_hash", target_ids(rows).astype(np.uint64) * _SPREAD)
        self.table = (
            pl.concat([self.table, rows.with_columns(hashed)], how="diagonal_relaxed")
            .bottom_k(self._rows, by="_hash")
            .sort("_hash")
        )
