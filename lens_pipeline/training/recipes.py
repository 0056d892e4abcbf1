"""Which parts of a training recipe may stand together, and which need more rows than there are. Imports no torch.

A setting that would have no effect is refused like one that contradicts another: what is written down is what is done.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lens_pipeline.training.config import TrainingConfig


def refuse_uncomposable(config: "TrainingConfig") -> None:
    """Refuse settings that contradict one another or that nothing would read.

    The focal loss is defined for hard labels (Lin et al. 2017), so nothing that softens them goes with it; rows are
    weighted once, by one of the settings that weigh classes.

    Raises
    ------
    ValueError
        Naming the settings and what to set instead.
    """
    _refuse_loss(config)
    _refuse_weighting(config)
    _refuse_mixing(config)
    _refuse_schedule(config)
    _refuse_freezing(config)
    _refuse_averaging(config)


def _refuse_loss(config: "TrainingConfig") -> None:
    softening = {
        name: value
        for name in ("label_smoothing", "mixup_alpha", "cutmix_alpha")
        if (value := getattr(config, name)) != 0
    }
    if config.loss == "focal" and softening:
        raise ValueError(
            f"loss focal takes hard labels, and {_listed(softening)} softens them: set that to 0, or loss: cross_entropy"
        )
    if config.loss == "focal" and config.focal_gamma is None:
        raise ValueError("loss focal needs focal_gamma (Lin et al. 2017 found 2)")
    focal = {"focal_gamma": config.focal_gamma, "focal_alpha": config.focal_alpha}
    unread = {name: value for name, value in focal.items() if value is not None}
    if config.loss != "focal" and unread:
        raise ValueError(
            f"{_listed(unread)} with loss {config.loss.value}, which doesn't read it: set loss: focal, or null"
        )


def _refuse_weighting(config: "TrainingConfig") -> None:
    weighing = {"class_weighting": config.class_weighting.value} if config.class_weighting != "none" else {}
    weighing |= {"focal_alpha": str(config.focal_alpha)} if config.focal_alpha is not None else {}
    weighing |= {"order_weights": "of classes or strata"} if config.order_weights else {}
    if len(weighing) > 1:
        raise ValueError(f"{_listed(weighing)} weigh the same rows more than once: choose one of them")
    if config.stratum_weighting == "none":
        return
    if config.order_weights:
        raise ValueError("stratum_weighting and order_weights weigh the same rows twice: choose one of them")
    mixing = {name: value for name in ("mixup_alpha", "cutmix_alpha") if (value := getattr(config, name))}
    if mixing:
        raise ValueError(
            f"stratum_weighting with {_listed(mixing)}: a mixed row belongs to two strata and has no one weight. "
            "Set that to 0, or stratum_weighting: none"
        )


def _refuse_mixing(config: "TrainingConfig") -> None:
    mixing = {name: value for name in ("mixup_alpha", "cutmix_alpha") if (value := getattr(config, name))}
    if mixing and config.least_rows_at_once < 2:
        micro = f", micro_batch_size {config.micro_batch_size}" if config.micro_batch_size else ""
        raise ValueError(
            f"{_listed(mixing)} with batch_size {config.batch_size}, world_size {config.world_size}{micro}: rows are mixed "
            "within what a rank takes at once, which may be one row, and that would be mixed with itself. Raise batch_size or "
            "micro_batch_size"
        )


def _refuse_schedule(config: "TrainingConfig") -> None:
    plateau = {"plateau_factor": config.plateau_factor, "plateau_patience": config.plateau_patience}
    given = {name: value for name, value in plateau.items() if value is not None}
    if config.schedule == "plateau":
        absent = sorted(set(plateau) - set(given))
        if absent:
            raise ValueError(f"schedule plateau needs {' and '.join(absent)}")
        assert config.plateau_patience is not None
        if config.plateau_patience > config.patience - 2:
            raise ValueError(
                f"plateau_patience {config.plateau_patience} with patience {config.patience}: training would stop before a "
                "lower learning rate could show; plateau_patience must be at most patience - 2"
            )
        if config.plateau_patience > config.epochs - 2:
            raise ValueError(
                f"plateau_patience {config.plateau_patience} of {config.epochs} epochs: the learning rate would never fall; it "
                "must be at most epochs - 2"
            )
    elif given:
        raise ValueError(
            f"{_listed(given)} with schedule {config.schedule.value}, which doesn't read it: set schedule: plateau, or null"
        )
    if config.schedule == "one_cycle" and not 0 < config.warmup_epochs < config.epochs:
        raise ValueError(
            f"schedule one_cycle rises for warmup_epochs and then falls: {config.warmup_epochs:g} of {config.epochs} epochs "
            "leave nothing for one of the two"
        )


def _refuse_freezing(config: "TrainingConfig") -> None:
    if config.thaw_every_epochs and not config.frozen_epochs:
        raise ValueError("thaw_every_epochs says how stages thaw that were frozen, and frozen_epochs is 0")
    if config.frozen_epochs >= config.epochs:
        raise ValueError(
            f"frozen_epochs {config.frozen_epochs} of {config.epochs} epochs: nothing but the head would ever be trained"
        )
    if config.frozen_epochs > config.patience:
        raise ValueError(
            f"frozen_epochs {config.frozen_epochs} with patience {config.patience}: training could stop before anything but "
            "the head was trained; patience must be at least frozen_epochs"
        )


def _refuse_averaging(config: "TrainingConfig") -> None:
    if config.swa_epochs and config.ema_decay:
        raise ValueError(
            f"swa_epochs {config.swa_epochs} and ema_decay {config.ema_decay:g} are two averages of the weights, and one can "
            "be published: set one of them to 0"
        )
    if config.swa_epochs == 1 or config.swa_epochs > config.epochs:
        raise ValueError(
            f"swa_epochs {config.swa_epochs} of {config.epochs} epochs: from 2 to all of them can be averaged, 0 is none"
        )


def _listed(settings: dict[str, object] | dict[str, float] | dict[str, str]) -> str:
    return " and ".join(f"{name} {value}" for name, value in settings.items())
