"""The report's first lines say what real lenses and shortcut gates say of the same scores, and what was never asked."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lens_pipeline.contracts.audit_tables import SHORTCUT_GATES
from lens_pipeline.contracts.errors import EvaluationError
from lens_pipeline.contracts.real_lens_tables import REAL_LENS_RECOVERY
from lens_pipeline.evaluation.beside import Beside
from lens_pipeline.evaluation.config import OperatingPointConfig, ReportConfig
from lens_pipeline.evaluation.report import PAGE
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.conftest import Evaluated
from lens_pipeline_tests.evaluation.synthetic import draw, publish

POINT = "fpr_1e-01"


def recovery(recall: float | None, reason: str | None = None) -> pl.DataFrame:
    row = {
        "operating_point": POINT, "stratum": "all", "n": 68 if recall else 0, "n_lenses": 60 if recall else 0,
        "n_recovered": 2 if recall else 0, "recall": recall, "recall_low": recall and 0.01, "recall_high": recall and 0.1,
        "injected": 0.9, "injected_low": 0.88, "injected_high": 0.92, "status": "ok" if recall else "undefined",
        "reason": reason,
    }  # fmt: skip
    return pl.DataFrame(pa.Table.from_pylist([row], schema=REAL_LENS_RECOVERY.schema))


def gates(*statuses: str) -> pl.DataFrame:
    rows: list[dict[str, Any]] = [
        {
            "name": f"question_{number}", "kind": "gate", "of": f"this from that {number}", "value": 0.75, "low": 0.7,
            "high": 0.8, "level": 0.95, "unit": "AUROC", "limit": 0.6, "n_positives": 100, "n_negatives": 100,
            "n_galaxies": 100, "status": status, "reason": None,
        }
        for number, status in enumerate(statuses)
    ]  # fmt: skip
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=SHORTCUT_GATES.schema))


def test_two_of_68_real_lenses_stand_in_the_first_lines_beside_the_injections() -> None:
    line = Beside(recovery=recovery(2 / 68)).claims(POINT)[0]
    assert "2 of 68 stamps of 60 real lenses are found" in line
    assert "0.900 (0.880 to 0.920) of the injections" in line
    told = Beside(recovery=recovery(2 / 68, "of 71 stamps 3 have no score: truncated")).claims(POINT)[0]
    assert told == f"{line} Told of them: of 71 stamps 3 have no score: truncated."


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "not measured, it was not asked of these scores and thresholds"),
        (recovery(None, "no known-lens stamps were given"), "not measured, no known-lens stamps were given"),
    ],
)
def test_recall_that_is_not_known_is_said_to_be_so(found: pl.DataFrame | None, says: str) -> None:
    assert says in Beside(recovery=found).claims(POINT)[0]


def test_red_gates_are_named_with_their_values_and_unanswered_ones_are_counted() -> None:
    line = Beside(gates=gates("ok", "red", "undecided", "not_measured")).claims(POINT)[1]
    assert "2 of 4 questions about shortcuts could be answered, 1 in red" in line
    assert "can't be champion" in line
    assert "this from that 1: 0.75 (0.70 to 0.80) AUROC" in line
    assert (
        "none of them in red; this version can't be champion: whether anything but arcs tells the classes apart wasn't asked"
        in (Beside(gates=gates("ok", "undecided")).claims(POINT)[1])
    )
    assert "not known, it was not asked of these scores" in Beside().claims(POINT)[1]
    assert (
        "could be answered (asked 2 times before, with other settings)"
        in (Beside(gates=gates("ok"), n_earlier=2).claims(POINT)[1])
    )


def test_the_report_shows_what_is_about_its_scores_and_refuses_what_is_about_others(tmp_path: Path) -> None:
    evaluated = Evaluated(publish(draw({"train": 30, "val_select": 30, "val_calibrate": 150, "test": 150}), tmp_path))
    chain = evaluated.chain
    _, completeness = evaluated.completeness()

    def asked(source: Publication) -> Publication:
        with chain.stage("shortcut_gates", source) as staging:
            staging.write_table(None, gates("ok", "red").to_arrow().cast(SHORTCUT_GATES.schema), SHORTCUT_GATES)
            return staging.commit()

    def recovered(point: Publication) -> Publication:
        with chain.stage("real_lens_recovery", chain.scores, point, completeness) as staging:
            staging.write_table(None, recovery(2 / 68).to_arrow().cast(REAL_LENS_RECOVERY.schema), REAL_LENS_RECOVERY)
            return staging.commit()

    def page(other: Publication) -> str:
        return evaluated.report(ReportConfig(n_bootstrap=200, n_gallery=0), beside=[other])[1].path(PAGE).read_text()

    about_these = asked(chain.scores)
    shown = page(about_these)
    assert "this from that 1" in shown
    assert about_these.version in shown
    assert "Not compared: it was not asked of these scores and thresholds" in shown
    with pytest.raises(EvaluationError, match="shortcut_gates"):
        page(asked(chain.classifier))
    assert "2 of 68 stamps" in page(recovered(evaluated.operating_point))
    again = Evaluated(chain, OperatingPointConfig(target_fprs=[0.2])).operating_point
    with pytest.raises(EvaluationError, match=f"real_lens_recovery .* was made from operating_point {again.version}"):
        page(recovered(again))
