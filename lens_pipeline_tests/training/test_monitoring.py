"""Each check of a training's course turns red on what it is there for, and only on that."""

from typing import Any

import pytest

from lens_pipeline.contracts.checks import Check
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.history import History
from lens_pipeline.training.monitoring import ADVISORY, BLOCKING, CLIPPED, training_checks
from lens_pipeline_tests.training.events import CONFIG, epoch, finished, run_started, step

GOOD = [epoch(number) for number in range(4)]


def checked(epochs: list[dict[str, Any]], **changes: Any) -> dict[str, Check]:
    history = History()
    for event in (run_started(), step(0, 5), *epochs, finished()):
        history.add(event)
    settings: dict[str, Any] = {"config": CONFIG, "constant_loss": 0.69, "ended": "all epochs were trained"} | changes
    history.started = changes.pop("started", history.started)
    settings.pop("started", None)
    return {check.name: check for check in training_checks(epochs, history, **settings)}


def red_in(epochs: list[dict[str, Any]], **changes: Any) -> set[str]:
    return {name for name, check in checked(epochs, **changes).items() if not check.passed}


def changed(**changes: Any) -> list[dict[str, Any]]:
    return [{**one, **changes} for one in GOOD]


def test_a_sound_training_is_green_throughout_and_every_declared_check_is_made() -> None:
    checks = checked(GOOD)
    assert red_in(GOOD) == set()
    assert set(checks) == {*ADVISORY, *BLOCKING}
    assert {name for name, check in checks.items() if check.blocking} == set(BLOCKING)


@pytest.mark.parametrize(
    ("epochs", "check"),
    [
        (changed(val_loss=0.688, val_loss_se=0.01), "training_learned"),
        ([*GOOD[:3], epoch(3, val_loss=0.2, val_loss_se=0.01)], "training_converged"),
        ([*GOOD[:3], epoch(3, train_loss=2.0, best=False)], "training_did_not_diverge"),
        ([*GOOD[:3], epoch(3, train_loss=0.01, val_loss_se=0.01, val_loss=0.4)], "training_did_not_overfit"),
        (changed(skipped_steps=1), "gradients_are_finite"),
        (changed(clipped_share=0.8), "gradients_are_rarely_clipped"),
        ([*GOOD[:3], epoch(3, learning_rate=1e-3)], "learning_rate_follows_schedule"),
        (changed(slowest_rank_share=1.6), "ranks_keep_step"),
        (changed(data_wait_share=0.4), "data_keep_up"),
    ],
)
def test_a_fault_turns_its_own_check_red_and_no_other_and_says_what_to_type(
    epochs: list[dict[str, Any]], check: str
) -> None:
    found = {name: one for name, one in checked(epochs).items() if not one.passed}
    assert set(found) == {check}
    assert found[check].why
    assert found[check].next_step
    assert found[check].first


@pytest.mark.parametrize(
    "weighed",
    [
        {"class_weighting": "balanced"},
        {"loss": "focal", "focal_gamma": 2.0, "focal_alpha": 0.75},
        {"order": "repeated", "order_weights": {"lens": 3.0}},
    ],
)
def test_a_model_of_weighed_classes_is_not_held_against_shares_that_it_was_told_to_forget(
    weighed: dict[str, Any],
) -> None:
    # 40 controls to one injection: the shares alone give 0.11 over rows, which no model of even odds comes near.
    config = TrainingConfig.model_validate(CONFIG.model_dump() | weighed)
    learned = changed(val_loss=0.45, val_balanced_loss=0.5, val_balanced_loss_se=0.02)
    assert "training_learned" not in red_in(learned, config=config, constant_loss=0.693)
    learned_nothing = changed(val_loss=0.11, val_balanced_loss=0.69, val_balanced_loss_se=0.02)
    assert "training_learned" in red_in(learned_nothing, config=config, constant_loss=0.693)
    unknown = checked(changed(val_loss=0.45), config=config, constant_loss=0.693)["training_learned"]
    assert unknown.what == "not judged: val_balanced_loss was not recorded"


def test_a_learning_rate_of_one_step_that_the_settings_do_not_give_is_named() -> None:
    history = History()
    for event in (run_started(), step(0, 5, learning_rate=0.5), *GOOD):
        history.add(event)
    checks = training_checks(GOOD, history, CONFIG, constant_loss=0.69, ended=None)
    (found,) = [check for check in checks if not check.passed]
    assert found.name == "learning_rate_follows_schedule"
    assert "epoch 0, step 4: 0.5, not" in found.first[0]


def test_what_was_not_recorded_is_not_judged_and_says_so() -> None:
    old = [{name: one[name] for name in ("epoch", "train_loss", "val_loss", "learning_rate", "best")} for one in GOOD]
    checks = checked([{**one, "event": "epoch"} for one in old], constant_loss=None)
    assert all(check.passed for check in checks.values())
    silent = {name for name, check in checks.items() if "not judged" in check.what}
    assert silent == {
        "training_learned", "gradients_are_finite", "gradients_are_rarely_clipped", "ranks_keep_step", "data_keep_up",
    }  # fmt: skip


def test_a_training_loss_that_is_no_likelihood_is_not_compared_with_one() -> None:
    memorised = [*GOOD[:3], epoch(3, train_loss=0.01, val_loss_se=0.01, val_loss=0.4)]
    assert red_in(memorised) == {"training_did_not_overfit"}
    others: list[dict[str, Any]] = [
        {"label_smoothing": 0.1},
        {"class_weighting": "balanced"},
        {"stratum_weighting": "balanced"},
        {"loss": "focal", "focal_gamma": 2.0},
        {"mixup_alpha": 0.2},
        {"cutmix_alpha": 0.2},
        {"order": "repeated", "order_weights": {"CONTROL": 2.0}},
    ]
    for other in others:
        config = TrainingConfig.model_validate({**CONFIG.model_dump(), **other})
        check = checked(memorised, config=config)["training_did_not_overfit"]
        assert check.passed
        assert "not judged" in check.what


def test_the_first_epoch_may_wait_for_a_cold_cache() -> None:
    assert red_in([epoch(0, data_wait_share=0.9), *GOOD[1:]]) == set()


def test_clipping_in_the_warmup_is_what_clipping_is_for() -> None:
    assert red_in([epoch(0, clipped_share=1.0)]) == set()
    assert "not judged" in checked([epoch(0)], config=CONFIG.model_copy(update={"clip_norm": None}))[CLIPPED].what


def test_a_run_that_goes_on_is_not_blamed_for_improving() -> None:
    assert red_in([*GOOD[:3], epoch(3, val_loss=0.2, val_loss_se=0.01)], ended=None) == set()


def test_a_loss_that_comes_down_again_after_a_bad_epoch_is_no_sign_of_too_few_epochs() -> None:
    bounced = [*GOOD[:2], epoch(2, val_loss=0.6), epoch(3, val_loss=GOOD[1]["val_loss"] - 0.001, val_loss_se=0.01)]
    assert checked(bounced)["training_converged"].passed


def test_a_gain_is_held_against_the_error_of_the_difference_on_the_same_rows_where_it_is_known() -> None:
    asked: list[tuple[int, int]] = []

    def gain_error(earlier: int, later: int) -> float:
        asked.append((earlier, later))
        return 0.002

    falling = [*GOOD[:3], epoch(3, val_loss=GOOD[2]["val_loss"] - 0.02, val_loss_se=0.05)]
    assert checked(falling)["training_converged"].passed
    found = checked(falling, gain_error=gain_error)["training_converged"]
    assert not found.passed
    assert "by 0.0200, from 0.4000, the lowest before, which is more than its standard error 0.0020" in found.what
    assert asked == [(2, 3)]


def test_a_run_of_one_epoch_is_judged_on_what_one_epoch_can_show() -> None:
    checks = checked(GOOD[:1])
    assert all(check.passed for check in checks.values())
    assert "not judged" in checks["training_converged"].what


def test_a_rate_that_follows_the_monitor_is_replayed_from_the_monitored_values() -> None:
    settings = {"schedule": "plateau", "plateau_factor": 0.5, "plateau_patience": 0, "learning_rate": 0.01}
    config = TrainingConfig.model_validate({"epochs": 4, "warmup_epochs": 0, **settings})
    epochs = [
        epoch(number, val_loss=loss, learning_rate=rate)
        for number, (loss, rate) in enumerate([(0.5, 0.01), (0.6, 0.01), (0.4, 0.005), (0.3, 0.005)])
    ]
    history = History()
    for event in (run_started(), *epochs):
        history.add(event)

    def follows(told: list[dict[str, Any]]) -> bool:
        checks = training_checks(told, history, config, constant_loss=None, ended=None)
        return next(check.passed for check in checks if check.name == "learning_rate_follows_schedule")

    assert follows(epochs)
    assert not follows([*epochs[:3], {**epochs[3], "learning_rate": 0.01}])
    assert follows(epochs[1:])
