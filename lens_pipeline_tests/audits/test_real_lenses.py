"""Recall of real lenses: counted by lens, at frozen thresholds, beside injections; unknown is said and never 0."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from lens_pipeline.audits import real_lenses
from lens_pipeline.audits.real_lenses import (
    NOT_GIVEN,
    RealLensConfig,
    Recovery,
    measure_recovery,
    real_lenses_are_found_like_injections,
)
from lens_pipeline.contracts.catalogue import PREDICTIONS, SET_ASIDE, SPLIT_ROWS
from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.contracts.real_lens_tables import REAL_LENS_RECOVERY, REAL_LENS_STAMPS
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Chain, Stamps, draw, publish

N_SET_ASIDE = 40


@pytest.fixture
def evaluated(tmp_path: Path) -> Evaluated:
    return Evaluated(publish(stamps(), tmp_path))


def stamps() -> Stamps:
    """Galaxies in every split, and some whose lens is known: these score as the caller's test wants."""
    return draw({"train": 30, "val_select": 30, "val_calibrate": 150, "test": 150, "known_lens": N_SET_ASIDE})


def measure(
    evaluated: Evaluated,
    config: RealLensConfig | None = None,
    splits: Publication | None = None,
    scores: Publication | None = None,
) -> tuple[Recovery, Publication]:
    chain = evaluated.chain
    _, completeness = evaluated.completeness()
    with chain.stage("real_lens_recovery", chain.scores, evaluated.operating_point, completeness) as staging:
        found = measure_recovery(
            config or RealLensConfig(),
            scores=chain.scores,
            operating_point=evaluated.operating_point,
            completeness=completeness,
            splits=splits or chain.splits,
            store=chain.store,
            classifiers=[chain.classifier],
            staging=staging,
        )
        return found, staging.commit()


def set_aside(chain: Chain, methods: str = "spectroscopy") -> Publication:
    """Splits that say of the galaxies of known_lens which lens each is."""
    index = pl.DataFrame(chain.store.read_table()).join(
        pl.DataFrame(chain.splits.read_table("rows")).select("task_id", "split"), on="task_id"
    )
    rows = index.filter(pl.col("split") == "known_lens")
    lenses = [
        {
            "task_id": row["task_id"], "separation_arcsec": 0.5, "lens_name": row["galaxy_id"], "lens_ra": 1.0,
            "lens_dec": 2.0, "grade": "confident" if number % 4 < 2 else "probable", "methods": methods,
            "independent_of_networks": "network" not in methods, "references": "x",
        }
        for number, row in enumerate(rows.iter_rows(named=True))
    ]  # fmt: skip
    with chain.stage("region_splits", chain.store) as staging:
        staging.write_table(None, chain.splits.read_table())
        staging.write_table("rows", chain.splits.read_table("rows"), SPLIT_ROWS)
        staging.write_table("known_lenses", pa.Table.from_pylist(lenses, schema=SET_ASIDE.schema), SET_ASIDE)
        return staging.commit()


def row_of(found: Recovery, stratum: str = "all", point: str = "fpr_1e-01") -> dict[str, Any]:
    (row,) = [r for r in found.table.to_pylist() if (r["stratum"], r["operating_point"]) == (stratum, point)]
    return row


def test_without_real_lenses_recall_is_unknown_and_says_why(evaluated: Evaluated) -> None:
    found, made = measure(evaluated)
    row = row_of(found)
    assert (row["recall"], row["status"], row["reason"]) == (None, "undefined", NOT_GIVEN)
    assert row["injected"] is not None
    assert NOT_GIVEN in real_lenses_are_found_like_injections(found.table).what
    REAL_LENS_RECOVERY.validate(made.read_table(), where="test")


def test_recall_counts_stamps_as_they_are_and_no_injection_into_a_known_lens(evaluated: Evaluated) -> None:
    chain = evaluated.chain
    found, made = measure(evaluated, splits=set_aside(chain))
    row = row_of(found)
    threshold = {r["operating_point"]: r["threshold"] for r in evaluated.operating_point.read_table().to_pylist()}
    mine = pl.DataFrame(chain.scores.read_table()).filter((pl.col("split") == "known_lens") & (pl.col("label") == 0))
    assert row["n"] == row["n_lenses"] == N_SET_ASIDE
    assert row["n_recovered"] == mine.filter(pl.col("logit") > threshold["fpr_1e-01"]).height
    assert row["recall"] == pytest.approx(row["n_recovered"] / N_SET_ASIDE)
    assert row["recall_low"] < row["recall"] < row["recall_high"]
    assert row_of(found, "confident")["n"] < N_SET_ASIDE
    assert row_of(found, "spectroscopy")["n"] == N_SET_ASIDE
    assert row_of(found, "independent of networks")["n"] == N_SET_ASIDE
    REAL_LENS_STAMPS.validate(made.read_table("stamps"), where="test")


def test_a_model_that_finds_injections_and_not_real_lenses_is_red_and_one_that_finds_both_is_not() -> None:
    def table(recall: tuple[float, float, float]) -> pa.Table:
        row = {
            "operating_point": "fpr_1e-02", "stratum": "all", "n": 68, "n_lenses": 68, "n_recovered": 2, "recall": recall[0],
            "recall_low": recall[1], "recall_high": recall[2], "injected": 0.9, "injected_low": 0.88, "injected_high": 0.92,
            "status": "ok", "reason": None,
        }  # fmt: skip
        return pa.Table.from_pylist([row], schema=REAL_LENS_RECOVERY.schema)

    finding = real_lenses_are_found_like_injections(table((0.03, 0.008, 0.1)))
    assert not finding.passed
    assert not finding.blocking
    assert "2 of 68 real lenses" in finding.first[0]
    fewer = table((0.03, 0.008, 0.1)).to_pylist()[0] | {"n_lenses": 60}
    of_stamps = real_lenses_are_found_like_injections(pa.Table.from_pylist([fewer], schema=REAL_LENS_RECOVERY.schema))
    assert "2 of 68 stamps of 60 real lenses" in of_stamps.first[0]
    assert real_lenses_are_found_like_injections(table((0.85, 0.75, 0.92))).passed


def scored_as(
    monkeypatch: pytest.MonkeyPatch,
    logits: list[float | None],
    keys: list[str | None],
    rows: list[int | None] | None = None,
    pixels: list[bytes] | None = None,
) -> None:
    """Stand in for the process that scores files, which tests of `score_files` start for real."""
    hashes = pixels or [b"%016d" % (number or 0) for number in rows or range(len(keys))]
    table = [
        {
            "input": "lenses.parquet", "row": number if rows is None else rows[number], "task_id": key, "logit": logit,
            "reason": None if logit is not None else "not_finite", "detail": None if logit is not None else "3 pixels",
            "pixel_hash": None if logit is None else hashes[number],
        }
        for number, (logit, key) in enumerate(zip(logits, keys, strict=True))
    ]  # fmt: skip
    found = pa.Table.from_pylist(table, schema=PREDICTIONS.schema)
    monkeypatch.setattr(real_lenses, "score_files", lambda *_, **__: found)


def test_stamps_of_one_lens_are_a_cluster_and_those_without_a_score_stand_with_their_reason(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits: list[float | None] = [*np.linspace(-9, 9, 20), None]
    scored_as(monkeypatch, logits, [f"s{n}" for n in range(21)])
    names = tmp_path / "names.csv"
    names.write_text("task_id,lens_name,methods\n" + "".join(f"s{n},lens {n // 2},visual\n" for n in range(21)))
    found, _ = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"], names=str(names)))
    row = row_of(found)
    assert (row["n"], row["n_lenses"]) == (20, 10)
    alone, _ = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"]))
    assert row["recall_high"] - row["recall_low"] > row_of(alone)["recall_high"] - row_of(alone)["recall_low"]
    (without,) = [r for r in found.stamps.to_pylist() if r["logit"] is None]
    assert without["reason"] == "not_finite: 3 pixels"
    said = "of 21 stamps 1 has no score: not_finite: 3 pixels"
    assert row["reason"] == said
    assert said in real_lenses_are_found_like_injections(found.table).message()
    assert row_of(found, "visual")["n"] == 20


def test_stamps_that_all_have_no_score_leave_recall_undefined_and_not_0(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_as(monkeypatch, [None, None], [None, None])
    row = row_of(measure(evaluated, RealLensConfig(stamps=["lenses.parquet"]))[0])
    assert row["recall"] is None
    assert "of 2 stamps none has a score: not_finite" in row["reason"]


def test_stamps_without_a_key_are_named_by_file_and_row_and_a_file_named_twice_shows_no_more(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_as(monkeypatch, [1.0, 2.0, 1.0, None], [None] * 4, rows=[0, 1, 0, None])
    names = tmp_path / "names.csv"
    said = "lenses.parquet:0,one lens,True,\nlenses.parquet:1,one lens, false ,1\n"
    names.write_text("task_id,lens_name,is_confident,independent_of_networks\n" + said)
    found, made = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"], names=str(names)))
    assert (row_of(found)["n"], row_of(found)["n_lenses"]) == (2, 1)
    told = made.read_table("stamps").to_pylist()
    assert [(row["lens_name"], row["is_confident"]) for row in told[:2]] == [("one lens", True), ("one lens", False)]
    assert [row["independent_of_networks"] for row in told[:2]] == [None, True]
    assert (told[2]["logit"], told[2]["reason"]) == (None, "not_finite: 3 pixels")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_stamps_without_a_name_are_a_lens_each_and_spaces_around_a_name_are_none_of_it(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    scored_as(monkeypatch, [1.0] * 6, list("abcdef"))
    names = tmp_path / f"names.{kind}"
    text = 'task_id,lens_name,methods\na,"",\nb,"",""\nc,,"  "\nd,"  ",\ne,J1,\nf," J1 ",visual\n'
    if kind == "csv":
        names.write_text(text)
    else:
        pl.read_csv(text.encode()).write_parquet(names)
    found, _ = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"], names=str(names)))
    assert [row["lens_name"] for row in found.stamps.to_pylist()] == [*"abcd", "J1", "J1"]
    assert (row_of(found)["n"], row_of(found)["n_lenses"]) == (6, 5)
    assert set(found.table["stratum"].to_pylist()) == {"all", "visual"}


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("task_id,lens_name,is_confident\ns0,a,maybe\ns1,a,\n", ContractError, "neither true nor false but maybe"),
        ("task_id,lens_name\ns0,a\ns1,a,b,c\n", ContractError, "can't be read as CSV or parquet"),
        (None, ConfigError, r"real_lens_recovery\.names: there is no file"),
        ("lens_name\na\n", ContractError, "has no column task_id"),
        ("task_id,lens_name\ns0,a\ns0,b\n", ContractError, "names 1 of its stamps more than once: s0"),
        ("task_id,lens_name\ns0,a\n", ContractError, "says nothing of 1 of 2 stamps: s1"),
    ],
)
def test_a_table_of_names_that_does_not_fit_is_refused(
    evaluated: Evaluated,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    error: type[Exception],
    says: str,
) -> None:
    scored_as(monkeypatch, [1.0, 2.0], ["s0", "s1"])
    names = tmp_path / "names.csv"
    if text is not None:
        names.write_text(text)
    with pytest.raises(error, match=says):
        measure(evaluated, RealLensConfig(stamps=["lenses.parquet"], names=str(names)))


def test_a_lens_that_is_given_twice_under_two_keys_counts_once_and_is_told(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = b"1" * 16, b"2" * 16
    scored_as(monkeypatch, [9.0, -9.0, 9.0, 9.0], ["s0", "s1", "copy", "again"], pixels=[one, other, one, one])
    found, made = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"]))
    row = row_of(found)
    assert (row["n"], row["n_lenses"], row["n_recovered"], row["recall"]) == (2, 2, 1, 0.5)
    said = "2 more have the pixels of another and count no more: copy = s0, again = s0"
    assert said in row["reason"]
    assert said in real_lenses_are_found_like_injections(found.table).message()
    assert {r["task_id"]: r["same_as"] for r in made.read_table("stamps").to_pylist()} == {
        "s0": None, "s1": None, "copy": "s0", "again": "s0",
    }  # fmt: skip


def test_a_stamp_of_the_users_files_that_the_store_has_set_aside_counts_once(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = set_aside(evaluated.chain)
    alone, _ = measure(evaluated, splits=splits)
    index = pl.DataFrame(evaluated.chain.store.read_table())
    first = next(s for s in alone.stamps.to_pylist() if s["origin"] == "store")["task_id"]
    (pixels,) = index.filter(pl.col("task_id") == first)["pixel_hash"]
    scored_as(monkeypatch, [1.0], ["mine"], pixels=[pixels])
    found, _ = measure(evaluated, RealLensConfig(stamps=["lenses.parquet"]), splits=splits)
    assert (row_of(found)["n"], row_of(found)["n_recovered"]) == (N_SET_ASIDE, row_of(alone)["n_recovered"])
    assert f"1 more has the pixels of another and count no more: mine = {first}" in row_of(found)["reason"]


def test_names_that_give_the_same_pixels_to_two_lenses_are_refused(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored_as(monkeypatch, [1.0, 1.0, 2.0], ["s0", "s1", "s2"], pixels=[b"1" * 16, b"1" * 16, b"2" * 16])
    names = tmp_path / "names.csv"
    config = RealLensConfig(stamps=["lenses.parquet"], names=str(names))
    names.write_text("task_id,lens_name\ns0,one\ns1,other\ns2,third\n")
    with pytest.raises(ContractError, match=r"gives 1 stamps, .* to more than one lens: s0 \(one\) = s1 \(other\)"):
        measure(evaluated, config)
    names.write_text("task_id,lens_name\ns0,one\ns1,one\ns2,third\n")
    assert row_of(measure(evaluated, config)[0])["n"] == 2
