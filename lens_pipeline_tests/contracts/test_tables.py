"""A table that is not what its contract says is refused, with the column, the count and the first few rows named."""

import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import CATALOGUE, SCORES, STAMP_STORE, STAMPS
from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.contracts.tables import TableContract


def scores(n: int = 4) -> pa.Table:
    return pa.table(
        {
            "task_id": [f"t{i}" for i in range(n)],
            "logical": pa.array(range(n), pa.int64()),
            "split": ["test"] * n,
            "label": pa.array([0] * n, pa.int8()),
            "logit": pa.array([0.0] * n, pa.float32()),
        }
    )


def replaced(column: str, values: list[object], dtype: pa.DataType) -> pa.Table:
    table = scores()
    return table.set_column(table.column_names.index(column), column, pa.array(values, dtype))


def test_a_sound_table_passes() -> None:
    SCORES.validate(scores(), where="a test")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (scores().drop_columns(["logit"]), r"column 'logit' is missing \(wanted float\)"),
        (scores().rename_columns(["id", "logical", "split", "label", "logit"]), r"'task_id' is missing.* It has: id, "),
        (replaced("logit", ["a"] * 4, pa.string()), r"column 'logit' is string, wanted float"),
        (replaced("logit", [0, 1, None, None], pa.float32()), r"2 of 4 rows .* logit that is null.*t2, t3"),
        (replaced("logit", [0, 1, float("inf"), 2], pa.float32()), r"1 of 4 rows .* logit that is not finite.*t2"),
        (replaced("logical", [0, 1, -1, 2], pa.int64()), r"1 of 4 rows .* outside \[0, inf\].*t2"),
        (
            replaced("task_id", ["a", "b", "b", "c"], pa.string()),
            r"1 values of the key task_id .* more than one row.*: b",
        ),
    ],
)
def test_what_breaks_the_contract_is_named(table: pa.Table, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        SCORES.validate(table, where="a test")


def test_other_widths_and_forms_of_the_same_kind_are_the_same() -> None:
    table = scores()
    wide = pa.table({**{n: table[n] for n in table.column_names}, "task_id": table["task_id"].cast(pa.large_string())})
    wide = wide.set_column(1, "logical", wide["logical"].cast(pa.int32()))
    SCORES.check_schema(wide.schema, where="a test")


def test_a_table_of_ours_has_no_column_that_nobody_declared() -> None:
    closed = TableContract("closed", "a table of ours", SCORES.columns)
    with pytest.raises(ContractError, match="nobody declared: extra"):
        closed.check_schema(scores().append_column("extra", pa.array(range(4))).schema, where="a test")
    SCORES.check_schema(scores().append_column("extra", pa.array(range(4))).schema, where="a test")


def test_a_surveys_own_parquet_needs_only_the_named_columns() -> None:
    needed = {c.name for c in STAMPS.columns if c.required}
    named = "task_id region_id ra dec lens_model stamp_npz cutout_ok theta_e_arcsec psf_fwhm_used_r"
    assert needed == set(named.split())


def test_every_published_table_has_a_meaning_and_every_column_too() -> None:
    assert [t.name for t in CATALOGUE if not t.meaning or any(not c.meaning for c in t.columns)] == []


def test_all_that_is_known_of_a_stamp_but_its_pixels_goes_into_the_store() -> None:
    known = {column.name: column.dtype for column in STAMPS.columns if column.name != "stamp_npz"}
    stored = {column.name: column.dtype for column in STAMP_STORE.columns}
    assert known.items() <= stored.items()
