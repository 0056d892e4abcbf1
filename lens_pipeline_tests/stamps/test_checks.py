"""Each check is green on a sound store and red, naming the rows, on each thing it guards against."""

from typing import Any

import pyarrow as pa
import pytest

from lens_pipeline.contracts.checks import Check
from lens_pipeline.stamps.checks import store_checks
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.stamps.making import Row, make_rows, make_store, publish_stamps


def checked(home: Home, files: list[list[Row]], **settings: Any) -> dict[str, Check]:
    stamps = publish_stamps(home, files)
    store, _ = make_store(home, stamps)
    return {check.name: check for check in store_checks(store, stamps, StoreConfig(**settings))}


def reds(found: dict[str, Check]) -> list[str]:
    return [name for name, check in found.items() if not check.passed]


def test_a_sound_store_is_green_and_excluded_rows_cost_no_budget(home: Home) -> None:
    rows = make_rows(30)
    rows[4]["cutout_ok"] = 0
    found = checked(home, [rows[:11], rows[11:]], quarantine_budget=0)
    assert list(found) == ["row_conservation", "quarantine_budget", "no_duplicated_fragments", "schema_contract"]
    assert reds(found) == []
    assert found["row_conservation"].what == "30 rows in, 29 stored, 0 quarantined, 1 excluded"


def test_more_quarantined_rows_than_the_budget_are_red_naming_row_file_and_reason(home: Home) -> None:
    rows = make_rows(30)
    rows[4]["stamp_npz"], rows[6]["lens_model"] = b"x", None
    assert reds(checked(home, [rows], quarantine_budget=0.1)) == []
    found = checked(home, [rows], quarantine_budget=0.05)
    assert reds(found) == ["quarantine_budget"]
    said = found["quarantine_budget"].message()
    assert "2 of 30 rows quarantined (6.67%; budget 5.00%)" in said
    assert "t4 in fragment-00000.parquet row 4: not_a_zip" in said
    assert found["quarantine_budget"].figures["unknown_label"] == 1


def test_a_key_that_comes_twice_is_red_even_within_the_budget(home: Home) -> None:
    rows = make_rows(30)
    rows[8]["task_id"] = "t3"
    found = checked(home, [rows], quarantine_budget=1)
    assert reds(found) == ["no_duplicated_fragments"]
    assert found["no_duplicated_fragments"].first == ("task_id t3",)


def test_a_copy_of_an_excluded_row_is_red_too(home: Home) -> None:
    rows = make_rows(30)
    rows[8]["task_id"], rows[3]["cutout_ok"] = "t3", 0
    assert reds(checked(home, [rows], quarantine_budget=1)) == ["no_duplicated_fragments"]


def test_a_file_that_comes_twice_is_red(home: Home) -> None:
    rows = make_rows(30)
    found = checked(home, [rows[:10], rows[10:], rows[:10]], quarantine_budget=1)
    assert reds(found) == ["no_duplicated_fragments"]
    assert found["no_duplicated_fragments"].first[0] == "fragment-00000.parquet = fragment-00002.parquet"
    assert found["no_duplicated_fragments"].figures["rows_with_repeated_key"] == 20


@pytest.mark.parametrize(
    ("source", "target", "changes", "is_red"),
    [
        (3, 7, {}, True),  # another galaxy's control
        (3, 2, {}, True),  # the same galaxy's injection
        (2, 3, {"lens_model": "SIE"}, True),  # an injection under a second name
        (3, 2, {"lens_model": "CONTROL"}, False),  # the control again
    ],
)
def test_the_same_pixels_under_two_rows_are_red_but_for_repeats_of_a_galaxys_control(
    home: Home, source: int, target: int, changes: Row, is_red: bool
) -> None:
    rows = make_rows(30)
    rows[target] = {**rows[target], "stamp_npz": rows[source]["stamp_npz"], **changes}
    found = checked(home, [rows])
    assert reds(found) == (["no_duplicated_fragments"] if is_red else [])
    check = found["no_duplicated_fragments"]
    assert check.figures["control_repeats"] == (0 if is_red else 1)
    if is_red:
        assert check.figures["stamps_shared"] == 1
        assert f"t{source} (galaxy g{source // 2}" in check.first[0]


def tampered(home: Home, change: Any) -> list[Check]:
    """Checks of a store whose index was changed before it was committed."""
    stamps = publish_stamps(home, [make_rows(30)])
    good, _ = make_store(home, stamps)
    with home.stage("tried", "stamp_store", inputs=[stamps]) as staging:
        for name in good.manifest.files:
            (staging.folder / name).write_bytes((good.folder / name).read_bytes())
        staging.attributes.update(good.attributes)
        staging.write_table(None, change(good.read_table()))
        bad: Publication = staging.commit()
    return [check for check in store_checks(bad, stamps, StoreConfig()) if not check.passed]


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def test_a_row_lost_on_the_way_is_red(home: Home) -> None:
    first, *_ = tampered(home, lambda index: index.slice(0, 29))
    assert first.name == "row_conservation"
    assert "1 rows are lost" in first.what


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: put(t, "label", [1 - v for v in t["label"].to_pylist()]),
            "30 rows have a label that is not that of",
        ),
        (lambda t: put(t, "task_id", t["task_id"].to_pylist()[::-1]), "key_hash is not the hash of task_id"),
        (
            lambda t: t.take([*range(7), 8, 7, *range(9, 30)]).set_column(0, "logical", t["logical"]),
            "rows [7] are out of",
        ),
        (lambda t: put(t, "theta_e_arcsec", [99.0] * 30), "theta_e_arcsec that is not finite or outside"),
        (lambda t: t.drop_columns(["stratum"]), "'stratum' is missing"),
        (lambda t: put(t, "segment_row", [0] * 30), "don't belong together"),
    ],
)
def test_an_index_that_breaks_its_contract_is_red(home: Home, change: Any, said: str) -> None:
    (check,) = tampered(home, change)
    assert check.name == "schema_contract"
    assert said in check.message()
