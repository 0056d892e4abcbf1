from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.axes import ALWAYS
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw

Evaluate = Callable[[Stamps], Evaluated]


def _table(evaluated: Evaluated, config: CompletenessConfig | None = None) -> pl.DataFrame:
    return pl.DataFrame(evaluated.completeness(config)[0].table)


def test_each_axis_holds_every_injection_once(survey: Evaluated) -> None:
    narrow = CompletenessConfig(theta_e_edges_arcsec=[0.8, 1.2])
    for table in (_table(survey), _table(survey, narrow)):
        sums = table.group_by("operating_point", "axis").agg(pl.col("n").sum(), pl.col("n_recovered").sum())
        assert set(sums["axis"]) == set(ALWAYS)
        assert set(sums["n"]) == {800}
        assert (
            sums.group_by("operating_point").agg(pl.col("n_recovered").n_unique())["n_recovered"].to_list() == [1] * 3
        )
    outside = _table(survey, narrow).filter(pl.col("cell") == "outside the edges")
    assert outside["n"].min() > 0  # type: ignore[operator]


def test_completeness_is_the_weighted_share_of_logits_above_the_threshold(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 200})
    rng = np.random.default_rng(0)
    stamps.columns["weight"] = rng.lognormal(0, 1, len(stamps.split)).tolist()
    evaluated = evaluate(stamps)
    table = (
        _table(evaluated)
        .filter((pl.col("axis") == "all") & (pl.col("operating_point") == "fpr_1e-01"))
        .row(0, named=True)
    )
    threshold = evaluated.fit.table.to_pylist()[0]["threshold"]
    mine = (np.array(stamps.split) == "test") & (np.array(stamps.columns["label"]) == 1)
    weight = np.array(stamps.columns["weight"])[mine]
    recovered = stamps.logit[mine].astype(np.float64) > threshold
    assert table["completeness"] == pytest.approx(np.average(recovered, weights=weight))
    assert table["completeness"] != pytest.approx(recovered.mean(), abs=1e-3)
    assert table["n_eff"] < 150
    assert table["completeness_low"] < table["completeness"] < table["completeness_high"]


def test_injections_that_were_never_stored_are_counted_apart(survey: Evaluated) -> None:
    result, publication = survey.completeness()
    assert (result.attempted.n, result.n_scored, result.attempted.lost.height) == (807, 800, 7)
    assert result.attempted.reasons == publication.attributes["quarantine_reasons"] == {"bad_crc": 7}
    table = pl.DataFrame(result.table).filter(pl.col("operating_point") == "fpr_1e-02")
    lost = dict(table.filter(pl.col("axis") == "theta_e_arcsec").select("cell", "n_quarantined").iter_rows())
    assert lost["1 to 1.25"] == 7
    assert sum(lost.values()) == 7
    assert table.filter(pl.col("axis") == "psf_fwhm_used_r")["n_quarantined"].null_count() > 0


def test_lost_injections_unlike_any_stored_one_still_fall_in_a_cell(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 20})
    stamps.lost = [{"task_id": "lost", "region_id": "test-r0", "lens_model": "EPL", "theta_e_arcsec": 7.0}]
    table = _table(evaluate(stamps))
    for axis in ("all", "theta_e_arcsec", "lens_model"):
        assert table.filter(pl.col("axis") == axis)["n_quarantined"].sum() == 1, axis
    epl = table.filter(pl.col("cell") == "EPL").row(0, named=True)
    assert (epl["n"], epl["completeness"], epl["status"]) == (0, None, "undefined")


def test_an_axis_that_nobody_measured_is_undefined_with_the_reason(ten_galaxies: Evaluated) -> None:
    rows = _table(ten_galaxies).filter(pl.col("axis") == "psf_fwhm_used_r")
    assert rows.height == 1
    row = rows.row(0, named=True)
    assert (row["completeness"], row["completeness_low"], row["status"], row["n"]) == (None, None, "undefined", 500)
    assert row["reason"] == "psf_fwhm_used_r is null for all 500 injections"


def test_a_column_that_the_store_lacks_is_undefined_too(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 100, "test": 50})
    stamps.without = ("arc_snr", "weight")
    row = _table(evaluate(stamps)).filter(pl.col("axis") == "arc_snr").row(0, named=True)
    assert row["status"] == "undefined"
    assert "arc_snr is null for all 50" in row["reason"]


def test_ten_galaxies_with_500_injections_are_not_500_independent_ones(ten_galaxies: Evaluated) -> None:
    whole = _table(ten_galaxies).row(0, named=True)
    assert (whole["operating_point"], whole["n"], whole["n_galaxies"]) == ("highest_control", 500, 10)
    assert whole["n_eff"] < 400
    assert whole["completeness_high"] - whole["completeness_low"] > 0.08
    cells = _table(ten_galaxies).filter(pl.col("axis") == "theta_e_arcsec")
    assert set(cells["status"]) == {"small"}


def test_cells_of_regions_that_differ_have_intervals_of_regions_as_all_has(evaluate: Evaluate) -> None:
    stamps = draw({"train": 10, "val_select": 10, "val_calibrate": 200, "test": 200}, injections_per_galaxy=2)
    region = np.array(stamps.columns["region_id"])
    stamps.logit += (2 * np.random.default_rng(3).normal(size=800))[np.unique(region, return_inverse=True)[1]]
    table = _table(evaluate(stamps)).filter(pl.col("status") != "undefined")
    ends = ["operating_point", "n", "n_eff", "cluster", "completeness_low", "completeness_high", "status", "reason"]
    whole, twins = (
        table.filter(where, pl.col("n") == 400).select(ends)
        for where in (pl.col("axis") == "all", pl.col("axis") != "all")
    )
    assert set(twins["cluster"]) == {"region"}
    assert twins.join(whole, on=ends, how="anti", nulls_equal=True).is_empty()
    assert table.filter((pl.col("axis") == "psf_fwhm_used_r") & (pl.col("cluster") == "region")).height


def test_an_empty_cell_is_undefined_and_not_zero(survey: Evaluated) -> None:
    table = _table(survey, CompletenessConfig(theta_e_edges_arcsec=[0.3, 2.5, 5.0, 9.0]))
    empty = table.filter(pl.col("cell") == "5 to 9").row(0, named=True)
    assert (empty["n"], empty["completeness"], empty["status"]) == (0, None, "undefined")


def test_a_store_that_was_not_scored_is_refused(evaluate: Evaluate, survey: Evaluated) -> None:
    other = evaluate(draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 5}, seed=1))
    other.chain = replace(other.chain, store=survey.chain.store, splits=survey.chain.splits)
    with pytest.raises(EvaluationError, match=r"scores \w+ was made from stamp_store"):
        other.completeness()


def test_a_test_split_without_injections_is_a_clear_error(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 30, "test": 10})
    lens_in_test = [s == "test" and label == 1 for s, label in zip(stamps.split, stamps.columns["label"], strict=True)]
    for i in np.flatnonzero(lens_in_test):
        stamps.columns["label"][i] = 0
    with pytest.raises(EvaluationError, match=r"test of scores .* has no injection .20 controls."):
        evaluate(stamps).completeness()


@pytest.mark.parametrize("edges", [[1.0], [2.0, 1.0], [1.0, 1.0]])
def test_edges_that_do_not_rise_are_refused(edges: list[float]) -> None:
    with pytest.raises(ValidationError, match="edges must rise"):
        CompletenessConfig(theta_e_edges_arcsec=edges)


def test_real_sources_and_what_training_never_saw_are_told_apart_where_there_are_some(evaluate: Evaluate) -> None:
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 200})
    label = stamps.columns["label"]
    real = [number % 3 == 0 and lens == 1 for number, lens in enumerate(label)]
    stamps.columns["source_id"] = ["cosmos-1" if yes else None for yes in real]
    stamps.columns["is_held_out"] = [yes if lens else None for yes, lens in zip(real, label, strict=True)]
    mine = (np.array(stamps.split) == "test") & (np.array(label) == 1)
    stamps.logit[mine & np.array(real)] -= 50
    table = _table(evaluate(stamps)).filter(pl.col("operating_point") == "fpr_1e-01")
    found = {(row["axis"], row["cell"]): row for row in table.iter_rows(named=True)}
    for axis, ours, theirs in (
        ("source_id", "real galaxy", "Sersic profile"),
        ("is_held_out", "held out of training", "seen in training"),
    ):
        assert found[axis, ours]["n"] == int((mine & np.array(real)).sum())
        assert found[axis, ours]["n"] + found[axis, theirs]["n"] == mine.sum()
        assert found[axis, ours]["completeness"] == 0.0 < 0.3 < found[axis, theirs]["completeness"]
