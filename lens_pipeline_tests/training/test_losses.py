from typing import Any

import pytest
import torch
from torch.nn import functional

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.choices import LossName
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.losses import RowLoss, build_loss
from lens_pipeline_tests.training.test_weights import STRATA

LOGITS, LABELS = torch.randn(40, 1), torch.randint(0, 2, (40,))
PLAIN = RowLoss((1.0, 1.0))


def _focal(gamma: float, classes: int = 2, alpha: float | None = None) -> RowLoss:
    return RowLoss((1.0,) * classes, name=LossName.focal, gamma=gamma, alpha=alpha)


def test_two_classes_have_the_binary_cross_entropy_of_smoothed_labels() -> None:
    p = torch.sigmoid(LOGITS[:, 0].double())
    target = LABELS.double() * 0.8 + 0.1
    wanted = -(target * p.log() + (1 - target) * (1 - p).log())
    assert torch.allclose(RowLoss((1.0, 1.0), 0.2)(LOGITS, LABELS).double(), wanted, rtol=1e-5)


def test_more_classes_have_the_cross_entropy_of_smoothed_labels() -> None:
    logits, labels = torch.randn(30, 3), torch.randint(0, 3, (30,))
    target = functional.one_hot(labels, 3) * 0.7 + 0.1
    wanted = -(target * logits.log_softmax(dim=1)).sum(dim=1)
    assert torch.allclose(RowLoss((1.0, 1.0, 1.0), 0.3)(logits, labels), wanted, rtol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.7])
def test_the_focal_loss_of_two_classes_is_the_one_of_lin_and_others(alpha: float | None) -> None:
    p = torch.sigmoid(LOGITS[:, 0].double())
    p_t = torch.where(LABELS == 1, p, 1 - p)
    alpha_t = 1.0 if alpha is None else torch.where(LABELS == 1, alpha, 1 - alpha)
    wanted = -alpha_t * (1 - p_t) ** 2 * p_t.log()
    assert torch.allclose(_focal(2.0, alpha=alpha)(LOGITS, LABELS).double(), wanted, rtol=1e-4)


def test_the_focal_loss_of_more_classes_passes_over_rows_whose_own_class_is_likely() -> None:
    logits, labels = torch.randn(30, 3), torch.randint(0, 3, (30,))
    p_t = logits.double().softmax(dim=1).gather(1, labels[:, None])[:, 0]
    wanted = -((1 - p_t) ** 1.5) * p_t.log()
    assert torch.allclose(_focal(1.5, 3)(logits, labels).double(), wanted, rtol=1e-4)


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_focal_loss_with_gamma_zero_is_the_cross_entropy(outputs: int) -> None:
    logits, labels = torch.randn(30, outputs), torch.randint(0, 2, (30,))
    classes = max(outputs, 2)
    wanted = RowLoss((1.0,) * classes)(logits, labels)
    assert torch.allclose(_focal(0.0, classes)(logits, labels), wanted, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_focal_loss_and_its_gradient_are_finite_for_logits_that_overflow_a_sigmoid(outputs: int) -> None:
    logits = torch.full((4, outputs), 200.0)
    logits[::2] *= -1
    logits[:, 0] *= -1
    logits.requires_grad_(True)
    loss = _focal(2.0)(logits, torch.tensor([0, 0, 1, 1]))
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_soft_labels_that_are_hard_give_the_loss_of_hard_ones_with_smoothing_and_weights() -> None:
    for outputs, classes in ((1, 2), (3, 3)):
        logits, labels = torch.randn(30, outputs), torch.randint(0, classes, (30,))
        loss = RowLoss((1.0, 2.0, 3.0)[:classes], 0.2)
        soft = functional.one_hot(labels, classes).float()
        assert torch.allclose(loss(logits, soft), loss(logits, labels), rtol=1e-5)


def test_the_loss_of_a_mixed_label_is_the_mixture_of_the_losses() -> None:
    ones, zeros = torch.ones(40, dtype=torch.int64), torch.zeros(40, dtype=torch.int64)
    mixed = torch.tensor([0.7, 0.3]).expand(40, 2)
    assert torch.allclose(PLAIN(LOGITS, mixed), 0.7 * PLAIN(LOGITS, zeros) + 0.3 * PLAIN(LOGITS, ones), rtol=1e-5)


def test_the_focal_loss_takes_no_soft_label() -> None:
    assert PLAIN.accepts_soft
    assert not _focal(2.0).accepts_soft
    with pytest.raises(TrainingError, match="loss focal takes hard labels"):
        _focal(2.0)(LOGITS, torch.full((40, 2), 0.5))


@pytest.mark.parametrize(
    "change",
    [
        {"label_smoothing": 0.1},
        {"class_weighting": "balanced"},
        {"loss": "focal", "focal_gamma": 2.0},
        {"loss": "focal", "focal_gamma": 0.0, "focal_alpha": 0.75},
    ],
    ids=lambda change: "-".join(change),
)
def test_every_setting_of_the_loss_acts(change: dict[str, Any]) -> None:
    losses = [build_loss(TrainingConfig.model_validate(settings), (30, 10)) for settings in ({}, change)]
    assert not torch.allclose(losses[0](LOGITS, LABELS).sum(), losses[1](LOGITS, LABELS).sum())


def test_the_weight_of_a_rows_stratum_multiplies_its_loss() -> None:
    weights = torch.linspace(0.5, 2, 40)
    assert torch.equal(PLAIN(LOGITS, LABELS, weights), PLAIN(LOGITS, LABELS) * weights)


@pytest.mark.parametrize(
    "settings",
    [
        {"class_weighting": "balanced", "label_smoothing": 0.1, "stratum_weighting": "balanced"},
        {"loss": "focal", "focal_gamma": 2.0, "focal_alpha": 0.6},
    ],
    ids=["weighted", "focal"],
)
def test_what_is_logged_is_what_is_used(settings: dict[str, Any]) -> None:
    used = build_loss(TrainingConfig.model_validate(settings), (30, 10), STRATA)
    logged = used.describe()
    again = RowLoss.from_description(logged)
    assert again == used
    assert torch.equal(again(LOGITS, LABELS), used(LOGITS, LABELS))
    with pytest.raises(TrainingError, match="was changed after it was made"):
        RowLoss.from_description({**logged, "class_weights": [1.0, 3.0]})


def test_the_log_says_how_much_of_the_whole_weight_each_class_has() -> None:
    shares = {
        name: build_loss(TrainingConfig.model_validate(settings), (90, 10)).describe()["class_shares"]
        for name, settings in {
            "plain": {},
            "balanced": {"class_weighting": "balanced"},
            "focal": {"loss": "focal", "focal_gamma": 2, "focal_alpha": 0.9},
        }.items()
    }
    assert shares["plain"] == pytest.approx([0.9, 0.1])
    assert shares["balanced"] == pytest.approx([0.5, 0.5])
    assert shares["focal"] == pytest.approx([0.5, 0.5])


def test_the_loss_is_in_float32_even_when_the_logits_are_not() -> None:
    for loss in (PLAIN, _focal(2.0)):
        assert loss(LOGITS.bfloat16(), LABELS).dtype == torch.float32
