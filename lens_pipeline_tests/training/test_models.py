import pytest
import torch

from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.config import Architecture
from lens_pipeline.training.models import ModelSpec, build_model, freeze_batchnorm, has_batchnorm, spec_for
from lens_pipeline_tests.stamps.making import OTHER_SURVEY

EVERY = pytest.mark.parametrize("architecture", list(Architecture))


@EVERY
def test_a_64_pixel_stamp_keeps_a_feature_map_that_can_tell_where(architecture: Architecture) -> None:
    spec = spec_for(architecture, DatasetContract(), 0.0)
    assert spec.feature_side == (8 if architecture is Architecture.resnet18 else 2)
    assert build_model(spec)(torch.zeros(2, 3, 64, 64)).shape == (2, 1)


@EVERY
def test_another_survey_with_three_classes_five_bands_and_48_pixels_fits_too(architecture: Architecture) -> None:
    model = build_model(spec_for(architecture, OTHER_SURVEY, 0.0))
    assert model(torch.zeros(2, 5, 48, 48)).shape == (2, 3)


@EVERY
def test_the_configuration_knows_which_models_normalise_over_the_batch(architecture: Architecture) -> None:
    assert has_batchnorm(build_model(spec_for(architecture, DatasetContract(), 0.0))) == architecture.has_batchnorm


def test_resnet18_has_a_3x3_stem_of_stride_1_and_no_pooling() -> None:
    model = build_model(spec_for(Architecture.resnet18, DatasetContract(), 0.0))
    assert model.conv1.kernel_size == (3, 3)  # type: ignore[union-attr]
    assert model.conv1.stride == (1, 1)  # type: ignore[union-attr]
    assert isinstance(model.maxpool, torch.nn.Identity)


@EVERY
def test_stamps_that_are_too_small_for_a_model_are_refused(architecture: Architecture) -> None:
    with pytest.raises(ConfigError, match="pixels of a 8-pixel stamp"):
        spec_for(architecture, DatasetContract(stamp_size=8), 0.0)


@pytest.mark.parametrize("size", [16, 24, 32, 48, 101])
def test_smaller_and_odd_stamps_are_fitted_by_the_stem(size: int) -> None:
    spec = spec_for(Architecture.test_resnet, DatasetContract(stamp_size=size), 0.0)
    assert spec.feature_side >= 2
    build_model(spec)


def test_a_feature_map_that_is_not_what_the_spec_says_is_refused() -> None:
    spec = spec_for(Architecture.test_resnet, DatasetContract(), 0.0)
    with pytest.raises(ConfigError, match="its spec says 4"):
        build_model(ModelSpec(**{**spec.to_json(), "feature_side": 4}))


def test_a_spec_of_another_version_of_the_package_is_refused() -> None:
    spec = spec_for(Architecture.test_resnet, DatasetContract(), 0.0).to_json()
    with pytest.raises(ConfigError, match="another version"):
        ModelSpec.from_json({**spec, "squeeze": True})


def test_the_head_has_one_output_for_two_classes_and_one_a_class_for_more() -> None:
    four = DatasetContract(classes=tuple(StampClass(name=n, label_values=(n,)) for n in "abcd"))
    assert spec_for(Architecture.test_resnet, DatasetContract(), 0.0).outputs == 1
    assert spec_for(Architecture.test_resnet, four, 0.0).outputs == 4


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    model = build_model(spec_for(Architecture.test_convnext, DatasetContract(), 0.5))
    stamp = torch.randn(1, 3, 64, 64)
    assert not torch.equal(model.train()(stamp), model(stamp))
    assert torch.equal(model.eval()(stamp), model(stamp))


def test_frozen_batch_statistics_make_a_row_independent_of_its_batch_until_training_goes_on() -> None:
    model = build_model(spec_for(Architecture.test_resnet, DatasetContract(stamp_size=16), 0.0)).train()
    freeze_batchnorm(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    stamps = torch.randn(3, 3, 16, 16)
    assert torch.allclose(model(stamps)[:1], model(stamps[:1]), atol=1e-5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.train()
    model(stamps)
    assert not all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
