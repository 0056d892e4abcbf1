import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from timm.scheduler import CosineLRScheduler, PlateauLRScheduler

from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.schedule import ONE_CYCLE_DIVISOR, Schedule, cosine_rate

PEAK, LOWEST, STEPS = 1e-3, 1e-6, 7
CURVE = [0.9, 0.7, 0.8, 0.75, 0.7, 0.69, 0.7, 0.7, 0.7, 0.71, 0.68, 0.68, 0.68, 0.68, 0.68, 0.68, 0.68, 0.7]


def _schedule(epochs: int = 10, **settings: Any) -> Schedule:
    config = {"learning_rate": PEAK, "min_learning_rate": LOWEST, "epochs": epochs, "warmup_epochs": 2, **settings}
    return Schedule(TrainingConfig.model_validate(config), STEPS)


def _rates(schedule: Schedule) -> list[float]:
    return [schedule.rate(epoch, step) for epoch in range(schedule.config.epochs) for step in range(STEPS)]


def _optimizer(rate: float = PEAK) -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def _rate_of(optimizer: torch.optim.Optimizer) -> float:
    return float(optimizer.param_groups[0]["lr"])


def _timm_cosine(schedule: Schedule) -> Iterator[float]:
    """timm's rates; its warmup starts from 0 one step before the first, ours with the first."""
    optimizer, warmup = _optimizer(), schedule.warmup_steps
    stepped = CosineLRScheduler(
        optimizer,
        t_initial=schedule.total_steps - 1 - warmup,
        lr_min=LOWEST,
        warmup_t=warmup,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    for step in range(schedule.total_steps):
        stepped.step_update(step + 1 if step < warmup - 1 else max(step, warmup))
        yield _rate_of(optimizer)


@pytest.mark.parametrize("warmup_epochs", [0, 0.3, 2])
def test_the_cosine_is_timms_at_every_step(warmup_epochs: float) -> None:
    schedule = _schedule(warmup_epochs=warmup_epochs)
    assert _rates(schedule) == pytest.approx(list(_timm_cosine(schedule)), rel=1e-12, abs=0)


@pytest.mark.parametrize("warmup_epochs", [0.3, 1, 2, 9])
def test_one_cycle_is_torchs_at_every_step(warmup_epochs: float) -> None:
    schedule, optimizer = _schedule(schedule="one_cycle", warmup_epochs=warmup_epochs), _optimizer()
    stepped = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PEAK,
        total_steps=schedule.total_steps,
        pct_start=schedule.warmup_steps / schedule.total_steps,
        div_factor=ONE_CYCLE_DIVISOR,
        final_div_factor=PEAK / ONE_CYCLE_DIVISOR / LOWEST,
        cycle_momentum=False,
    )
    wanted = []
    for _ in range(schedule.total_steps):
        wanted.append(_rate_of(optimizer))
        optimizer.step()
        stepped.step()
    assert _rates(schedule) == pytest.approx(wanted, rel=1e-12, abs=0)


def test_one_cycle_whose_rise_rounds_to_a_step_or_none_still_has_a_rate_at_every_step() -> None:
    for warmup_epochs in (0.01, 0.15):
        rates = _rates(_schedule(schedule="one_cycle", warmup_epochs=warmup_epochs))
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(LOWEST)


@pytest.mark.parametrize("monitor", ["val_loss", "val_auroc"])
@pytest.mark.parametrize(("factor", "plateau_patience"), [(0.5, 1), (0.1, 2), (0.03, 0)])
def test_the_plateau_is_torchs_and_timms_after_every_epoch(monitor: str, factor: float, plateau_patience: int) -> None:
    schedule = _schedule(
        epochs=20,
        schedule="plateau",
        plateau_factor=factor,
        plateau_patience=plateau_patience,
        patience=20,
        monitor=monitor,
        warmup_epochs=0,
    )
    curve = [1 - value for value in CURVE] if monitor == "val_auroc" else CURVE
    mode = "max" if monitor == "val_auroc" else "min"
    optimizer, other = _optimizer(), _optimizer()
    stepped = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=factor, patience=plateau_patience, threshold=0, min_lr=LOWEST
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        timms = PlateauLRScheduler(
            other, decay_rate=factor, patience_t=plateau_patience, threshold=0, lr_min=LOWEST, mode=mode
        )
    seen = set()
    for epoch, value in enumerate(curve):
        rates = {schedule.rate(epoch, step, curve[:epoch]) for step in range(STEPS)}
        assert rates == {_rate_of(optimizer)} == {_rate_of(other)}
        stepped.step(value)
        timms.step(epoch + 1, value)
        seen |= rates
    assert len(seen) > 2


def test_the_plateau_warms_up_and_refuses_values_that_are_not_one_an_epoch() -> None:
    schedule = _schedule(schedule="plateau", plateau_factor=0.5, plateau_patience=0, patience=5)
    assert [schedule.rate(0, step) for step in range(STEPS)] == pytest.approx(
        [PEAK * (step + 1) / 14 for step in range(STEPS)]
    )
    assert schedule.rate(2, 0, [1.0, 2.0]) == PEAK / 2
    with pytest.raises(ValueError, match="epoch 2 needs 2 monitored values, and was given 1"):
        schedule.rate(2, 0, [1.0])


@pytest.mark.parametrize("name", ["cosine", "one_cycle"])
def test_a_schedule_ends_with_the_run_and_not_with_another_number_of_epochs(name: str) -> None:
    for epochs in (3, 12):
        rates = _rates(_schedule(epochs=epochs, schedule=name))
        assert rates[-1] == pytest.approx(LOWEST)
        assert rates[-2] > LOWEST
        assert max(rates) == PEAK == rates[2 * STEPS - 1]


def test_without_warmup_the_first_step_has_the_peak() -> None:
    assert _schedule(warmup_epochs=0).rate(0, 0) == PEAK


def test_a_run_that_is_all_warmup_has_a_rate_at_every_step() -> None:
    rates = [cosine_rate(step, total_steps=10, warmup_steps=10, peak=1.0, lowest=0.0) for step in range(10)]
    assert rates[-1] == 1.0
    assert min(rates) > 0
