"""Checks on how a training went, from its epochs: did it learn, settle, hold, and was the machine used.

They are advisory: the version holds the best epoch's weights, chosen on val_select, and a person decides what a curve means; a
trial run of one epoch has to come through. One blocks: a learning rate that isn't what the settings give, because then the
record of the run isn't true.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.training.choices import ClassWeighting, LossName, ScheduleName, StratumWeighting
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.history import Event, History
from lens_pipeline.training.schedule import Schedule

LEARNED, CONVERGED, DIVERGED = "training_learned", "training_converged", "training_did_not_diverge"
OVERFITTED, FINITE, CLIPPED = "training_did_not_overfit", "gradients_are_finite", "gradients_are_rarely_clipped"
RATE, RANKS, DATA = "learning_rate_follows_schedule", "ranks_keep_step", "data_keep_up"
ADVISORY = (LEARNED, CONVERGED, DIVERGED, OVERFITTED, FINITE, CLIPPED, RANKS, DATA)
BLOCKING = (RATE,)

SIGMAS = 3.0
RISE = 1.5
SKIPPED_SHARE = 0.01
CLIPPED_SHARE = 0.5
SLOWEST_RANK = 1.25
DATA_WAIT = 0.1
_RATE_TOLERANCE = 1e-9
_AGAIN = "dagster asset materialize --select 'lens_classifier*' -m lens_pipeline.definitions -c PRESET"


def training_checks(
    epochs: Sequence[Event],
    history: History,
    config: TrainingConfig,
    *,
    constant_loss: float | None,
    ended: str | None,
    gain_error: Callable[[int, int], float | None] = lambda earlier, later: None,
) -> list[Check]:
    """All checks of a run's epochs.

    Parameters
    ----------
    epochs : sequence of dict
        Finished epochs, ascending: rows of HISTORY, or ``epoch`` events of a run that goes on.
    history : History
        The run's own account, with its wall times.
    constant_loss : float or None
        Negative log-likelihood of val_select for who knows the shares of the classes and nothing else: of its rows, or of the
        means of its classes where the settings weigh classes (`classes_are_weighed`).
    ended : str or None
        Why the run is over; None while it goes on.
    gain_error : callable
        Standard error of the difference between the losses after two epochs; None where it isn't known.
    """
    return [
        training_learned(epochs, config, constant_loss),
        training_converged(epochs, ended, gain_error),
        training_did_not_diverge(epochs),
        training_did_not_overfit(epochs, config),
        gradients_are_finite(epochs, history.steps_per_epoch),
        gradients_are_rarely_clipped(epochs, config),
        learning_rate_follows_schedule(epochs, history, config),
        ranks_keep_step(history.epochs),
        data_keep_up(history.epochs),
    ]


def classes_are_weighed(config: TrainingConfig) -> bool:
    """Whether the settings have a model learn other shares of the classes than the rows have.

    Its loss over rows says then how far those shares are apart; what it learned shows in the loss over the means of classes.
    """
    return (
        config.class_weighting is not ClassWeighting.none or config.focal_alpha is not None or config.order.is_weighted
    )


def training_learned(epochs: Sequence[Event], config: TrainingConfig, constant_loss: float | None) -> Check:
    """Check that the best epoch knows more of val_select than how common each class is."""
    best, weighed = _best(epochs), classes_are_weighed(config)
    name = "val_balanced_loss" if weighed else "val_loss"
    if best is None or constant_loss is None or best.get(name) is None:
        return _not_judged(
            LEARNED,
            "no epoch is finished"
            if best is None
            else "the shares of the classes aren't known"
            if constant_loss is None
            else f"{name} was not recorded",
        )
    loss, error = best[name], best.get(f"{name}_se") or 0.0
    figures = {f"best_{name}": loss, "constant_loss": constant_loss, "best_epoch": best["epoch"]}
    words = (
        f"{name} on val_select is {loss:.4f} at its best (epoch {best['epoch']}); "
        f"{'knowing nothing but that classes weigh the same' if weighed else 'knowing the shares of the classes alone'} gives "
        f"{constant_loss:.4f}"
    )
    if loss + error >= constant_loss:
        return red(
            LEARNED,
            words,
            wrong=[f"epoch {best['epoch']}"],
            why="the model tells the classes apart no better than chance, or its logits are far off in scale: too few epochs, a "
            "learning rate that is too high or too low, or labels that don't belong to the stamps",
            next_step=f"look at training_curves; raise epochs or change learning_rate by a factor of 3, then {_AGAIN}",
            blocking=False,
            **figures,
        )
    return green(LEARNED, words, blocking=False, **figures)


def training_converged(
    epochs: Sequence[Event],
    ended: str | None,
    gain_error: Callable[[int, int], float | None] = lambda earlier, later: None,
) -> Check:
    """Check that the run did not run out of epochs while its loss on val_select still fell by more than its noise.

    The last epoch is held against the lowest loss of all before it: with a high learning rate the loss goes up and down from
    epoch to epoch by more than its standard error, and coming down again isn't learning. The noise is that of the difference,
    on the same rows; where it isn't known, that of the last loss alone, which is larger.
    """
    if ended is None or len(epochs) < 2:
        return _not_judged(CONVERGED, "the run goes on" if ended is None else "one epoch has no trend")
    last, before = epochs[-1], min(epochs[:-1], key=lambda epoch: float(epoch["val_loss"]))
    lowest = float(before["val_loss"])
    gain, error = lowest - last["val_loss"], gain_error(before["epoch"], last["epoch"])
    whose = "its standard error"
    if error is None:
        error, whose = last.get("val_loss_se"), "the standard error of the loss"
    figures = {"last_gain": gain, "standard_error": error, "epochs": len(epochs)}
    if error is not None and gain > error:
        return red(
            CONVERGED,
            f"the last of {len(epochs)} epochs still lowered the loss on val_select by {gain:.4f}, from {lowest:.4f}, the lowest "
            f"before, which is more than {whose} {error:.4f}",
            wrong=[f"epoch {last['epoch']}"],
            why=f"training ended because {ended}, not because it had nothing left to learn",
            next_step=f"raise epochs in the section of lens_classifier, then {_AGAIN}",
            blocking=False,
            **figures,
        )
    return green(
        CONVERGED,
        f"the last of {len(epochs)} epochs has a loss on val_select {-gain:+.4f} from the lowest before"
        + (f" ({whose}: {error:.4f})" if error is not None else " (its standard error was not recorded)"),
        blocking=False,
        **figures,
    )


def training_did_not_diverge(epochs: Sequence[Event]) -> Check:
    """Check that the training loss did not end far above where it had been."""
    if len(epochs) < 2:
        return _not_judged(DIVERGED, "fewer than two epochs have no trend")
    lowest, last = min(epochs[:-1], key=lambda epoch: float(epoch["train_loss"])), epochs[-1]
    figures = {"lowest_train_loss": lowest["train_loss"], "last_train_loss": last["train_loss"]}
    if last["train_loss"] > RISE * lowest["train_loss"] and last["train_loss"] > lowest["train_loss"] + _noise(lowest):
        return red(
            DIVERGED,
            f"the training loss ended at {last['train_loss']:.4f}, {RISE:g} times or more above the {lowest['train_loss']:.4f} "
            f"of epoch {lowest['epoch']}",
            wrong=[f"epoch {epoch['epoch']}" for epoch in epochs if epoch["epoch"] > lowest["epoch"]],
            why="steps became too large for the loss's curvature; the version holds the best epoch on val_select, which came "
            "before",
            next_step=f"lower learning_rate, lengthen warmup_epochs or lower clip_norm, then {_AGAIN}",
            blocking=False,
            **figures,
        )
    return green(
        DIVERGED,
        f"the training loss ended at {last['train_loss']:.4f}; the lowest before was {lowest['train_loss']:.4f}",
        blocking=False,
        **figures,
    )


def training_did_not_overfit(epochs: Sequence[Event], config: TrainingConfig) -> Check:
    """Check that the best epoch's loss on val_select isn't far above its training loss."""
    best = _best(epochs)
    if best is None:
        return _not_judged(OVERFITTED, "no epoch is finished")
    gap = best["val_loss"] - best["train_loss"]
    rise = epochs[-1]["val_loss"] - best["val_loss"]
    figures = {"gap": gap, "rise_after_best": rise, "val_loss_se": best.get("val_loss_se")}
    if other := _why_not_comparable(config):
        return _not_judged(OVERFITTED, f"the training loss isn't the plain likelihood of the rows ({other})", **figures)
    words = (
        f"in epoch {best['epoch']}, the best, the loss is {best['train_loss']:.4f} in training and {best['val_loss']:.4f} on "
        f"val_select, {gap:+.4f}; up to the last epoch it rose by another {rise:.4f}"
    )
    if gap > SIGMAS * _noise(best) and best["train_loss"] < 0.5 * best["val_loss"]:
        return red(
            OVERFITTED,
            words,
            wrong=[f"epoch {best['epoch']}"],
            why="the model knows its training rows by heart: more parameters than these rows can fill, too long a training, or "
            "training rows that aren't like those of val_select",
            next_step=f"raise weight_decay or dropout, choose a smaller model, or add galaxies, then {_AGAIN}",
            blocking=False,
            **figures,
        )
    return green(OVERFITTED, words, blocking=False, **figures)


def gradients_are_finite(epochs: Sequence[Event], steps_per_epoch: int | None) -> Check:
    """Check that hardly a step was skipped for a gradient that wasn't finite; without float16 such a step fails the run."""
    known = [epoch["skipped_steps"] for epoch in epochs if epoch.get("skipped_steps") is not None]
    if not known or not steps_per_epoch:
        return _not_judged(FINITE, "skipped steps were not recorded")
    n, share = sum(known), sum(known) / (len(known) * steps_per_epoch)
    words = f"{n:,} of {len(known) * steps_per_epoch:,} steps were skipped because a gradient was not finite"
    if share > SKIPPED_SHARE:
        return red(
            FINITE,
            words,
            wrong=[
                f"epoch {epoch['epoch']}: {epoch['skipped_steps']}" for epoch in epochs if epoch.get("skipped_steps")
            ],
            count=n,
            why="float16 overflows at 65,504, and its scaler finds no scale that holds: single stamps with huge values, or "
            "activations that grow",
            next_step=f"set precision: bf16 (or float32), or lower learning_rate, then {_AGAIN}",
            blocking=False,
            skipped_share=share,
        )
    return green(FINITE, words, blocking=False, skipped_share=share)


def gradients_are_rarely_clipped(epochs: Sequence[Event], config: TrainingConfig) -> Check:
    """Check that clipping catches outliers and isn't what sets the length of most steps."""
    after = [epoch for epoch in epochs if epoch["epoch"] >= config.warmup_epochs]
    share = _mean(after, "clipped_share")
    if config.clip_norm is None:
        return _not_judged(CLIPPED, "clip_norm is null: nothing is clipped")
    if share is None:
        return _not_judged(CLIPPED, "clipping was not recorded" if after else "no epoch after the warmup is finished")
    norm = _mean(after, "gradient_norm")
    words = f"{share:.1%} of the steps after the warmup had a gradient norm above clip_norm {config.clip_norm:g}" + (
        f" (mean norm {norm:.3g})" if norm is not None else ""
    )
    if share > CLIPPED_SHARE:
        return red(
            CLIPPED,
            words,
            wrong=[
                f"epoch {e['epoch']}: {e['clipped_share']:.0%}" for e in after if e["clipped_share"] > CLIPPED_SHARE
            ],
            why="most steps have the length that clip_norm gives them, so that learning_rate doesn't mean what it says",
            next_step=f"raise clip_norm to a few times the mean norm, or lower learning_rate, then {_AGAIN}",
            blocking=False,
            clipped_share=share,
        )
    return green(CLIPPED, words, blocking=False, clipped_share=share)


def learning_rate_follows_schedule(epochs: Sequence[Event], history: History, config: TrainingConfig) -> Check:
    """Check every recorded learning rate against the closed form of the settings."""
    steps_per_epoch = history.steps_per_epoch
    if not steps_per_epoch:
        return _not_judged(RATE, "the run's own account is gone", blocking=True)
    monitored = [epoch.get(config.monitor.value) for epoch in epochs]
    if config.schedule is ScheduleName.plateau and (
        None in monitored or [epoch["epoch"] for epoch in epochs] != list(range(len(epochs)))
    ):
        return _not_judged(RATE, "an epoch's monitored value, which the rate follows, is missing", blocking=True)
    rate = closed_form(config, steps_per_epoch, monitored)
    told = [(epoch["epoch"], steps_per_epoch - 1, epoch["learning_rate"]) for epoch in epochs]
    told += [(step["epoch"], step["step"] - 1, step["learning_rate"]) for step in history.steps]
    wrong = [
        f"epoch {epoch}, step {step}: {found:.6g}, not {rate(epoch, step):.6g}"
        for epoch, step, found in told
        if not math.isclose(found, rate(epoch, step), rel_tol=_RATE_TOLERANCE)
    ]
    if wrong:
        return red(
            RATE,
            f"{len(wrong):,} of {len(told):,} recorded learning rates aren't what the settings give",
            wrong=wrong,
            why="the steps that were taken are not those that the settings describe, so the record of this run isn't true",
            next_step="remove the unfinished training under HOME/DATASET/lens_classifier/MODEL/.work and train again; if it "
            "stays red it is a fault of the pipeline: report it with these numbers",
            n=len(told),
        )
    return green(
        RATE, f"each of {len(told):,} recorded learning rates is what the settings give for its step", n=len(told)
    )


def ranks_keep_step(epochs: Sequence[Event]) -> Check:
    """Check that no rank lets the others wait: each step takes as long as its slowest rank."""
    share = _mean(epochs, "slowest_rank_share")
    if share is None:
        return _not_judged(RANKS, "the ranks' own step times were not recorded")
    words = f"the slowest rank took {share:.2f} times the mean step time of the ranks"
    if share > SLOWEST_RANK:
        return red(
            RANKS,
            words,
            wrong=[f"epoch {e['epoch']}: {e['slowest_rank_share']:.2f}" for e in epochs if e.get("slowest_rank_share")],
            why="every rank waits for the slowest one: a device that is throttled or shared, or too few cores for the ranks",
            next_step="compare the devices (nvidia-smi) and the machine's load (top); lower world_size if ranks share cores",
            blocking=False,
            slowest_rank_share=share,
        )
    return green(RANKS, words, blocking=False, slowest_rank_share=share)


def data_keep_up(epochs: Sequence[Event]) -> Check:
    """Check that the model hardly waits for stamps, the first epoch aside: a cold cache fills in it."""
    share = _mean(epochs[1:] or epochs, "data_wait_share")
    if share is None:
        return _not_judged(DATA, "the time spent waiting for data was not recorded")
    words = f"{share:.1%} of the time of the steps went into waiting for stamps"
    if share > DATA_WAIT:
        return red(
            DATA,
            words,
            wrong=[
                f"epoch {epoch['epoch']}: {epoch['data_wait_share']:.0%}"
                for epoch in epochs
                if epoch.get("data_wait_share")
            ],
            why="the reader is slower than the model, so that the device is paid for and idle",
            next_step="set loader_threads to 2 or more, or reader: memory (device on a GPU) if the store fits, and read "
            "docs/performance.md",
            blocking=False,
            data_wait_share=share,
        )
    return green(DATA, words, blocking=False, data_wait_share=share)


def closed_form(config: TrainingConfig, steps_per_epoch: int, monitored: Sequence[Any]) -> Callable[[int, int], float]:
    """Return the learning rate of (epoch, step) that the settings give, for monitored values of the epochs so far."""
    schedule = Schedule(config, steps_per_epoch)
    return lambda epoch, step: schedule.rate(epoch, step, monitored[:epoch])


def _best(epochs: Sequence[Event]) -> Event | None:
    """Return the epoch whose weights are the model: the last that improved the monitor."""
    return next((epoch for epoch in reversed(epochs) if epoch.get("best")), None)


def _noise(epoch: Event) -> float:
    return float(epoch.get("val_loss_se") or 0.0)


def _mean(epochs: Sequence[Event], name: str) -> float | None:
    known = [float(epoch[name]) for epoch in epochs if epoch.get(name) is not None]
    return sum(known) / len(known) if known else None


def _why_not_comparable(config: TrainingConfig) -> str | None:
    """Say what makes the training loss another figure than the plain likelihood of the rows that val_loss is; None if nothing."""
    told = {
        "loss": config.loss is not LossName.cross_entropy,
        "label_smoothing": config.label_smoothing > 0,
        "class_weighting": config.class_weighting is not ClassWeighting.none,
        "stratum_weighting": config.stratum_weighting is not StratumWeighting.none,
        "mixup_alpha": config.mixup_alpha > 0,
        "cutmix_alpha": config.cutmix_alpha > 0,
        "order": config.order.is_weighted,
    }
    settings = config.model_dump(mode="json")
    return next((f"{name} {settings[name]}" for name, other in told.items() if other), None)


def _not_judged(name: str, why: str, *, blocking: bool = False, **figures: Any) -> Check:
    return green(name, f"not judged: {why}", blocking=blocking, **figures)
