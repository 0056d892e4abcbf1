"""What must be known of a model before it may be champion."""

import polars as pl
import pytest

from lens_pipeline.evaluation.promotion import why_gates_forbid

FINE = {
    "injection_pixels": "ok",
    "injection_noise": "ok",
    "probe_pixels": "not_measured",
    "probe_noise": "not_measured",
    "probe_bytes": "not_measured",
    "null_flux_logits": "undecided",
    "arc_over_removed": "ok",
    "arc_over_fake_blob": "ok",
    "scores_equal_predict": "ok",
    "scores_equal_rendered": "not_measured",
}


def answers(**changed: str) -> pl.DataFrame:
    kinds = {"arc": "counterfactual", "scores": "path"}
    rows = [
        {"name": name, "kind": kinds.get(name.partition("_")[0], "gate"), "status": status}
        for name, status in (FINE | changed).items()
    ]
    return pl.DataFrame(rows)


def test_injections_or_probes_answer_for_each_trace_and_every_counterfactual_has_an_answer() -> None:
    assert why_gates_forbid(answers()) is None
    assert why_gates_forbid(answers(injection_noise="undecided", probe_noise="ok")) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arc_over_fake_blob": "red"}, "1 of its shortcut gates are red (arc_over_fake_blob)"),
        ({"arc_over_fake_blob": "undecided"}, "whether the score follows the arc isn't answered (arc_over_fake_blob)"),
        # That the model sees no mark of injecting says nothing of what another training could see in the stamps.
        (
            {"injection_pixels": "undecided", "injection_noise": "undecided", "null_flux_logits": "ok"},
            "whether anything but arcs tells the classes apart isn't answered (injection_pixels, injection_noise)",
        ),
        (
            {"injection_noise": "undecided"},
            "whether anything but arcs tells the classes apart isn't answered (injection_noise)",
        ),
        (
            {"scores_equal_predict": "not_measured"},
            "whether every path gives a row the same logit isn't answered (scores_equal_predict, scores_equal_rendered)",
        ),
    ],
)
def test_what_is_red_or_open_forbids_it_by_name(changed: dict[str, str], said: str) -> None:
    assert why_gates_forbid(answers(**changed)) == said
