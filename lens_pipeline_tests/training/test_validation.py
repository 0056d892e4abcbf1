from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_pipeline.batches.loader import Loader
from lens_pipeline.batches.opening import open_rows
from lens_pipeline.batches.preprocessing import fit_preprocessing
from lens_pipeline.batches.reader import Reader
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.training.choices import Monitor
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.metrics import Measured
from lens_pipeline.training.models import build_model, spec_for
from lens_pipeline.training.resuming import agree_on
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
    source, _ = open_rows(store, Reader.auto, rows=[rows], ranks=1, device=world.device)
    return validate(
        build_model(spec_for(TrainingConfig.model_validate({}), store.contract)),
        Loader(source, threads=1, pin=False),
        rows,
        np.arange(50) % 2,
        fit_preprocessing(store, rows, name="asinh_v1", softening=1.0),
        world,
        outputs=1,
        batch_size=16,
        max_fpr=0.1,
    )


def test_rows_that_no_rank_evaluated_are_noticed_and_named(survey: Survey) -> None:
    with pytest.raises(TrainingError, match=r"18 of 50 validation rows .* first logical numbers: 32, 34, 36"):
        _validate(survey, DEAF)


def test_all_rows_are_evaluated_by_a_world_of_one(survey: Survey) -> None:
    found = _validate(survey, replace(DEAF, size=1))
    assert found.logits.shape == (50, 1)
    assert np.isfinite(found.loss.value)


LOGITS, LABELS = np.linspace(-2, 2, 9)[:, None], np.array([0, 0, 1, 0, 1, 0, 1, 1, 1])
FIGURES = Validation.of(LOGITS, LABELS, max_fpr=0.5)


@pytest.mark.parametrize(
    ("monitor", "validation"),
    [
        (Monitor.val_auroc, replace(FIGURES, auroc=None)),
        (Monitor.val_partial_auc, replace(FIGURES, partial_auc=None)),
        (Monitor.val_loss, replace(FIGURES, loss=Measured(float("nan"), 0.1))),
        (Monitor.val_auroc, Validation.of(np.full((9, 1), np.nan), LABELS, max_fpr=0.5)),
    ],
)
def test_a_monitor_that_is_undefined_stops_the_run_instead_of_counting_as_zero(
    monitor: Monitor, validation: Validation
) -> None:
    with pytest.raises(TrainingError, match=f"{monitor.value} on val_select is"):
        validation.monitored(monitor)


def test_the_monitor_is_one_metric_for_stopping_and_for_the_best_checkpoint_with_its_standard_error() -> None:
    assert FIGURES.monitored(Monitor.val_loss) == (FIGURES.loss.value, FIGURES.loss_se)
    assert FIGURES.auroc is not None
    assert FIGURES.partial_auc is not None
    assert FIGURES.monitored(Monitor.val_auroc) == (FIGURES.auroc.value, FIGURES.auroc.standard_error)
    assert FIGURES.monitored(Monitor.val_partial_auc) == (FIGURES.partial_auc.value, FIGURES.partial_auc.standard_error)
    assert [monitor.larger_is_better for monitor in Monitor] == [False, False, True, True]


def test_the_history_names_every_monitor_by_the_name_of_the_setting() -> None:
    figures = FIGURES.figures()
    for monitor in Monitor:
        assert figures[monitor.value] == FIGURES.monitored(monitor)[0]
    assert (figures["distinct_logit_share"], figures["extreme_logit_share"]) == (1.0, 0.0)


def test_ranks_that_found_different_checkpoints_do_not_start(survey: Survey, run_path: Path) -> None:
    with pytest.raises(TrainingError, match="different newest checkpoints"):
        agree_on(None, prepared(run_path, survey), DEAF)


def test_inputs_of_another_version_than_the_run_was_made_for_are_refused(survey: Survey, run_path: Path) -> None:
    spec = RunSpec.read(prepared(run_path, survey).specification)
    with pytest.raises(TrainingError, match="this run is about 0000"):
        replace(spec, store_version="0000").open_inputs()
