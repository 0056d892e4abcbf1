"""Events as rank 0 writes them, for whoever reads histories."""

from typing import Any

from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.monitoring import closed_form

STEPS = 10
CONFIG = TrainingConfig(epochs=4, batch_size=64, warmup_epochs=1.0)
_RATE = closed_form(CONFIG, STEPS, [])


def run_started(epoch: int = 0, step: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "event": "run_started", "time": 1000.0, "attempt": "0001", "resumed_from": None, "epoch": epoch, "step": step,
        "steps_per_epoch": STEPS, "epochs": CONFIG.epochs, "ranks": 2, "train_rows": 640, "validation_rows": 128,
        "parameters": 1000, "damaged_checkpoints": [], "reader": "mapped", "reader_why": "mapped: it fits",
    } | changes  # fmt: skip


def step(epoch: int, step: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "step", "time": 1000.0 + STEPS * epoch + step, "attempt": "0001", "epoch": epoch, "step": step,
        "steps_per_epoch": STEPS, "epochs": CONFIG.epochs, "loss": 0.5, "gradient_norm": 1.0,
        "learning_rate": _RATE(epoch, step - 1), "stamps_per_second": 900.0, "data_wait_share": 0.01, "mfu": None,
        "memory_mb": 300.0, "scale": None,
    } | changes  # fmt: skip


def epoch(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "event": "epoch", "time": 1000.0 + STEPS * (number + 1), "attempt": "0001", "epoch": number,
        "train_loss": 0.5 - 0.05 * number, "val_loss": 0.5 - 0.05 * number, "val_loss_se": 0.06, "val_auroc": 0.9,
        "val_partial_auc": 0.3, "learning_rate": _RATE(number, STEPS - 1), "seconds": 10.0, "gradient_norm": 1.0,
        "clipped_share": 0.0, "train_rows": 640, "validation_rows": 128, "best": True, "distinct_logit_share": 1.0,
        "extreme_logit_share": 0.0, "skipped_steps": 0, "stamps_per_second": 900.0, "data_wait_share": 0.01, "mfu": None,
        "memory_mb": 300.0, "slowest_rank_share": 1.02,
    } | changes  # fmt: skip


def finished() -> dict[str, Any]:
    return {"event": "finished", "time": 1041.0, "attempt": "0001", "why": "all epochs were trained", "best_epoch": 3}
