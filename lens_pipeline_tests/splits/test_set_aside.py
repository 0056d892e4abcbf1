"""A known lens stands in no split, neither as a negative nor as a host, and the check finds one that was left."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lens_pipeline.contracts.catalogue import SET_ASIDE
from lens_pipeline.contracts.errors import ConfigError, SplitError
from lens_pipeline.splits.checks import leak_checks, split_balance
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import read_split_rows
from lens_pipeline.splits.set_aside import known_lenses_are_no_negatives
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.splits.test_known_lenses import NETWORK, SPECTROSCOPY, lenscat
from lens_pipeline_tests.splits.test_region_splits import index, publish, split

ARCSEC = 1 / 3600


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def sky(n_regions: int = 60, galaxies: int = 8) -> pa.Table:
    """Rows of galaxies that stand 36 arcsec apart; a control and an injection of each."""
    n = n_regions * galaxies
    ra = np.repeat(np.arange(n) * 0.01, 2)
    return index(n_regions, galaxies, ra=ra.tolist(), dec=np.full(2 * n, 20.0).tolist())


def with_lenses(tmp_path: Path) -> SplitConfig:
    """Two known lenses: one on the galaxy g3, 2 arcsec off, one on g50; and one that is on none."""
    lenses = lenscat(
        tmp_path,
        f"on g3,{3 * 0.01 + 2 * ARCSEC},20,0.4,galaxy,confident,{SPECTROSCOPY}",
        f"on g50,{50 * 0.01},{20 - 0.5 * ARCSEC},0.4,galaxy,probable,{NETWORK}",
        f"on none,{3.5 * 0.01},20,0.4,galaxy,probable,{NETWORK}",
    )
    return SplitConfig(floor_rows=3, known_lenses=lenses)


def split_of(splits: Publication, store: Publication) -> dict[str, str]:
    rows = read_split_rows(splits, store)
    return dict(zip(rows["task_id"].to_pylist(), rows["split"].to_pylist(), strict=True))


def test_every_row_of_a_lens_that_became_known_is_set_aside_and_no_other_row_moves(home: Home, tmp_path: Path) -> None:
    store = publish(home, "stamp_store", sky())
    before = split(home, store)
    plain = split_of(before, store)
    config = with_lenses(tmp_path)
    splits = split(home, store, config, frozen=before)
    found = split_of(splits, store)
    assert {key for key, name in found.items() if name == "known_lens"} == {"t3-0", "t3-1", "t50-0", "t50-1"}
    assert {key: name for key, name in found.items() if name != "known_lens"}.items() <= plain.items()
    table = splits.read_table("known_lenses")
    SET_ASIDE.validate(table, where="test")
    told = {row["task_id"]: (row["lens_name"], row["independent_of_networks"]) for row in table.to_pylist()}
    assert told["t3-0"] == ("on g3", True)
    assert told["t50-1"] == ("on g50", False)
    assert table["separation_arcsec"].to_pylist()[0] == pytest.approx(2 * np.cos(np.radians(20)), rel=1e-3)
    checks = [split_balance(splits, store, floor_rows=3), *leak_checks(splits, store)]
    assert [check.message() for check in checks if not check.passed] == []
    assert known_lenses_are_no_negatives(splits, store, config).passed


def test_a_known_lens_that_is_left_in_a_split_is_red_and_named(home: Home, tmp_path: Path) -> None:
    store = publish(home, "stamp_store", sky())
    finding = known_lenses_are_no_negatives(split(home, store), store, with_lenses(tmp_path))
    assert not finding.passed
    assert finding.blocking
    assert finding.count == 4
    assert "t3-0 in" in finding.first[0]
    assert "on g3" in finding.first[0]


def test_rows_of_one_galaxy_go_together_though_only_one_lies_near_the_lens(home: Home, tmp_path: Path) -> None:
    rows = sky()
    ra = np.array(rows["ra"].to_pylist())
    ra[7] -= 4 * ARCSEC
    store = publish(home, "stamp_store", rows.set_column(rows.column_names.index("ra"), "ra", pa.array(ra)))
    splits = split(home, store, with_lenses(tmp_path))
    table = {row["task_id"]: row["separation_arcsec"] for row in splits.read_table("known_lenses").to_pylist()}
    assert table["t3-0"] is not None
    assert table["t3-1"] is None
    assert split_of(splits, store)["t3-1"] == "known_lens"


def test_a_table_of_lenses_without_positions_to_match_is_refused(home: Home, tmp_path: Path) -> None:
    rows = sky()
    none = pa.nulls(rows.num_rows, pa.float64())
    for name in ("ra", "dec"):
        rows = rows.set_column(rows.column_names.index(name), name, none)
    with pytest.raises(SplitError, match="none of 960 stored rows has ra and dec"):
        split(home, publish(home, "stamp_store", rows), with_lenses(tmp_path))


def test_a_table_of_lenses_that_is_not_there_is_named_with_its_setting(home: Home, tmp_path: Path) -> None:
    config = SplitConfig(known_lenses=str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"region_splits\.known_lenses: there is no file"):
        split(home, publish(home, "stamp_store", sky()), config)


def test_rows_without_a_position_are_counted(home: Home, tmp_path: Path) -> None:
    rows = sky()
    ra = rows["ra"].to_pylist()
    ra[0] = None
    store = publish(home, "stamp_store", rows.set_column(rows.column_names.index("ra"), "ra", pa.array(ra)))
    splits = split(home, store, with_lenses(tmp_path))
    assert splits.attributes["known_lenses"]["rows_without_a_position"] == 1
    assert pc.sum(pc.equal(read_split_rows(splits, store)["split"], "known_lens")).as_py() == 4
