"""Regions are split by a hash, once; every stratum has its floor; nothing stands on both sides."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lens_pipeline.contracts.errors import SplitError
from lens_pipeline.splits.assignment import SPLITS, assign, region_uniform
from lens_pipeline.splits.checks import leak_checks, split_balance
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.figures import split_map_png
from lens_pipeline.splits.region_splits import build_region_splits, read_split_rows
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

CONFIG = SplitConfig(floor_rows=3)


def index(n_regions: int = 60, galaxies: int = 8, **columns: list[object]) -> pa.Table:
    """Rows of a store: a control and an injection of each galaxy."""
    n = n_regions * galaxies
    galaxy = np.repeat(np.arange(n), 2)
    injected = np.tile([0, 1], n).astype(bool)
    region = galaxy // galaxies
    rows = {
        "task_id": [f"t{g}-{int(i)}" for g, i in zip(galaxy, injected, strict=True)],
        "logical": np.arange(2 * n),
        "label": injected.astype(np.int8),
        "stratum": np.where(injected, "lens/SIE/theta_e 0-2", "control").tolist(),
        "region_id": [f"brick{r:03d}" for r in region],
        "galaxy_id": [f"g{g}" for g in galaxy],
        "pair_id": [f"t{g}-0" if i else None for g, i in zip(galaxy, injected, strict=True)],
        "ra": (region * 0.25).tolist(),
        "dec": (region * 0.0).tolist(),
        "pixel_hash": pa.array([f"{k:016d}".encode() for k in range(2 * n)], pa.binary(16)),
    }
    return pa.table({**rows, **columns})


def publish(home: Home, asset: str, table: pa.Table, name: str | None = None) -> Publication:
    with home.stage("sky", asset) as staging:
        staging.write_table(name, table)
        publication = staging.commit()
    home.conclude(publication, [])
    return publication


def split(
    home: Home, store: Publication, config: SplitConfig = CONFIG, frozen: Publication | None = None
) -> Publication:
    with home.stage("sky", "region_splits", inputs=[store]) as staging:
        build_region_splits(config, store, staging, frozen=frozen)
        return staging.commit()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_every_row_is_in_one_split_with_its_region_and_every_stratum_has_its_floor(home: Home) -> None:
    store = publish(home, "stamp_store", index())
    splits = split(home, store)
    rows = read_split_rows(splits, store)
    assert rows["task_id"].to_pylist() == store.read_table()["task_id"].to_pylist()
    region_split = {r["region_id"]: r["split"] for r in splits.read_table().to_pylist()}
    expected = [region_split[region] for region in store.read_table()["region_id"].to_pylist()]
    assert rows["split"].to_pylist() == expected
    checks = [split_balance(splits, store, floor_rows=3), *leak_checks(splits, store)]
    assert [check.name for check in checks if not check.passed] == []
    assert set(region_split.values()) == set(SPLITS)


def test_the_order_of_rows_changes_nothing(home: Home) -> None:
    rows = index()
    shuffled = rows.take(np.random.default_rng(1).permutation(rows.num_rows))
    first = split(home, publish(home, "stamp_store", rows)).read_table()
    second = split(home, publish(home, "stamp_store", shuffled)).read_table()
    assert first.drop(["ra"]) == second.drop(["ra"])


def test_strata_come_out_the_same_when_all_controls_or_all_injections_stand_first(home: Home) -> None:
    rows = index()
    tables = [
        split(home, publish(home, "stamp_store", rows.sort_by([("label", order)]))).read_table()["split"]
        for order in ("ascending", "descending")
    ]
    assert tables[0] == tables[1]


def test_a_region_that_is_already_split_never_moves_when_new_regions_come(home: Home) -> None:
    small = publish(home, "stamp_store", index(60))
    first = split(home, small)
    large = publish(home, "stamp_store", index(90))
    second = split(home, large, frozen=first)
    after = dict(zip(*(second.read_table()[c].to_pylist() for c in ("region_id", "split")), strict=True))
    for row in first.read_table().to_pylist():
        assert after[row["region_id"]] == row["split"]
    assert len(after) == 90


def test_a_frozen_split_refuses_other_settings_and_names_them(home: Home) -> None:
    store = publish(home, "stamp_store", index())
    first = split(home, store)
    with pytest.raises(SplitError, match=r"train 0\.4 -> 0\.5.*another name"):
        split(home, store, SplitConfig(floor_rows=3, train=0.5), frozen=first)


def test_when_no_seed_gives_the_floors_the_stratum_is_named(home: Home) -> None:
    rows = index()
    rare = ["rare"] * 4 + rows["stratum"].to_pylist()[4:]
    store = publish(home, "stamp_store", rows.set_column(rows.column_names.index("stratum"), "stratum", pa.array(rare)))
    with pytest.raises(
        SplitError, match=r"none of 20 seeds.*'rare' fell under its floor of 3 rows .* 4 rows in 1 regions"
    ):
        split(home, store, SplitConfig(floor_rows=3, max_seeds=20))


def test_an_empty_store_is_refused(home: Home) -> None:
    store = publish(home, "stamp_store", index().slice(0, 0))
    with pytest.raises(SplitError, match="no row"):
        split(home, store)


def test_shares_are_what_was_asked_within_the_tolerance(home: Home) -> None:
    store = publish(home, "stamp_store", index(30, 4))
    config = SplitConfig(train=1 / 3, validation=1 / 3, share_tolerance=0.01, floor_rows=1, max_seeds=20_000)
    counts = split(home, store, config).read_table().group_by("split").aggregate([([], "count_all")]).to_pylist()
    assert {c["split"]: c["count_all"] for c in counts} == {
        "train": 10,
        "val_select": 5,
        "val_calibrate": 5,
        "test": 10,
    }


def test_the_hash_of_a_region_is_the_same_on_every_machine_and_uniform() -> None:
    assert region_uniform("0001m002", 7) == pytest.approx(0.78323173, abs=1e-8)
    places = assign([f"r{i}" for i in range(20_000)], 3, SplitConfig())
    assert np.bincount(places) / 20_000 == pytest.approx([0.4, 0.1, 0.1, 0.4], abs=0.015)


def survey_index(split_of: dict[int, str | None]) -> pa.Table:
    rows = index()
    region = [int(r.removeprefix("brick")) for r in rows["region_id"].to_pylist()]
    default = {0: "train", 1: "train", 2: "val", 3: "test", 4: "val"}
    return rows.append_column("region_split", pa.array([split_of.get(r, default[r % 5]) for r in region]))


def test_a_surveys_own_split_is_honoured(home: Home) -> None:
    store = publish(home, "stamp_store", survey_index({}))
    splits = split(home, store)
    rows = store.read_table().append_column("split", read_split_rows(splits, store)["split"]).to_pylist()
    assert {(r["region_split"], r["split"]) for r in rows} == {
        ("train", "train"),
        ("test", "test"),
        ("val", "val_select"),
        ("val", "val_calibrate"),
    }
    assert splits.attributes["by_survey"] is True


@pytest.mark.parametrize(
    ("halves", "rare_in", "said"),
    [
        (("val_select", "val_calibrate"), (0,), "which no seed changes, .*'rare' .* rows in val_select .it has 4 rows"),
        (("val", "val"), (0, 2, 4), "which no seed changes, .*'rare' .* in test .it has 12 rows"),
        (("val", "val"), (0, 2, 3), "none of 20 seeds .*'rare' .* in val_(select|calibrate) for [0-9]+ of them"),
    ],
)
def test_seeds_are_tried_only_where_one_could_help(
    home: Home, halves: tuple[str, str], rare_in: tuple[int, ...], said: str
) -> None:
    split_of = {2 + 5 * i: halves[0] for i in range(12)} | {4 + 5 * i: halves[1] for i in range(12)}
    rows = survey_index(split_of)
    stratum = rows["stratum"].to_pylist()
    for region in rare_in:
        stratum[16 * region : 16 * region + 4] = ["rare"] * 4
    store = publish(
        home, "stamp_store", rows.set_column(rows.column_names.index("stratum"), "stratum", pa.array(stratum))
    )
    with pytest.raises(SplitError, match=said):
        split(home, store, SplitConfig(floor_rows=3, max_seeds=20))


def test_a_survey_that_puts_a_region_into_two_splits_is_refused(home: Home) -> None:
    rows = survey_index({})
    torn = rows["region_split"].to_pylist()
    torn[0] = "test"
    store = publish(
        home, "stamp_store", rows.set_column(rows.column_names.index("region_split"), "region_split", [torn])
    )
    with pytest.raises(SplitError, match=r"1 of 60 regions into more than one split: brick000"):
        split(home, store)


@pytest.mark.parametrize("value", ["validation", None])
def test_a_survey_split_of_unknown_value_is_refused(home: Home, value: str | None) -> None:
    store = publish(home, "stamp_store", survey_index({3: value}))
    with pytest.raises(SplitError, match=f"none of train, val, val_select, val_calibrate, test: {value}"):
        split(home, store)


@pytest.mark.parametrize(
    ("column", "check"),
    [
        ("galaxy_id", "galaxies_are_disjoint"),
        ("pixel_hash", "pixels_are_disjoint"),
        ("pair_id", "pairs_are_disjoint"),
        ("region_id", "regions_are_disjoint"),
    ],
)
def test_one_leaking_row_turns_the_named_check_red(home: Home, column: str, check: str) -> None:
    rows = index()
    store = publish(home, "stamp_store", rows)
    splits = split(home, store)
    split_of = read_split_rows(splits, store)["split"].to_pylist()
    inside, outside = split_of.index("train"), split_of.index("test")
    if column == "pair_id":
        inside, outside = (next(i for i in range(s, len(split_of)) if i % 2) for s in (inside, outside))
    values = rows[column].to_pylist()
    values[inside] = values[outside]
    leaking = rows.set_column(rows.column_names.index(column), column, pa.array(values, rows.schema.field(column).type))
    found = {c.name: c for c in leak_checks(splits, publish(home, "stamp_store", leaking))}
    assert not found[check].passed
    assert found[check].count == 1
    assert found[check].first
    assert [name for name, c in found.items() if not c.passed and name != check] in ([], ["regions_are_disjoint"])


def test_a_row_without_a_split_is_red(home: Home) -> None:
    rows = index()
    splits = split(home, publish(home, "stamp_store", rows.slice(1)))
    finding = split_balance(splits, publish(home, "stamp_store", rows), floor_rows=3)
    assert not finding.passed
    assert finding.first == ("t0-0",)


def held_out_index() -> pa.Table:
    """A survey that splits itself, and holds a lens model out of all regions but those of test."""
    rows = survey_index({}).to_pylist()
    for number, row in enumerate(rows):
        row["is_held_out"] = None
        if row["label"] == 1:
            row["is_held_out"] = row["region_split"] == "test" and number % 4 == 1
        if row["is_held_out"]:
            row["stratum"] = "lens/EPL/theta_e 0-2"
    return pa.Table.from_pylist(rows).cast(pa.schema([*survey_index({}).schema, ("is_held_out", pa.bool_())]))


def test_no_floor_is_asked_of_what_stands_in_test_alone(home: Home) -> None:
    store = publish(home, "stamp_store", held_out_index())
    check = split_balance(split(home, store), store, floor_rows=3)
    assert check.passed, check.message()
    assert "each of 2 strata" in check.what


def test_what_is_held_out_and_not_in_test_is_red(home: Home) -> None:
    store = publish(home, "stamp_store", held_out_index())
    config = SplitConfig(floor_rows=3, honour_survey_split=False)
    check = split_balance(split(home, store, config), store, floor_rows=3)
    assert not check.passed
    assert "rows that the survey holds out of training aren't in test" in check.what


def test_splits_of_another_version_of_the_store_are_refused(home: Home) -> None:
    splits = split(home, publish(home, "stamp_store", index()))
    other = publish(home, "stamp_store", index(59))
    with pytest.raises(SplitError, match=rf"this store is {other.version}"):
        read_split_rows(splits, other)


def test_the_map_is_drawn_with_and_without_positions(home: Home) -> None:
    regions = split(home, publish(home, "stamp_store", index())).read_table()
    assert split_map_png(regions).startswith(b"\x89PNG")
    nowhere = regions.set_column(4, "ra", pa.nulls(regions.num_rows, pa.float64()))
    assert split_map_png(nowhere).startswith(b"\x89PNG")


def test_a_survey_split_that_appears_or_changes_later_never_moves_a_region(home: Home) -> None:
    first = split(home, publish(home, "stamp_store", index()))
    with pytest.raises(SplitError, match=r"of 60 regions of dataset 'sky' would move to another split: brick0"):
        split(home, publish(home, "stamp_store", survey_index({})), frozen=first)
    honoured = split(home, publish(home, "stamp_store", survey_index({})))
    with pytest.raises(SplitError, match=r"1 of 60 regions .* brick000 train -> test"):
        split(home, publish(home, "stamp_store", survey_index({0: "test"})), frozen=honoured)
