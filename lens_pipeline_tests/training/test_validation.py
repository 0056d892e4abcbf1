from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_pipeline.batches.preprocessing import fit_preprocessing
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.config import Monitor, TrainingConfig
from lens_pipeline.training.loop import Trainer
from lens_pipeline.training.models import build_model, spec_for
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.validation import Validation, validate
from lens_pipeline.training.world import World
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import prepared


@dataclass(frozen=True)
class _Deaf(World):
    """A rank that hears nothing of the others."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        return [list(values), [value + 1 for value in values]]


DEAF = _Deaf(0, 2, torch.device("cpu"))


def _validate(survey: Survey, world: World) -> Validation:
    store = StampStore.open(survey[0])
    rows = np.arange(0, 100, 2)
    return validate(
        build_model(spec_for(TrainingConfig.model_validate({}), store.contract)),
        store,
        rows,
        np.arange(50) % 2,
        fit_preprocessing(store, rows, name="asinh_v1", softening=1.0),
        world,
        outputs=1,
        batch_size=16,
        threads=1,
    )


def test_rows_that_no_rank_evaluated_are_noticed_and_named(survey: Survey) -> None:
    with pytest.raises(TrainingError, match=r"18 of 50 validation rows .* first logical numbers: 32, 34, 36"):
        _validate(survey, DEAF)


def test_all_rows_are_evaluated_by_a_world_of_one(survey: Survey) -> None:
    found = _validate(survey, replace(DEAF, size=1))
    assert found.logits.shape == (50, 1)
    assert np.isfinite(found.loss)


@pytest.mark.parametrize(
    ("monitor", "validation"),
    [
        (Monitor.val_auroc, Validation(np.zeros((1, 1), np.float32), 0.5, None)),
        (Monitor.val_loss, Validation(np.zeros((1, 1), np.float32), float("nan"), 0.5)),
    ],
)
def test_a_monitor_that_is_undefined_stops_the_run_instead_of_counting_as_zero(
    monitor: Monitor, validation: Validation
) -> None:
    with pytest.raises(TrainingError, match=f"{monitor.value} on val_select is"):
        validation.monitored(monitor)


def test_the_monitor_is_one_metric_for_stopping_and_for_the_best_checkpoint() -> None:
    validation = Validation(np.zeros((1, 1), np.float32), 0.3, 0.8)
    assert (validation.monitored(Monitor.val_loss), Monitor.val_loss.larger_is_better) == (0.3, False)
    assert (validation.monitored(Monitor.val_auroc), Monitor.val_auroc.larger_is_better) == (0.8, True)


def test_ranks_that_found_different_checkpoints_do_not_start(survey: Survey, run_path: Path) -> None:
    trainer = Trainer.__new__(Trainer)
    trainer.world, trainer.folder = DEAF, prepared(run_path, survey)
    with pytest.raises(TrainingError, match="different newest checkpoints"):
        trainer._agree_on(None)


def test_inputs_of_another_version_than_the_run_was_made_for_are_refused(survey: Survey, run_path: Path) -> None:
    spec = RunSpec.read(prepared(run_path, survey).specification)
    with pytest.raises(TrainingError, match="this run is about 0000"):
        replace(spec, store_version="0000").open_inputs()
