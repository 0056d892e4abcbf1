import pytest
import torch

from lens_pipeline.training.config import ClassWeighting
from lens_pipeline.training.losses import RowLoss, class_weights

LOGITS, LABELS = torch.randn(40, 1), torch.randint(0, 2, (40,))


def test_two_classes_have_the_binary_cross_entropy_of_smoothed_labels() -> None:
    p = torch.sigmoid(LOGITS[:, 0].double())
    target = LABELS.double() * 0.8 + 0.1
    wanted = -(target * p.log() + (1 - target) * (1 - p).log())
    assert torch.allclose(RowLoss((1.0, 1.0), 0.2)(LOGITS, LABELS).double(), wanted, rtol=1e-5)


def test_more_classes_have_the_cross_entropy_of_smoothed_labels() -> None:
    logits, labels = torch.randn(30, 3), torch.randint(0, 3, (30,))
    target = torch.nn.functional.one_hot(labels, 3) * 0.7 + 0.1
    wanted = -(target * logits.log_softmax(dim=1)).sum(dim=1)
    assert torch.allclose(RowLoss((1.0, 1.0, 1.0), 0.3)(logits, labels), wanted, rtol=1e-5)


@pytest.mark.parametrize("change", [{"smoothing": 0.1}, {"weights": (1.0, 3.0)}])
def test_every_setting_of_the_loss_acts(change: dict[str, object]) -> None:
    plain = {"weights": (1.0, 1.0), "smoothing": 0.0}
    one, other = RowLoss(**plain), RowLoss(**{**plain, **change})  # type: ignore[arg-type]
    assert not torch.allclose(one(LOGITS, LABELS).sum(), other(LOGITS, LABELS).sum())


def test_balanced_weights_give_classes_the_same_say_and_rows_a_mean_weight_of_one() -> None:
    counts = (900, 90, 10)
    weights = class_weights(counts, ClassWeighting.balanced)
    assert [weight * count for weight, count in zip(weights, counts, strict=True)] == pytest.approx([1000 / 3] * 3)
    assert class_weights(counts, ClassWeighting.none) == (1.0, 1.0, 1.0)


def test_the_loss_is_in_float32_even_when_the_logits_are_not() -> None:
    assert RowLoss((1.0, 1.0), 0.0)(LOGITS.bfloat16(), LABELS).dtype == torch.float32
