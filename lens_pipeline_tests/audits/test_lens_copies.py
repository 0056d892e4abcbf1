"""Stamps with the same pixels: one lens under all its names, known by all that is said of it, and counted once."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from lens_pipeline.audits.lens_copies import told_of_copies, with_copies_told
from lens_pipeline.audits.real_lenses import RealLensConfig, real_lenses_are_found_like_injections
from lens_pipeline_tests.audits.test_real_lenses import N_SET_ASIDE, measure, row_of, scored_as, set_aside, stamps
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import publish


def told(*rows: dict[str, Any]) -> pl.DataFrame:
    """Stamps a, b, c, ... of files, with what a test says of each."""
    schema = {
        "lens_name": pl.String, "methods": pl.String, "is_confident": pl.Boolean, "independent_of_networks": pl.Boolean,
        "logit": pl.Float64, "key": pl.String, "pixel_hash": pl.Binary,
    }  # fmt: skip
    blank = dict.fromkeys(schema) | {"logit": 1.0}
    return with_copies_told(
        pl.DataFrame([blank | {"key": key} | row for key, row in zip("abcdef", rows, strict=False)], schema=schema)
    )


def test_lenses_of_the_store_under_other_names_in_the_users_files_count_once_with_all_their_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = Evaluated(publish(stamps(), tmp_path / "chain"))
    splits = set_aside(evaluated.chain, methods="network")
    ours = measure(evaluated, splits=splits)[0].stamps.to_pylist()
    hashes = dict(pl.DataFrame(evaluated.chain.store.read_table()).select("task_id", "pixel_hash").iter_rows())
    copies = [(f"copy {n}", row["logit"], hashes[row["task_id"]]) for n, row in enumerate(ours)]
    second = [(f"second {n}", row["logit"], b"%016d" % n) for n, row in enumerate(ours)]
    keys, logits, pixels = (list(values) for values in zip(*copies, *second, strict=True))
    scored_as(monkeypatch, logits, keys, pixels=pixels)
    names = tmp_path / "names.csv"
    said = "".join(f"{key},SLACS {key.split()[1]},spectroscopy,true,true\n" for key in keys)
    names.write_text("task_id,lens_name,methods,is_confident,independent_of_networks\n" + said)
    found, made = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"], names=str(names)), splits=splits)
    for stratum in ("all", "confident", "independent of networks", "spectroscopy"):
        assert (row_of(found, stratum)["n"], row_of(found, stratum)["n_lenses"]) == (2 * N_SET_ASIDE, N_SET_ASIDE)
    assert row_of(found, "network")["n"] == N_SET_ASIDE
    (first, *_) = made.read_table("stamps").to_pylist()
    assert first["lens_name"] == f"{ours[0]['lens_name']} = SLACS 0"
    assert first["methods"] == "network, spectroscopy"
    message = real_lenses_are_found_like_injections(found.table).message()
    assert f"{N_SET_ASIDE} lenses have several names and count once: {first['lens_name']}" in message


def test_names_are_of_one_lens_however_many_stamps_lie_between_them_and_no_other_lens_joins() -> None:
    rows = told(
        {"lens_name": "store lens", "pixel_hash": b"1"},
        {"lens_name": "store lens", "pixel_hash": b"2"},
        {"lens_name": "one name", "pixel_hash": b"1"},
        {"lens_name": "another name", "pixel_hash": b"2"},
        {"lens_name": "another name", "pixel_hash": b"3"},
        {"pixel_hash": b"4"},
    )
    assert rows["lens_name"].to_list() == [*["store lens = one name = another name"] * 5, "f"]
    assert rows.filter(pl.col("same_as").is_null())["key"].to_list() == ["a", "b", "e", "f"]
    assert "1 lens has several names and counts once: store lens = one name = another name" in told_of_copies(rows)


def test_a_key_is_no_name_where_a_copy_of_the_stamp_has_one() -> None:
    assert (
        told({"pixel_hash": b"1"}, {"lens_name": "named", "pixel_hash": b"1"})["lens_name"].to_list() == ["named"] * 2
    )


def test_copies_are_known_by_what_any_of_them_says_and_what_none_says_is_unknown() -> None:
    rows = told(
        {"pixel_hash": b"1", "methods": "network"},
        {"pixel_hash": b"1", "methods": "visual, network", "is_confident": True},
        {"pixel_hash": b"2", "is_confident": False},
    )
    assert rows["methods"].to_list() == ["network, visual", "network, visual", None]
    assert rows["is_confident"].to_list() == [True, True, False]
    assert rows["independent_of_networks"].to_list() == [None] * 3
    assert rows["disputed"].to_list() == [None] * 3


def test_copies_that_contradict_each_other_say_yes_and_are_told() -> None:
    no_and_yes = {"is_confident": False, "independent_of_networks": False}, {"is_confident": True}
    for first, second in (no_and_yes, no_and_yes[::-1]):
        rows = told({"pixel_hash": b"1", **first}, {"pixel_hash": b"1", **second}, {"pixel_hash": b"2", **first})
        assert rows["is_confident"].to_list()[:2] == [True, True]
        assert rows["independent_of_networks"].to_list()[:2] == [False, False]
        said = "1 has a copy that contradicts, and yes was taken over no: a (is_confident)"
        assert said in told_of_copies(rows)


def test_of_copies_one_that_has_a_score_counts() -> None:
    rows = told({"pixel_hash": b"1", "logit": None}, {"pixel_hash": b"1"}, {"pixel_hash": b"1"})
    assert rows["same_as"].to_list() == ["b", None, "b"]


def test_stamps_whose_pixels_are_unknown_are_copies_of_nothing() -> None:
    rows = told({"logit": None}, {"logit": None})
    assert rows["same_as"].to_list() == [None, None]
    assert rows["lens_name"].to_list() == ["a", "b"]
    assert told_of_copies(rows) == []
