from pathlib import Path

import numpy as np
import pytest

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.rows import Rows
from lens_pipeline.training.stopping import Stopping, refuse_unresolvable_monitor
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import prepared


def _last_epoch(values: list[float], standard_error: float = 0.0, **settings: object) -> tuple[int, int | None]:
    state = Stopping(**{"larger_is_better": False, "patience": 3, "min_delta": 0.0, **settings})  # type: ignore[arg-type]
    for epoch, value in enumerate(values):
        state = state.after(epoch, value, standard_error)
        if state.stop:
            break
    return epoch, state.best_epoch


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_last_epoch_trained_is_the_best_one_plus_patience(patience: int) -> None:
    values = [3.0, 2.0, 1.0, *[1.5] * 20]
    assert _last_epoch(values, patience=patience) == (2 + patience, 2)


def test_a_late_improvement_starts_the_count_anew() -> None:
    assert _last_epoch([3, 4, 4, 2, 4, 4, 4, 4]) == (6, 3)


def test_a_run_that_keeps_improving_never_stops() -> None:
    assert _last_epoch([1 / (epoch + 1) for epoch in range(50)]) == (49, 49)


def test_a_change_within_min_delta_standard_errors_is_no_improvement_for_stopping_nor_for_the_best_checkpoint() -> None:
    values = [1.0, 0.95, 0.9, 0.89]
    assert _last_epoch(values, standard_error=0.1, min_delta=2.0) == (3, 0)
    assert _last_epoch(values, standard_error=0.01, min_delta=2.0) == (3, 2)
    assert _last_epoch(values, standard_error=0.1) == (3, 3)


def test_an_equal_value_is_no_improvement() -> None:
    assert _last_epoch([1.0] * 9) == (3, 0)


def test_an_auroc_improves_upwards() -> None:
    assert _last_epoch([0.5, 0.9, 0.8, 0.8, 0.8, 0.8], larger_is_better=True) == (4, 1)


def test_noise_of_the_validation_rows_seldom_picks_an_epoch_that_is_truly_worse_by_a_standard_error() -> None:
    random, n_rows, n_epochs, wrong = np.random.default_rng(0), 400, 25, 0
    for _ in range(400):
        # A learning curve with its best epoch in the middle, on the same rows each time: some are hard in every epoch.
        true = 0.3 + 0.002 * (np.arange(n_epochs) - random.integers(5, 20)) ** 2 / 10
        hard = random.gamma(0.5, 1, n_rows) - 0.5
        losses = true[:, None] + hard + 0.3 * random.normal(size=(n_epochs, n_rows))
        errors = losses.std(axis=1, ddof=1) / np.sqrt(n_rows)
        state = Stopping(larger_is_better=False, patience=n_epochs, min_delta=0.0)
        for epoch in range(n_epochs):
            state = state.after(epoch, float(losses[epoch].mean()), float(errors[epoch]))
        assert state.best_epoch is not None
        wrong += true[state.best_epoch] > true.min() + errors.mean()
    assert wrong <= 0.05 * 400


def _rows_of_galaxies(survey: Survey, n: int, repeats: int = 1) -> Rows:
    """Validate on the lens and the control of the first galaxies, each row so often."""
    index = survey[0].read_table(None, ["galaxy_id", "label"])
    galaxy = index["galaxy_id"].to_numpy(zero_copy_only=False)
    chosen = np.flatnonzero(np.isin(galaxy, np.unique(galaxy)[:n]))
    return Rows(np.arange(0), np.repeat(chosen, repeats), index["label"].to_numpy())


@pytest.mark.parametrize("monitor", ["val_auroc", "val_partial_auc"])
def test_a_monitor_that_the_rows_cannot_resolve_is_refused_before_the_run_with_what_would_be_needed(
    survey: Survey, run_path: Path, monitor: str
) -> None:
    needed = {"val_auroc": "100", "val_partial_auc": "10,000"}[monitor]
    with pytest.raises(
        TrainingError, match=rf"29 lenses of 29 galaxies and 29 others of 29.*{needed} without are needed"
    ):
        prepared(run_path, survey, monitor=monitor)
    assert not run_path.exists()


def test_the_likelihood_is_the_default_monitor_and_always_allowed(survey: Survey) -> None:
    assert TrainingConfig().monitor == "val_loss"
    refuse_unresolvable_monitor(TrainingConfig(), _rows_of_galaxies(survey, 1), survey[0])


def test_a_monitor_rests_on_galaxies_and_not_on_rows(survey: Survey) -> None:
    auroc = TrainingConfig.model_validate({"monitor": "val_auroc"})
    refuse_unresolvable_monitor(auroc, _rows_of_galaxies(survey, 100), survey[0])
    with pytest.raises(TrainingError, match="495 lenses of 99 galaxies and 495 others of 99"):
        refuse_unresolvable_monitor(auroc, _rows_of_galaxies(survey, 99, repeats=5), survey[0])


def test_a_wider_partial_area_needs_fewer_negatives(survey: Survey) -> None:
    for max_fpr, enough in ((1.0, True), (0.9, False)):
        config = TrainingConfig.model_validate({"monitor": "val_partial_auc", "partial_auc_max_fpr": max_fpr})
        if enough:
            refuse_unresolvable_monitor(config, _rows_of_galaxies(survey, 110), survey[0])
        else:
            with pytest.raises(TrainingError, match="100 galaxies with a lens and 112 without are needed"):
                refuse_unresolvable_monitor(config, _rows_of_galaxies(survey, 110), survey[0])
