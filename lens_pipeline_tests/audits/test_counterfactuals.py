"""A model that follows arcs passes; one that follows flux, or nothing, is red, and too few galaxies decide nothing."""

import numpy as np
import pytest
from scipy.stats import binom

from lens_pipeline.audits.checks import AGREE, FOLLOWS, SEPARATES, gate_checks
from lens_pipeline.audits.counterfactuals import (
    FLUX_SLOPE,
    counterfactual_gates,
    flux_slopes,
    median_interval,
    null_logits_gate,
)
from lens_pipeline.audits.gate import Gate, Kind, Status, gate_table
from lens_pipeline.audits.serving_paths import PREDICT, path_gate
from lens_pipeline.audits.variants import DISPLACED, FAKE_VARIANTS, HALF_TURN, INJECTION, REMOVED, SCALED
from lens_pipeline.contracts.catalogue import SHORTCUT_GATES

ARCS = {INJECTION: 4.0, HALF_TURN: 4.0, REMOVED: -3.0, "arc_x0.25": 0.0, "arc_x0.5": 2.0, "arc_x2": 6.0}


def logits(n: int = 100, fakes: float = 1.0, **changed: float) -> dict[str, np.ndarray]:
    """Logits of a model whose mean for each variant is given, by default one that follows arcs."""
    means = ARCS | dict.fromkeys(FAKE_VARIANTS, fakes) | {DISPLACED: 0.0} | changed
    rng = np.random.default_rng(0)
    own = rng.normal(0, 1, n)
    return {name: (mean + own + rng.normal(0, 0.3, n)).astype(np.float32) for name, mean in means.items()}


def statuses(gates: list[Gate]) -> dict[str, str]:
    return {gate.name: gate.status.value for gate in gates if gate.kind is Kind.counterfactual}


def test_a_model_that_follows_arcs_passes() -> None:
    gates = counterfactual_gates(logits())
    assert set(statuses(gates).values()) == {"ok"}
    assert len(statuses(gates)) == 6
    removed = gates[0]
    assert removed.value == pytest.approx(7, abs=0.2)
    assert removed.low < removed.value < removed.high  # type: ignore[operator]
    SHORTCUT_GATES.validate(gate_table(gates), where="here")


def test_a_model_that_takes_any_flux_for_an_arc_is_red_by_every_fake_and_by_nothing_else() -> None:
    found = statuses(counterfactual_gates(logits(fakes=4.0)))
    assert {name for name, status in found.items() if status == "red"} == {f"arc_over_{name}" for name in FAKE_VARIANTS}


@pytest.mark.parametrize(
    ("changed", "red"),
    [
        ({REMOVED: 4.0}, {"arc_over_removed", "half_turn_over_removed"}),
        ({HALF_TURN: -3.0}, {"half_turn_over_removed"}),
        ({"arc_x0.25": 8.0, "arc_x0.5": 6.0, "arc_x2": 2.0}, {FLUX_SLOPE}),
    ],
)
def test_a_score_that_stays_without_the_arc_stays_behind_when_it_moves_or_falls_with_its_flux_is_red(
    changed: dict[str, float], red: set[str]
) -> None:
    found = statuses(counterfactual_gates(logits(**changed)))
    assert {name for name, status in found.items() if status == "red"} == red


@pytest.mark.parametrize("n", [1, 4, 12])
def test_few_galaxies_decide_nothing(n: int) -> None:
    for fakes in (1.0, 4.0):
        assert set(statuses(counterfactual_gates(logits(n, fakes=fakes))).values()) == {"undecided"}


def test_a_galaxy_without_a_variant_is_left_out_of_that_question_alone() -> None:
    some = logits()
    some["fake_turned"][:40] = np.nan
    counts = {gate.name: gate.n_galaxies for gate in counterfactual_gates(some)}
    assert (counts["arc_over_fake_turned"], counts["arc_over_fake_blob"]) == (60, 100)


def test_the_slope_is_per_factor_of_ten_of_flux() -> None:
    of = {
        name: np.array([3 * np.log10(factor), -np.log10(factor)]) for name, factor in {**SCALED, INJECTION: 1}.items()
    }
    assert flux_slopes(of) == pytest.approx([3, -1])


@pytest.mark.parametrize("n", [6, 20, 21, 128, 1000])
def test_the_interval_of_a_median_is_the_sign_test_s(n: int) -> None:
    low, high = median_interval(np.arange(n, dtype=float))  # type: ignore[misc]
    below = int(low)
    assert n - 1 - high == below
    assert binom.cdf(below, n, 0.5) <= 0.025 < binom.cdf(below + 1, n, 0.5)


def test_the_interval_of_a_median_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = rng.standard_cauchy((2000, 41)) + 7
    intervals = [median_interval(draw) for draw in draws]
    covered = np.mean([low <= 7 <= high for low, high in intervals])  # type: ignore[misc]
    assert 0.945 < covered < 0.985


def test_five_values_have_no_interval_of_95_percent() -> None:
    assert median_interval(np.arange(5.0)) is None


def test_a_mark_that_injecting_leaves_is_red_and_few_galaxies_are_undecided() -> None:
    rng = np.random.default_rng(2)
    control = rng.normal(size=2000)
    gate = null_logits_gate(rng.normal(size=2000), control)
    assert (gate.status, gate.n_galaxies) == (Status.ok, 2000)
    assert 0.47 < gate.low < gate.value < gate.high < 0.55  # type: ignore[operator]
    for sign in (1, -1):
        assert null_logits_gate(rng.normal(0.5 * sign, 1, 2000), control).status is Status.red
    assert null_logits_gate(control[:50], rng.normal(size=50)).status is Status.undecided
    assert null_logits_gate(control[:19], rng.normal(size=19)).reason == "19 galaxies, 20 are the least to ask"
    assert null_logits_gate(np.full(3, np.nan), control[:3]).status is Status.not_measured


def test_a_path_that_moves_one_logit_or_refuses_one_row_is_red() -> None:
    scores = np.linspace(-20, 20, 50).astype(np.float32)
    assert path_gate(PREDICT, scores, scores + np.float32(1e-4), 0.01).status is Status.ok
    for wrong, words in ((0.5, "1 of 50 rows have another logit"), (np.nan, "1 of 50 rows have no logit")):
        other = scores.copy()
        other[25] = wrong
        gate = path_gate(PREDICT, scores, other, 0.01)
        assert gate.status is Status.red
        assert words in str(gate.reason)
    assert path_gate(PREDICT, scores[:0], scores[:0], 0.01).status is Status.not_measured


def test_checks_are_red_undecided_or_green_by_kind_and_name_what_was_not_answered() -> None:
    gates = [
        *counterfactual_gates(logits(fakes=4.0)),
        Gate(name="border", kind=Kind.gate, of="x", unit="AUROC", status=Status.not_measured, reason="no probes"),
        path_gate(PREDICT, np.ones(3), np.ones(3), 0.01),
    ]
    checks = {check.name: check for check in gate_checks(gates)}
    assert {name: check.state for name, check in checks.items()} == {
        SEPARATES: "undecided",
        FOLLOWS: "a warning",
        AGREE: "green",
    }
    assert checks[FOLLOWS].count == 3
    assert "this version can't be champion" in checks[FOLLOWS].message()
    assert "fake_blob_share" in checks[FOLLOWS].next_step
    assert "border (no probes)" in checks[SEPARATES].message()
    off = path_gate(PREDICT, np.ones(3), np.zeros(3), 0.01)
    assert [check.state for check in gate_checks([*gates, off])][2] == "red"


def test_a_question_that_no_galaxy_answers_is_not_measured() -> None:
    some = logits()
    some["fake_unlensed"][:] = np.nan
    found = {gate.name: gate for gate in counterfactual_gates(some)}
    gate = found["arc_over_fake_unlensed"]
    assert (gate.status, gate.value, gate.n_galaxies) == (Status.not_measured, None, 0)
    assert "unlensed source" in str(gate.reason)
    assert set(statuses(counterfactual_gates({name: one[:0] for name, one in some.items()})).values()) == {
        "not_measured"
    }
