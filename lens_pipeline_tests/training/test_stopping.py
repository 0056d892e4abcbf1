import pytest

from lens_pipeline.training.stopping import Stopping


def _last_epoch(values: list[float], **settings: object) -> tuple[int, int | None]:
    state = Stopping(**{"larger_is_better": False, "patience": 3, "min_delta": 0.0, **settings})  # type: ignore[arg-type]
    for epoch, value in enumerate(values):
        state = state.after(epoch, value)
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


def test_a_change_within_min_delta_is_no_improvement_for_stopping_nor_for_the_best_checkpoint() -> None:
    assert _last_epoch([1.0, 0.95, 0.9, 0.89], min_delta=0.2) == (3, 0)


def test_an_equal_value_is_no_improvement() -> None:
    assert _last_epoch([1.0] * 9) == (3, 0)


def test_an_auroc_improves_upwards() -> None:
    assert _last_epoch([0.5, 0.9, 0.8, 0.8, 0.8, 0.8], larger_is_better=True) == (4, 1)
