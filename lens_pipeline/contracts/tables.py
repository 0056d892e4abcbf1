"""What a published table means: columns with dtype, unit, range and meaning, checked before anyone reads them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.errors import FIRST_FEW, ContractError, first_few


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type, unit, closed range, and meaning.

    Attributes
    ----------
    nullable : bool
        Whether a value may be null (undefined, for a reason the description gives).
    required : bool
        Whether the column must be there at all.
    """

    name: str
    dtype: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False
    required: bool = True
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class TableContract:
    """A table's columns and unique key.

    Attributes
    ----------
    key : tuple of str
        Columns that together name a row once; empty when rows have no key.
    open_ended : bool
        Whether columns beyond these may be there (a survey's own table) or not (a table of ours).
    further : tuple of Column
        Of an open-ended table, columns that we write beside the contract's where a source gives them: described, and held against
        nothing.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    open_ended: bool = False
    further: tuple[Column, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of every declared column, in order."""
        return pa.schema([pa.field(c.name, c.dtype, nullable=c.nullable) for c in self.columns])

    def column(self, name: str) -> Column:
        """Return the declaration of one column."""
        return next(column for column in self.columns if column.name == name)

    def meaning_of(self, name: str) -> str:
        """Say what a column means; of one that isn't ours, whose it is."""
        known = {column.name: column.meaning for column in (*self.columns, *self.further)}
        return known.get(name, "a column of the files that were read; the contract doesn't know it")

    def check_schema(self, schema: pa.Schema, *, where: str) -> None:
        """Refuse a schema that lacks a required column or declares another type.

        Integers and floats of another width, and the large and view forms of strings and binaries, are the same to us.

        Raises
        ------
        ContractError
            Naming the place, every missing column, every retyped one, and the closest name to a missing one.
        """
        problems = []
        for column in self.columns:
            if column.name not in schema.names:
                if column.required:
                    problems.append(f"column {column.name!r} is missing (wanted {column.dtype})")
            elif column.nullable and pa.types.is_null(schema.field(column.name).type):
                # How pandas and Arrow write a column without a single value: a file of controls has no arc_snr.
                continue
            elif not _same_kind(schema.field(column.name).type, column.dtype):
                found = schema.field(column.name).type
                problems.append(f"column {column.name!r} is {found}, wanted {column.dtype}")
        declared = {column.name for column in self.columns}
        extra = [name for name in schema.names if name not in declared]
        if extra and not self.open_ended:
            problems.append(f"columns nobody declared: {first_few(extra)}")
        if problems:
            there = f" It has: {first_few(schema.names, 40)}." if self.open_ended else ""
            raise ContractError(
                f"{where} does not follow the contract {self.name!r}: {'; '.join(problems)}.{there} "
                f"Rename or convert the columns, or map them in the preset; docs/tables.md lists what each one means."
            )

    def validate(self, table: pa.Table, *, where: str) -> None:
        """Refuse a table whose schema, nulls, ranges or key break the contract.

        Raises
        ------
        ContractError
            Naming the place, the first broken column, how many rows break it and the first few of them.
        """
        self.validate_stream(table.schema, [table], where=where)
        if self.key:
            self._validate_key(table, where)

    def validate_stream(self, schema: pa.Schema, parts: Iterable[pa.Table | pa.RecordBatch], *, where: str) -> None:
        """Refuse a table that comes in parts, of which one at a time is in memory; whether its key is unique isn't looked at.

        Raises
        ------
        ContractError
            As `validate` does.
        """
        self.check_schema(schema, where=where)
        columns = [column for column in self.columns if column.name in schema.names]
        broken: dict[tuple[str, str], _Broken] = {}
        n_rows = 0
        for part in parts:
            n_rows += part.num_rows
            for column in columns:
                for why, mask in _breaches(part.column(column.name), column):
                    named = self.key[0] if self.key and self.key[0] in schema.names else column.name
                    found = broken.setdefault((column.name, why), _Broken(named))
                    found.n += int(pc.sum(mask).as_py())
                    if len(found.first) < FIRST_FEW + 1:
                        found.first += part.column(named).filter(mask).slice(0, FIRST_FEW + 1).to_pylist()
        for column in columns:
            for (name, why), found in broken.items():
                if name == column.name:
                    raise ContractError(
                        f"{where}: {found.n:,} of {n_rows:,} rows of {self.name!r} have a {name} that is {why}; "
                        f"first ({found.named}): {first_few(found.first)}."
                    )

    def _validate_key(self, table: pa.Table, where: str) -> None:
        counted = table.select(list(self.key)).group_by(list(self.key)).aggregate([([], "count_all")])
        twice = counted.filter(pc.greater(counted["count_all"], 1))
        if twice.num_rows:
            rows = [" / ".join(str(row[k]) for k in self.key) for row in twice.slice(0, 6).to_pylist()]
            raise ContractError(
                f"{where}: {twice.num_rows:,} values of the key {', '.join(self.key)} stand on more than one row of "
                f"{self.name!r}: {first_few(rows)}. A key names one row; remove the copies."
            )


@dataclass
class _Broken:
    """Rows that break one column's declaration in one way."""

    named: str
    n: int = 0
    first: list[object] = field(default_factory=list)


def _breaches(values: pa.Array | pa.ChunkedArray, column: Column) -> Iterator[tuple[str, pa.Array | pa.ChunkedArray]]:
    """Ways in which some values break their column's declaration, each with which do."""
    if not column.nullable and values.null_count:
        yield "null, which this column never is", pc.is_null(values)
    low, high = column.minimum, column.maximum
    outside = None
    if low is not None:
        outside = pc.less(values, low)
    if high is not None:
        above = pc.greater(values, high)
        outside = above if outside is None else pc.or_(outside, above)
    if pa.types.is_floating(values.type):
        not_finite = pc.invert(pc.is_finite(values))
        outside = not_finite if outside is None else pc.or_(outside, not_finite)
    if outside is not None:
        outside = pc.fill_null(outside, False)
        if pc.any(outside).as_py():
            allowed = f"outside [{'-inf' if low is None else low}, {'inf' if high is None else high}] {column.unit}"
            yield f"not finite or {allowed.strip()}", outside


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    def kind(dtype: pa.DataType) -> str:
        if pa.types.is_integer(dtype):
            return "integer"
        if pa.types.is_floating(dtype):
            return "float"
        if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
            return "string"
        if pa.types.is_binary(dtype) or pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype):
            return "binary"
        if pa.types.is_dictionary(dtype):
            return kind(dtype.value_type)
        return str(dtype)

    if pa.types.is_list(wanted) and pa.types.is_list(found):
        return _same_kind(found.value_type, wanted.value_type)
    return kind(found) == kind(wanted)
