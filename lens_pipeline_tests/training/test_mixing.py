from typing import Any

import numpy as np
import pytest
import timm.data.mixup
import torch

from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.mixing import Draw, draw, mix

PIXELS, LABELS = torch.randn(12, 3, 16, 16), torch.arange(12) % 3
HERE = {"epoch": 2, "step": 7, "rank": 1}


def _config(**settings: Any) -> TrainingConfig:
    return TrainingConfig.model_validate(settings)


def _mixed(config: TrainingConfig, n_rows: int = 12, **where: int) -> tuple[torch.Tensor, torch.Tensor]:
    return mix(PIXELS, LABELS, config, n_rows=n_rows, n_classes=3, **{**HERE, **where})


def _draws(config: TrainingConfig, n: int) -> list[Draw]:
    return [one for step in range(n) if (one := draw(config, 16, epoch=0, step=step, rank=0))]


def test_it_is_off_unless_asked_for() -> None:
    pixels, targets = _mixed(_config())
    assert pixels is PIXELS
    assert targets is LABELS


@pytest.mark.parametrize("setting", ["mixup_alpha", "cutmix_alpha"])
def test_the_same_step_is_mixed_alike_each_time_and_any_other_one_otherwise(setting: str) -> None:
    config = _config(**{setting: 1.0})
    torch.manual_seed(3)
    once = draw(config, 16, **HERE)
    torch.manual_seed(4)
    np.random.seed(4)
    assert draw(config, 16, **HERE) == once
    others = [draw(config, 16, **{**HERE, name: value + 1}) for name, value in HERE.items()]
    assert once not in [*others, draw(_config(**{setting: 1.0, "seed": 2}), 16, **HERE)]


@pytest.mark.parametrize("setting", ["mixup_alpha", "cutmix_alpha"])
@pytest.mark.parametrize("step", range(5))
def test_pixels_and_labels_are_timms_for_the_same_draws(
    monkeypatch: pytest.MonkeyPatch, setting: str, step: int
) -> None:
    config = _config(**{setting: 1.0})
    drawn = draw(config, 16, **{**HERE, "step": step})
    assert drawn is not None
    theirs = timm.data.mixup.Mixup(
        **{"mixup_alpha": 0.0, setting: 1.0}, prob=1.0, label_smoothing=0.0, num_classes=3, mode="batch"
    )
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (drawn.share, drawn.box is not None))
    monkeypatch.setattr(timm.data.mixup, "cutmix_bbox_and_lam", lambda *_, **__: (drawn.box, drawn.share))
    wanted_pixels, wanted_targets = theirs(PIXELS.clone(), LABELS)
    pixels, targets = _mixed(config, step=step)
    assert torch.equal(pixels, wanted_pixels)
    assert torch.allclose(targets, wanted_targets)


def test_the_share_has_the_beta_law_and_cutmix_keeps_that_area() -> None:
    shares = [one.share for one in _draws(_config(mixup_alpha=0.5), 4000)]
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)).
    assert np.mean(shares) == pytest.approx(0.5, abs=0.02)
    assert np.var(shares) == pytest.approx(1 / 8, rel=0.05)
    for one in _draws(_config(cutmix_alpha=1.0), 200):
        assert one.box is not None
        top, bottom, left, right = one.box
        assert 0 <= top <= bottom <= 16
        assert 0 <= left <= right <= 16
        assert one.share == 1 - (bottom - top) * (right - left) / 256


def test_the_box_is_timms_rule_for_the_same_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(cutmix_alpha=1.0)
    for step in range(50):
        random = np.random.Generator(np.random.Philox(0))
        centres: list[int] = []

        class Recorded:
            def __init__(self, *_: object) -> None: ...
            def random(self) -> float:
                return 0.0

            def beta(self, a: float, b: float) -> float:
                return (step + 1) / 51  # noqa: B023

            def integers(self, low: int, high: int, n: int) -> Any:
                centres.extend(random.integers(low, high, n).tolist())  # noqa: B023
                return np.array(centres)  # noqa: B023

        with monkeypatch.context() as patched:
            patched.setattr(np.random, "Generator", Recorded)
            drawn = draw(config, 16, **HERE)
        with monkeypatch.context() as patched:
            left = iter(centres)
            patched.setattr(np.random, "randint", lambda *_, **__: next(left))  # noqa: B023
            (top, bottom, first, last), share = timm.data.mixup.cutmix_bbox_and_lam((12, 3, 16, 16), (step + 1) / 51)
        assert drawn == Draw(pytest.approx(share), (top, bottom, first, last))


def test_with_both_on_each_has_half_of_the_steps() -> None:
    cut = [one.box is not None for one in _draws(_config(mixup_alpha=1.0, cutmix_alpha=1.0), 1000)]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("setting", ["mixup_alpha", "cutmix_alpha"])
def test_rows_that_pad_a_short_step_mix_with_none_and_the_given_pixels_stay(setting: str) -> None:
    before = PIXELS.clone()
    pixels, targets = _mixed(_config(**{setting: 1.0}), n_rows=7)
    assert torch.equal(PIXELS, before)
    assert torch.equal(pixels[7:], PIXELS[7:])
    assert torch.equal(targets[7:], torch.nn.functional.one_hot(LABELS[7:], 3).float())
    assert not torch.equal(pixels[:7], PIXELS[:7])
    # The row in the middle stands opposite to itself.
    assert torch.allclose(pixels[3], PIXELS[3])
    assert torch.allclose(targets.sum(dim=1), torch.ones(12))


def test_the_memory_format_of_the_pixels_is_kept() -> None:
    laid = PIXELS.contiguous(memory_format=torch.channels_last)
    pixels, _ = mix(laid, LABELS, _config(mixup_alpha=1.0), n_rows=12, n_classes=3, **HERE)
    assert pixels.is_contiguous(memory_format=torch.channels_last)
