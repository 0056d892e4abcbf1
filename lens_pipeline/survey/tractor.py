"""Legacy Surveys catalogues, sweep or Tractor, FITS or parquet, streamed as Arrow batches of the columns that are asked for.

Belongs here: how such files are laid out. What their columns mean, and which rows are kept, is for `legacy_catalogue.py`.
Column names are upper case whatever the file says: Tractor files write them in lower case, sweep files in upper case.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.contracts.errors import ConfigError, ContractError, first_few
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.survey.column_kinds import as_its_kind, wrong_kind
from lens_pipeline.survey.fits_table import AGAIN, FitsTable, stripped

_FITS, _PARQUET = (".fits", ".fits.gz"), (".parquet",)
BATCH_ROWS = 131_072


@dataclass(frozen=True)
class Catalogue:
    """One catalogue file: its columns and rows, and a way to stream them.

    Attributes
    ----------
    columns : dict
        Upper-case name to the file's own name.
    """

    path: Path
    n_rows: int
    columns: dict[str, str]
    _table: FitsTable | None = field(default=None, repr=False)
    _schema: pa.Schema | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path) -> "Catalogue":
        """Look at a file's head.

        Raises
        ------
        ContractError
            If it is no table, or can't be read.
        """
        if path.name.endswith(_PARQUET):
            try:
                with pq.ParquetFile(path) as file:
                    n_rows, schema = file.metadata.num_rows, file.schema_arrow
            except (pa.ArrowInvalid, OSError) as error:
                raise ContractError(f"{path} can't be read as parquet: {error}. {AGAIN}") from error
            return cls(path, n_rows, _upper(path, schema.names), _schema=schema)
        table = FitsTable.open(path)
        return cls(path, table.n_rows, _upper(path, table.dtype.names or ()), table)

    def require(self, names: Sequence[str], *, why: str) -> None:
        """Refuse a file that lacks columns.

        Raises
        ------
        ContractError
            Naming all that are missing.
        """
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise ContractError(
                f"{self.path} lacks {len(missing)} of the columns that {why} needs: {first_few(missing, 40)}. Take sweep or "
                f"Tractor files that have them, or choose another parent_sample.selection; nothing is filled in for them."
            )

    def refuse_other_kinds(self, names: Sequence[str]) -> None:
        """Refuse a file in which a column holds another kind of value than the survey's; names it lacks are passed over.

        Raises
        ------
        ContractError
            Naming all such columns, the type that was found and what was wanted.
        """
        there = [name for name in names if name in self.columns]
        wrong = [said for name in there if (said := wrong_kind(name, self._type(name)))]
        if wrong:
            raise ContractError(
                f"{self.path} has {len(wrong)} columns of another kind than the survey's: {first_few(wrong, 40)}. Write them "
                f"in the survey's types; any width does."
            )

    def _type(self, name: str) -> pa.DataType:
        """Arrow type of a column as it comes out of the file."""
        if self._table is not None:
            return self._table.column(np.empty(0, self._table.dtype), self.columns[name]).type
        assert self._schema is not None
        return stripped(pa.array([], self._schema.field(self.columns[name]).type)).type

    def batches(self, names: Sequence[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Stream columns under their upper-case names, each of its kind's one type, and text without padding.

        Memory holds one batch, whatever the file's size.

        Raises
        ------
        ContractError
            If the file is damaged or ends before its last row, or a column isn't one number or text a row, or holds a value
            that isn't of its kind.
        """
        own = [self.columns[name] for name in names]
        if self._table is not None:
            for chunk in self._table.chunks(rows):
                arrays = [self._table.column(chunk, name) for name in own]
                yield pa.record_batch(
                    [self._conformed(*pair) for pair in zip(names, arrays, strict=True)], names=[*names]
                )
            return
        for batch in iterate_parquet(self.path, own, rows=rows, remedy=AGAIN):
            arrays = [stripped(batch[name]) for name in own]
            yield pa.record_batch([self._conformed(*pair) for pair in zip(names, arrays, strict=True)], names=[*names])

    def _conformed(self, name: str, values: pa.Array) -> pa.Array:
        try:
            return as_its_kind(name, values)
        except pa.ArrowInvalid as error:
            raise ContractError(
                f"{self.path}: {name} holds a value that the survey's doesn't: {error}. Look at how the file was written."
            ) from error


def catalogue_files(folder: str) -> list[Path]:
    """List the FITS and parquet files of a folder, by name; a file may be named itself.

    Raises
    ------
    ConfigError
        If there is no such folder or file, or no catalogue in it.
    ContractError
        If one of them is a symbolic link.
    """
    place = Path(folder).expanduser().absolute()
    if not place.exists():
        raise ConfigError(
            f"there is no {place}. Set parent_sample.folder to the folder that holds sweep or Tractor files."
        )
    paths = (
        [place] if place.is_file() else sorted(path for path in place.iterdir() if path.name.endswith(_FITS + _PARQUET))
    )
    links = [path for path in (place, *paths) if path.is_symlink()]
    if links:
        raise ContractError(
            f"{first_few(links)} is a symbolic link, which can come to mean other data unseen; {len(links)} were found. Name "
            f"the folder itself, and put the files in it."
        )
    if not paths or not all(path.name.endswith(_FITS + _PARQUET) for path in paths):
        raise ConfigError(
            f"{place} holds no catalogue: files end in {', '.join(_FITS + _PARQUET)}. Set parent_sample.folder to the folder "
            f"of the sweep or Tractor files."
        )
    return paths


def _upper(path: Path, names: Sequence[str]) -> dict[str, str]:
    columns = {name.upper(): name for name in names}
    if len(columns) < len(names):
        raise ContractError(f"{path} has columns that differ in upper and lower case only: {first_few(sorted(names))}.")
    return columns
