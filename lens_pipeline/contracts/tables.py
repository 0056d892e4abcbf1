"""What a published table means: columns with dtype, unit, range and meaning, checked before anyone reads them."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.errors import ContractError, first_few


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
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    open_ended: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of every declared column, in order."""
        return pa.schema([pa.field(c.name, c.dtype, nullable=c.nullable) for c in self.columns])

    def column(self, name: str) -> Column:
        """Return the declaration of one column."""
        return next(column for column in self.columns if column.name == name)

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
        self.check_schema(table.schema, where=where)
        for column in self.columns:
            if column.name in table.column_names:
                self._validate_column(table, column, where)
        if self.key:
            self._validate_key(table, where)

    def _validate_column(self, table: pa.Table, column: Column, where: str) -> None:
        values = table[column.name]
        if not column.nullable and values.null_count:
            self._refuse(table, column, pc.is_null(values), where, "null, which this column never is")
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
                self._refuse(table, column, outside, where, f"not finite or {allowed.strip()}")

    def _validate_key(self, table: pa.Table, where: str) -> None:
        counted = table.select(list(self.key)).group_by(list(self.key)).aggregate([([], "count_all")])
        twice = counted.filter(pc.greater(counted["count_all"], 1))
        if twice.num_rows:
            rows = [" / ".join(str(row[k]) for k in self.key) for row in twice.slice(0, 6).to_pylist()]
            raise ContractError(
                f"{where}: {twice.num_rows:,} values of the key {', '.join(self.key)} stand on more than one row of "
                f"{self.name!r}: {first_few(rows)}. A key names one row; remove the copies."
            )

    def _refuse(self, table: pa.Table, column: Column, mask: pa.ChunkedArray, where: str, why: str) -> None:
        bad = table.filter(mask)
        named = self.key[0] if self.key and self.key[0] in table.column_names else column.name
        raise ContractError(
            f"{where}: {bad.num_rows:,} of {table.num_rows:,} rows of {self.name!r} have a {column.name} that is {why}; "
            f"first ({named}): {first_few(bad[named].slice(0, 6).to_pylist())}."
        )


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
