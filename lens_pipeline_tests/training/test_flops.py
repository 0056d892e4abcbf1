from pathlib import Path

import pytest

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.training.choices import Architecture
from lens_pipeline.training.flops import flops_per_stamp, forward_flops_per_stamp
from lens_pipeline.training.models_page import models_page
from lens_pipeline_tests.training.test_models import EVERY, spec_of


def _by_hand_resnet18() -> int:
    # (output side, kernel, channels in, channels out) of every convolution at 64 pixels, and the head.
    layers = [(64, 3, 3, 64)] + [(64, 3, 64, 64)] * 4
    for side, wide in ((32, 128), (16, 256), (8, 512)):
        layers += [(side, 3, wide // 2, wide), (side, 1, wide // 2, wide)] + [(side, 3, wide, wide)] * 3
    return sum(2 * side**2 * kernel**2 * n_in * n_out for side, kernel, n_in, n_out in layers) + 2 * 512


def test_resnet18s_operations_are_those_counted_by_hand() -> None:
    spec = spec_of(Architecture.resnet18)
    assert forward_flops_per_stamp(spec) == _by_hand_resnet18()
    # Each gradient, of inputs and of kernels, costs a forward pass; nobody asks for the gradient of the stamp.
    first = 2 * 64**2 * 9 * 3 * 64
    assert flops_per_stamp(spec) == 3 * _by_hand_resnet18() - first


@EVERY
def test_training_costs_three_forward_passes_less_the_gradient_of_the_stamp(architecture: Architecture) -> None:
    spec = spec_of(architecture, DatasetContract(stamp_size=32))
    assert 2.9 < flops_per_stamp(spec) / forward_flops_per_stamp(spec) < 3


@pytest.mark.parametrize("architecture", [Architecture.efficientnet_b0, Architecture.vit_tiny])
def test_normalisation_and_dropping_add_no_operations_and_larger_stamps_do(architecture: Architecture) -> None:
    small, large = DatasetContract(stamp_size=32), DatasetContract(stamp_size=64)
    plain = flops_per_stamp(spec_of(architecture, small))
    assert flops_per_stamp(spec_of(architecture, small, dropout=0.2, drop_path=0.2)) == plain
    assert flops_per_stamp(spec_of(architecture, large)) > plain


def test_the_page_of_models_is_what_the_code_says() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "models.md"
    assert page.read_text() == models_page(), "lens_pipeline documents docs writes it"
