"""Rates that could be read as shares or as per cent: whichever is wrong is wrong by a hundredfold."""

import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.evaluation.epoch_records import records_of_table
from lens_pipeline.evaluation.measured_epochs import records_of_scores

# In plain per cent, as many print them.
_TPR, _FPR = [79.8, 60.1, 0.0], [0.003, 0.07, 0.22]


def _table(*, tpr: list[Any] | None = None, fpr: list[Any], **more: Any) -> list[dict[str, Any]]:
    columns = {"FPR@TPR50": fpr} | ({} if tpr is None else {"TPR@1e-4": tpr})
    return [
        {"epoch": i, "n_neg": 65_090, **more} | {name: values[i] for name, values in columns.items()} for i in range(3)
    ]


@pytest.mark.parametrize("as_text", [False, True])
def test_a_rate_that_never_exceeds_1_beside_one_in_per_cent_is_refused_by_name(as_text: bool) -> None:
    rows = _table(tpr=_TPR, fpr=_FPR)
    rows = [{name: str(value) for name, value in row.items()} for row in rows] if as_text else rows
    with pytest.raises(
        EvaluationError,
        match=r"^1 column of rates never exceeds 1: FPR@TPR50 \(up to 0.22\).*TPR@1e-4.*Next: write a percent sign",
    ):
        records_of_table(rows)


@pytest.mark.parametrize(
    ("tpr", "fpr"),
    [
        (_TPR, [f"{value}%" for value in _FPR]),
        ([value / 100 for value in _TPR], [value / 100 for value in _FPR]),
        (["79.8%", "60.1%", "0%"], [value / 100 for value in _FPR]),
        (["79.8%", "60.1", 0], [f"{value}%" for value in _FPR]),
    ],
)
def test_each_way_out_that_the_refusal_names_is_read_as_the_143_negatives_that_were_meant(
    tpr: list[Any], fpr: list[Any]
) -> None:
    records = records_of_table(_table(tpr=tpr, fpr=fpr, val_auroc=0.9955))
    assert [record.tpr_at[1e-4].value for record in records] == pytest.approx([0.798, 0.601, 0.0])
    counted = records[2].negatives_at(0.5)
    assert counted is not None
    assert counted[0] == 143


def test_a_rate_that_is_0_throughout_is_the_same_in_every_unit() -> None:
    assert records_of_table(_table(tpr=_TPR, fpr=[0, 0.0, "0"]))[0].fpr_at[0.5].value == 0


@pytest.mark.parametrize("auroc", [0.9955, "0.9955", "99.55%"])
def test_an_fpr_that_no_ranking_of_that_auroc_has_is_refused(auroc: float | str) -> None:
    says = "2 of 3 epochs have an FPR that their AUROC contradicts: epoch 1: FPR 0.07 at TPR 0.5, with which an AUROC is at most"
    with pytest.raises(EvaluationError, match=re.escape(says)):
        records_of_table(_table(fpr=_FPR, val_auroc=auroc))


@pytest.mark.parametrize("auroc", ["1.0", 1.0, "100%"])
def test_an_auroc_contradicts_no_fpr_by_less_than_its_rounding(auroc: float | str) -> None:
    assert len(records_of_table(_table(fpr=[0.003, 0.01, 0.015], val_auroc=auroc))) == 3


def test_a_tie_of_half_of_the_lenses_with_many_controls_is_no_contradiction() -> None:
    label = np.repeat([1, 1, 0, 0], [49, 51, 220, 780])
    logit = np.repeat([3.0, 2.0, 2.0, 1.0], [49, 51, 220, 780])
    (measured,) = records_of_scores(pl.DataFrame({"label": label, "logit": logit}))
    assert measured.auroc is not None
    assert measured.auroc > 1 - measured.fpr_at[0.5].value * 0.5
    assert records_of_table([{"epoch": 0, "auroc": measured.auroc, "FPR@TPR50": measured.fpr_at[0.5].value}])
