"""Completeness times what the catalogue's cuts leave of lenses: among all lenses, not only among those that are parents."""

import re
from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import COMPLETENESS, PARENT_COMPLETENESS
from lens_pipeline.evaluation.config import CompletenessConfig
from lens_pipeline.evaluation.selection_function import SelectionFunction
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import Stamps, draw
from lens_pipeline_tests.evaluation.test_axes import measured

Evaluate = Callable[[Stamps], Evaluated]


def kept(share: dict[float, float], n: int = 100, half: float = 0.1) -> pa.Table:
    """What a parent sample says: the share kept by arc magnitude, beside another that must not be read."""
    rows = [
        {
            "source_colour": colour,
            "blended_share": blended,
            "arc_mag_r": mag,
            "n": n,
            "n_kept": 1,
            "share_kept": value * factor,
        }
        | {"low": max(0.0, value * factor - half), "high": min(1.0, value * factor + half)}
        for colour, blended, factor in (("flat", 1.0, 0.5), ("star_forming", 0.5, 0.9), ("star_forming", 1.0, 1.0))
        for mag, value in share.items()
    ]
    return pa.Table.from_pylist(rows, schema=PARENT_COMPLETENESS.schema)


def surveyed() -> Stamps:
    """Arcs of r = 21.5 (24, magnified 10 times) and, every other injection, of 24."""
    stamps = draw({"train": 5, "val_select": 5, "val_calibrate": 300, "test": 200})
    is_lens = np.array(stamps.columns["label"]) == 1
    faint = np.cumsum(is_lens) % 2 == 0
    stamps.columns["magnification"] = [
        (1.0 if f else 10.0) if lens else None for lens, f in zip(is_lens, faint, strict=True)
    ]
    stamps.columns["weight"] = np.random.default_rng(0).lognormal(0, 0.5, len(is_lens)).tolist()
    stamps.kept = kept({21.0: 0.2, 22.0: 0.6, 24.0: 0.8, 25.0: 1.0})
    return stamps


def test_the_total_is_the_weighted_share_of_lenses_that_are_parents_and_recovered(evaluate: Evaluate) -> None:
    stamps = surveyed()
    evaluated = evaluate(stamps)
    result, _ = evaluated.completeness()
    COMPLETENESS.validate(result.table, where="the test")
    row = pl.DataFrame(result.table).row(
        by_predicate=(pl.col("axis") == "all") & (pl.col("operating_point") == "fpr_1e-01"), named=True
    )
    threshold = evaluated.fit.table.to_pylist()[0]["threshold"]
    mine = (np.array(stamps.split) == "test") & (np.array(stamps.columns["label"]) == 1)
    weight = np.array(stamps.columns["weight"])[mine]
    recovered = stamps.logit[mine].astype(np.float64) > threshold
    # Halfway from 0.2 to 0.6 at 21.5 mag.
    share = np.where(np.array(stamps.columns["magnification"])[mine] == 1.0, 0.8, 0.4)
    assert row["total"] == pytest.approx(np.average(recovered * share, weights=weight))
    assert row["total"] == pytest.approx(row["completeness"] * row["parent_share"])
    assert row["total_low"] == pytest.approx(row["completeness_low"] * (row["parent_share"] - 0.1))
    assert row["total_high"] == pytest.approx(row["completeness_high"] * (row["parent_share"] + 0.1))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", evaluated.report()[0].page.decode()))
    assert "Of all such lenses whose galaxy alone meets the cuts of the parent sample" in text


def test_beyond_the_magnitudes_that_were_tried_the_nearest_share_is_taken(evaluate: Evaluate) -> None:
    stamps = surveyed()
    stamps.columns["src_mag_r"] = [None if mag is None else 40.0 for mag in stamps.columns["src_mag_r"]]
    row = evaluate(stamps).completeness()[0].table.to_pylist()[0]
    assert row["parent_share"] == 1.0
    assert row["total"] == row["completeness"]
    assert row["total_high"] == row["completeness_high"]


def test_the_smooth_total_is_as_unsure_as_the_parent_sample_of_what_its_cuts_keep(evaluate: Evaluate) -> None:
    stamps = measured()
    stamps.kept = kept({15.0: 0.5, 30.0: 0.5}, half=0.4)
    config = CompletenessConfig(fit_axes=["theta_e_arcsec", "src_mag_r"])
    function = SelectionFunction.load(evaluate(stamps).completeness(config)[1], smooth=True)
    there = {"theta_e_arcsec": [0.8, 1.4, 2.0], "src_mag_r": 23.5}
    found, total = (function.evaluate(of_all_lenses=of_all, **there) for of_all in (False, True))
    assert total.value == pytest.approx(0.5 * found.value, abs=0.05)
    # The share is 0.5 (0.1 to 0.9), and the fit's own interval comes on top.
    assert (total.low < 0.1 * found.value).all()
    assert (total.high > 0.9 * found.value).all()
    assert (total.n_eff > 0).all()


def test_without_cuts_or_magnitudes_there_is_no_total_but_a_reason(evaluate: Evaluate, survey: Evaluated) -> None:
    (row, *_) = survey.completeness()[0].table.to_pylist()
    assert (row["total"], row["total_low"], row["parent_share"]) == (None, None, None)
    assert row["total_reason"] == "source simulated has no cuts whose losses are known"
    assert "Of all such lenses" not in survey.report()[0].page.decode()
    stamps = surveyed()
    stamps.without = ("magnification",)
    (row, *_) = evaluate(stamps).completeness()[0].table.to_pylist()
    assert row["total"] is None
    assert (
        row["total_reason"]
        == "magnification is not known for 200 of 200 injections, so their arcs' magnitudes aren't known"
    )


@pytest.mark.parametrize(
    ("column", "value"), [("src_mag_r", float("nan")), ("src_mag_r", 99.0), ("magnification", 0.0)]
)
def test_an_arc_whose_magnitude_cannot_be_computed_leaves_its_cell_without_a_total(
    evaluate: Evaluate, column: str, value: float
) -> None:
    stamps = surveyed()
    lens = next(
        n for n, (split, label) in enumerate(zip(stamps.split, stamps.columns["label"], strict=True))
        if split == "test" and label == 1
    )  # fmt: skip
    stamps.columns[column][lens] = value  # type: ignore[index]
    (row, *_) = evaluate(stamps).completeness()[0].table.to_pylist()
    assert (row["parent_share"], row["total"], row["total_low"]) == (None, None, None)
    assert row["total_reason"].startswith(f"{column} is not known for 1 of 200 injections")
