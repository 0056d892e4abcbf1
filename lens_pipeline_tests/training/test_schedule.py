import math

import pytest

from lens_pipeline.training.schedule import learning_rate

PLAN = {"total_steps": 100, "warmup_steps": 10, "peak": 1e-3, "lowest": 1e-6}


def test_it_warms_up_linearly_and_then_follows_half_a_cosine() -> None:
    for step in range(100):
        if step < 10:
            wanted = 1e-3 * (step + 1) / 10
        else:
            wanted = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (step - 10) / 89))
        assert learning_rate(step, **PLAN) == pytest.approx(wanted, rel=1e-12)


def test_the_peak_is_reached_and_the_last_step_has_the_lowest_rate() -> None:
    rates = [learning_rate(step, **PLAN) for step in range(100)]
    assert max(rates) == rates[9] == rates[10] == 1e-3
    assert rates[-1] == pytest.approx(1e-6)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, **{**PLAN, "warmup_steps": 0}) == 1e-3


def test_a_run_that_is_all_warmup_has_a_rate_at_every_step() -> None:
    rates = [learning_rate(step, total_steps=10, warmup_steps=10, peak=1.0, lowest=0.0) for step in range(10)]
    assert rates[-1] == 1.0
    assert min(rates) > 0
