"""Every injection of the manifest is somewhere: scored, quarantined, set aside, or in a region of which no split is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lens_pipeline.evaluation.attempted import UNACCOUNTED, Attempted, attempted_in
from lens_pipeline.evaluation.checks import attempts_are_conserved
from lens_pipeline.splits.assignment import SPLITS, assign
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.frozen import split_of_regions
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import DATASET, Chain, draw, publish

N_TEST = 30


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return _chain(tmp_path_factory.mktemp("attempted"), [])


def _chain(folder: Path, lost: list[dict[str, Any]]) -> Chain:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": N_TEST})
    stamps.lost = [{"lens_model": "SIE", "theta_e_arcsec": 1.1} | row for row in lost]
    return publish(stamps, folder)


def _attempted(chain: Chain, splits: Publication | None = None) -> Attempted:
    return attempted_in(chain.manifest, chain.store, splits or chain.splits)


def _again(chain: Chain, asset: Publication, tables: dict[str | None, pa.Table], **attributes: Any) -> Publication:
    """Publish an asset again with other tables or attributes."""
    with chain.home.stage(DATASET, asset.asset, inputs=[]) as staging:
        whole = {None: asset.read_table(), "rows": asset.read_table("rows")} | tables
        for name, table in whole.items():
            staging.write_table(name, table)
        staging.attributes.update(dict(asset.attributes) | attributes)
        return staging.commit()


def test_a_region_that_lost_all_its_rows_counts_where_the_survey_put_it(tmp_path: Path) -> None:
    lost = [{"task_id": f"lost-{i}", "region_id": "masked", "region_split": "test"} for i in range(4)]
    others = [{"task_id": "other", "region_id": "elsewhere", "region_split": "train"}]
    chain = _chain(tmp_path, lost + others)
    attempted = _attempted(chain)
    assert (attempted.n, attempted.lost["task_id"].to_list()) == (N_TEST + 4, [row["task_id"] for row in lost])
    result, publication = Evaluated(chain).completeness()
    whole = pl.DataFrame(publication.read_table()).filter(pl.col("axis") == "all")
    assert set(whole["n_quarantined"]) == {4}
    check = attempts_are_conserved(result.attempted, result.n_scored)
    assert check.passed
    assert "34 injections were attempted in test, 30 scored, 4 quarantined" in check.what


def test_a_region_that_lost_all_its_rows_has_the_split_that_its_hash_gives(chain: Chain) -> None:
    splits = _again(chain, chain.splits, {}, by_survey=False, seed=7)
    regions = [f"new-{i}" for i in range(200)]
    wanted = {region: SPLITS[place] for region, place in zip(regions, assign(regions, 7, SplitConfig()), strict=True)}
    assert set(wanted.values()) == set(SPLITS)
    own = dict.fromkeys([*regions, "test-r0"])
    # A survey's own split isn't followed where regions are split by their hash.
    assert split_of_regions(splits, own | {"new-0": "test"}) == wanted | {"test-r0": "test"}


def test_a_survey_s_val_is_cut_in_two_for_regions_without_a_stored_row_too(chain: Chain) -> None:
    found = split_of_regions(chain.splits, {f"new-{i}": "val" for i in range(40)} | {"x": "valid", "y": None})
    assert {found.pop("x"), found.pop("y")} == {None}
    assert set(found.values()) == {"val_select", "val_calibrate"}


def test_injections_of_regions_whose_split_nobody_knows_are_told_apart(tmp_path: Path) -> None:
    lost = [
        {"task_id": f"lost-{i}", "region_id": "masked", "region_split": split}
        for i, split in enumerate(["test", "train"])
    ]
    lost += [{"task_id": "nowhere", "region_id": None}, {"task_id": "unsaid", "region_id": "unsaid"}]
    attempted = _attempted(_chain(tmp_path, lost))
    assert (attempted.n, attempted.lost.height) == (N_TEST, 0)
    assert attempted.reasons_of_no_split == {"bad_crc": 4}
    check = attempts_are_conserved(attempted, N_TEST)
    assert check.passed
    assert "4 more, in regions of which no split is known, weren't stored either" in check.what
    unnamed = attempted.of_no_split.with_columns(reason=pl.lit(UNACCOUNTED))
    assert attempts_are_conserved(replace(attempted, of_no_split=unnamed), N_TEST).count == 4


def test_an_injection_that_is_stored_and_has_no_score_is_red(chain: Chain) -> None:
    check = attempts_are_conserved(_attempted(chain), N_TEST - 1)
    assert (check.passed, check.count) == (False, 1)
    assert attempts_are_conserved(_attempted(chain), N_TEST).passed


def test_an_injection_that_the_quarantine_does_not_name_is_red(tmp_path: Path) -> None:
    chain = _chain(tmp_path, [{"task_id": "lost", "region_id": "test-r0"}])
    quarantine = pa.table({"task_id": ["another"], "reason": ["bad_crc"], "excluded": [False]})
    with chain.home.stage(DATASET, "stamp_store") as staging:
        staging.write_table(None, chain.store.read_table())
        staging.write_table("quarantine", quarantine)
        staging.attributes.update(chain.store.attributes)
        store = staging.commit()
    attempted = attempted_in(chain.manifest, store, chain.splits)
    assert attempted.reasons == {UNACCOUNTED: 1}
    check = attempts_are_conserved(attempted, N_TEST)
    assert (check.passed, check.count, check.first) == (False, 1, (f"{UNACCOUNTED}: 1",))


def test_injections_of_galaxies_that_are_known_lenses_are_counted_apart(chain: Chain) -> None:
    task = chain.manifest.read_table(columns=["task_id", "lens_model", "region_id"]).to_pylist()
    mine = [row["task_id"] for row in task if row["lens_model"] == "SIE" and row["region_id"] == "test-r1"][:2]
    attempted = _attempted(chain, _again(chain, chain.splits, {"known_lenses": pa.table({"task_id": mine})}))
    assert (attempted.n, attempted.n_set_aside) == (N_TEST, 2)
    check = attempts_are_conserved(attempted, N_TEST - 2)
    assert check.passed
    assert "2 set aside with galaxies that are known lenses" in check.what
    assert not attempts_are_conserved(attempted, N_TEST).passed


def test_injections_that_share_a_key_or_have_none_are_counted_and_have_their_reason(tmp_path: Path) -> None:
    twice = [{"task_id": "twice", "region_id": "test-r0"}] * 2
    attempted = _attempted(
        _chain(tmp_path, [*twice, *[{"task_id": key, "region_id": "test-r0"} for key in (None, None, "")]])
    )
    assert (attempted.n, attempted.lost.height) == (N_TEST + 4, 4)
    assert attempted.reasons == {"bad_crc": 4}
