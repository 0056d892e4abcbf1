"""A model card says only what the artifacts say, each metric with its n and interval, and what it can't say is null with why."""

import json

import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import COMPLETENESS, METRICS, OPERATING_POINT, SHORTCUT_GATES
from lens_pipeline.evaluation.metrics import NULL_TEST
from lens_pipeline.scoring.card import as_json, describe_model
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.conftest import Trained


def _row(contract: pa.Schema, **values: object) -> dict[str, object]:
    zero = {"int64": 0, "double": None, "string": ""}
    return {field.name: zero[str(field.type)] for field in contract} | values


def publish_report(home: Home, named: Publication, auroc: float = 0.9) -> Publication:
    """Publish a report about a classifier or an ensemble's scores, with the tables that it was made from."""
    made: list[Publication] = []
    counts = {
        "n_positives": 12,
        "n_negatives": 34,
        "n_clusters": 23,
        "split": "test",
        "stratum": "all",
        "cluster": "galaxy",
    }
    unresolved = {"status": "unresolved", "reason": "34 controls are too few"}
    tables = {
        "operating_point": (
            OPERATING_POINT,
            [
                _row(
                    OPERATING_POINT.schema,
                    operating_point="fpr_1e-02",
                    target_fpr=0.01,
                    n_negatives=34,
                    n_galaxies=34,
                    **unresolved,
                )
            ],
        ),
        "completeness": (COMPLETENESS, []),
        "evaluation_report": (
            METRICS,
            [
                _row(
                    METRICS.schema, metric="auroc", value=auroc, low=0.85, high=0.95, status="ok", reason=None, **counts
                ),
                _row(METRICS.schema, metric="tpr_at_fpr_1e-02", **counts, **unresolved),
                _row(METRICS.schema, metric=NULL_TEST, status="undefined", reason="no faint arcs", **counts),
            ],
        ),
    }
    for asset, (contract, rows) in tables.items():
        with home.stage(named.dataset, asset, model=named.model, inputs=[named, *made]) as staging:
            staging.write_table(None, pa.Table.from_pylist(rows, schema=contract.schema), contract)
            staging.attributes["auroc"] = auroc
            if asset == "evaluation_report":
                staging.write_bytes("report.html", b"<html></html>")
            made.append(staging.commit())
            home.conclude(made[-1], [])
    return made[-1]


def publish_gates(
    home: Home,
    named: Publication,
    *red: str,
    undecided: str = "null_flux_logits",
    kinds: tuple[str, ...] = ("gate", "counterfactual", "path"),
) -> Publication:
    """Publish the shortcut gates of a classifier or an ensemble's scores, some of them red; one of each of `kinds` is ok."""
    name_of = {"gate": "injection_pixels", "counterfactual": "arc_over_removed", "path": "scores_equal_predict"}
    answers = [
        *((name_of[kind], kind, "ok") for kind in kinds),
        (undecided, "gate", "undecided"),
        *((name, "counterfactual", "red") for name in red),
    ]
    rows = [
        _row(SHORTCUT_GATES.schema, name=name, kind=kind, of="x", unit="logit", status=status)
        | {"n_positives": 9, "n_negatives": 9, "n_galaxies": 9}
        for name, kind, status in answers
    ]
    with home.stage(named.dataset, "shortcut_gates", model=named.model, inputs=[named]) as staging:
        staging.write_table(None, pa.Table.from_pylist(rows, schema=SHORTCUT_GATES.schema), SHORTCUT_GATES)
        made = staging.commit()
    home.conclude(made, [])
    return made


@pytest.fixture
def report(trained: Trained) -> Publication:
    return publish_report(trained.home, trained.classifier)


def test_every_metric_stands_with_its_n_and_interval_or_with_the_reason_why_not(
    trained: Trained, report: Publication
) -> None:
    card = describe_model(trained.home, trained.classifier, report)
    auroc, tpr = card["metrics"][:2]
    assert (auroc["value"], auroc["low"], auroc["high"], auroc["n_positives"], auroc["n_negatives"]) == (
        0.9,
        0.85,
        0.95,
        12,
        34,
    )
    assert (tpr["value"], tpr["reason"]) == (None, "34 controls are too few")
    text = as_markdown(card)
    assert "| Area under the ROC curve | 0.90 (0.85 to 0.95) | 12 | 34 | 23 |" in text
    assert "unresolved: 34 controls are too few" in text
    assert "No threshold was fitted for FPR 0.01" in text


def test_without_a_report_metrics_are_null_with_the_reason(trained: Trained) -> None:
    card = describe_model(trained.home, trained.classifier, None)
    assert card["metrics"] is None
    assert "no evaluation_report about this version was published" in card["why_no_metrics"]
    assert card["why_no_metrics"] in as_markdown(card)
    assert "How well it finds lenses was not measured." in card["limits"]


def test_what_gates_forbid_and_leave_open_stands_among_the_cards_limits(trained: Trained, report: Publication) -> None:
    def limits() -> str:
        card = describe_model(trained.home, trained.classifier, report)
        assert all(limit in as_markdown(card) for limit in card["limits"])
        return " ".join(card["limits"])

    assert "It can't be champion: it was never asked whether it learned a shortcut." in limits()
    publish_gates(trained.home, trained.classifier, kinds=("gate", "path"))
    assert "whether the score follows the arc wasn't asked" in limits()
    publish_gates(trained.home, trained.classifier)
    assert "can't be champion" not in limits()
    assert "Shortcut gates that were not answered, for or against: null_flux_logits." in limits()


def test_the_card_says_what_the_model_is_made_of_and_learned_from(trained: Trained, report: Publication) -> None:
    card = json.loads(as_json(describe_model(trained.home, trained.classifier, report)))
    assert card["model"]["files"]["model.safetensors"] == trained.classifier.entry("model.safetensors").sha256
    assert card["data"]["rows"]["train"] == {"control": 48, "lens": 48}
    assert (card["data"]["stamp_store"], card["data"]["n_stored"]) == (trained.store.version, 192)
    assert card["training"]["config"]["class_weighting"] == "balanced"
    assert card["training"]["best"]["epoch"] == trained.classifier.attributes["best_epoch"]
    assert card["input"]["preprocessing"]["name"] == "asinh_v1"


def test_the_best_epochs_figures_stand_with_their_rows_and_standard_error(trained: Trained) -> None:
    card = describe_model(trained.home, trained.classifier, None)
    history = trained.classifier.read_table().to_pylist()
    (best,) = [row for row in history if row["epoch"] == trained.classifier.attributes["best_epoch"]]
    assert card["training"]["best"]["val_loss_se"] == best["val_loss_se"] > 0
    text = as_markdown(card)
    assert f"train_loss {best['train_loss']:.4g} on {best['train_rows']} rows; " in text
    assert (
        f"val_loss {best['val_loss']:.4g}, standard error {best['val_loss_se']:.4g}, and val_auroc {best['val_auroc']:.4g} "
        f"on {best['validation_rows']} rows)"
    ) in text


def test_a_model_of_simulated_stamps_says_so_among_its_limits(trained: Trained) -> None:
    assert "simulated" in describe_model(trained.home, trained.classifier, None)["limits"][0]


def test_data_that_are_gone_are_told_as_gone(trained: Trained, report: Publication) -> None:
    elsewhere = Home(trained.home.path / "elsewhere")
    card = describe_model(elsewhere, trained.classifier, None)
    assert "never published" in card["data"]["why_no_more"] or "no version" in card["data"]["why_no_more"]
    assert "no more can be told" in as_markdown(card)


def test_the_same_artifacts_give_the_same_card(trained: Trained, report: Publication) -> None:
    cards = [as_json(describe_model(trained.home, trained.classifier, report)) for _ in range(2)]
    assert cards[0] == cards[1]
