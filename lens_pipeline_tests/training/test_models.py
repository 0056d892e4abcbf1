import hashlib
import json

import pytest
import torch
from torch import nn

from lens_pipeline.batches.loader import FORWARD_MULTIPLE
from lens_pipeline.contracts.dataset import DatasetContract, StampClass
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.training.choices import Architecture, Normalization
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.freezing import layers
from lens_pipeline.training.models import ModelSpec, build_model, freeze_batchnorm, has_batchnorm, spec_for
from lens_pipeline.training.optimizer import assert_all_changed
from lens_pipeline.training.stems import first_convolution, first_name, head_name
from lens_pipeline_tests.stamps.making import OTHER_SURVEY

EVERY = pytest.mark.parametrize("architecture", list(Architecture))
# Every architecture, and with groups those that normalise over the batch by themselves.
EVERY_NORMALISED = pytest.mark.parametrize(
    ("architecture", "normalization"),
    [(one, Normalization.batch) for one in Architecture]
    + [(one, Normalization.group) for one in Architecture if one.has_batchnorm],
)
# Stamps of this side take a quarter of the time of the default's, through the same layers; and where those stay the same, of
# half of it again.
SMALL = DatasetContract(stamp_size=32)
SMALLEST = {one: SMALL for one in Architecture} | {
    one: DatasetContract(stamp_size=16) for one in (Architecture.resnet18, Architecture.vit_tiny)
}
# The smallest of each family that timm builds with the same code.
ONE_A_FAMILY = [
    Architecture.test_resnet,
    Architecture.regnetx_002,
    Architecture.efficientnet_b0,
    Architecture.test_convnext,
    Architecture.vit_tiny,
]
SIDES = {
    Architecture.test_resnet: (2, 2),
    Architecture.resnet10t: (2, 2),
    Architecture.resnet18: (8, 6),
    Architecture.regnetx_002: (2, 2),
    Architecture.efficientnet_b0: (4, 3),
    Architecture.test_convnext: (2, 3),
    Architecture.convnext_tiny: (4, 3),
    Architecture.vit_tiny: (8, 12),
}


def spec_of(
    architecture: Architecture = Architecture.test_resnet,
    contract: DatasetContract | None = None,
    **settings: object,
) -> ModelSpec:
    config = TrainingConfig.model_validate({"model": architecture, **settings})
    return spec_for(config, contract or DatasetContract())


def _stamps(spec: ModelSpec, rows: int = 16) -> torch.Tensor:
    return torch.randn(rows, spec.bands, spec.stamp_size, spec.stamp_size)


@EVERY
def test_a_64_pixel_stamp_keeps_a_feature_map_that_can_tell_where(architecture: Architecture) -> None:
    spec = spec_of(architecture)
    assert spec.feature_side == SIDES[architecture][0]
    assert build_model(spec)(torch.zeros(2, 3, 64, 64)).shape == (2, 1)


@EVERY
def test_another_survey_with_three_classes_five_bands_and_48_pixels_fits_too(architecture: Architecture) -> None:
    spec = spec_of(architecture, OTHER_SURVEY)
    assert spec.feature_side == SIDES[architecture][1]
    assert build_model(spec)(torch.zeros(2, 5, 48, 48)).shape == (2, 3)


def test_the_default_model_starts_from_the_bits_it_always_started_from() -> None:
    torch.manual_seed(1)
    digest = hashlib.sha256()
    for name, tensor in build_model(spec_of()).state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    assert digest.hexdigest() == "554b076a73c1e916648be7cb54a7f01b4566ecb8ae2b23753c6bf72a0cf56209"


@EVERY_NORMALISED
def test_a_row_has_the_same_logits_bit_for_bit_whatever_stands_beside_it(
    architecture: Architecture, normalization: Normalization
) -> None:
    model = build_model(spec_of(architecture, SMALL, normalization=normalization)).eval()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = torch.randn(FORWARD_MULTIPLE, 3, 32, 32)
    try:
        for layout in (torch.channels_last, torch.contiguous_format):
            with torch.inference_mode():
                alone = model(rows.contiguous(memory_format=layout))
                for multiple in (2, 3):
                    places = torch.randperm(multiple * FORWARD_MULTIPLE)[:FORWARD_MULTIPLE]
                    others = torch.randn(multiple * FORWARD_MULTIPLE, 3, 32, 32) * 5
                    others[places] = rows
                    assert torch.equal(model(others.contiguous(memory_format=layout))[places], alone)
    finally:
        torch.set_num_threads(threads)


@EVERY_NORMALISED
def test_the_first_step_changes_every_parameter_and_a_few_steps_learn(
    architecture: Architecture, normalization: Normalization
) -> None:
    torch.manual_seed(0)
    spec = spec_of(architecture, SMALLEST[architecture], normalization=normalization)
    model = build_model(spec).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    stamps, labels = _stamps(spec), torch.arange(16).remainder(2).float()
    stamps[labels == 1] += 1
    losses = []
    for step in range(3):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        loss = nn.functional.binary_cross_entropy_with_logits(model(stamps)[:, 0], labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step == 0:
            assert_all_changed(model, before)
    assert losses[-1] < losses[0]


@EVERY_NORMALISED
def test_a_fresh_model_does_not_start_out_convinced(architecture: Architecture, normalization: Normalization) -> None:
    spec = spec_of(architecture, SMALLEST[architecture], normalization=normalization)
    model = build_model(spec).train()
    with torch.no_grad():
        logits = model(_stamps(spec))
    assert float(logits.abs().max()) < 2.5


@EVERY
def test_the_weights_and_the_spec_in_json_rebuild_the_model_bit_for_bit(architecture: Architecture) -> None:
    spec = spec_of(architecture, SMALL, dropout=0.1, drop_path=0.1)
    model = build_model(spec).eval()
    rebuilt = build_model(ModelSpec.from_json(json.loads(json.dumps(spec.to_json())))).eval()
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    stamps = torch.randn(2, 3, 32, 32)
    assert torch.equal(rebuilt(stamps), model(stamps))


@pytest.mark.parametrize(
    ("architecture", "normalization"),
    [*((one, Normalization.batch) for one in Architecture), (Architecture.test_resnet, Normalization.group)],
)
def test_the_model_can_be_exported_for_any_number_of_rows(
    architecture: Architecture, normalization: Normalization
) -> None:
    spec = spec_of(architecture, SMALLEST[architecture], normalization=normalization)
    model, stamps = build_model(spec).eval(), _stamps(spec)
    rows = {0: torch.export.Dim("rows", min=2, max=4096)}
    exported = torch.export.export(model, (stamps[:3],), dynamic_shapes=(rows,)).module()
    assert torch.allclose(exported(stamps), model(stamps), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ONE_A_FAMILY)
def test_the_models_of_a_family_are_one_graph_to_the_compiler(architecture: Architecture) -> None:
    spec = spec_of(architecture, SMALLEST[architecture], drop_path=0.1)
    # Only traced: what the compiler makes of the graph is torch's own business, that there is one graph is ours.
    compiled = torch.compile(build_model(spec).train(), backend="eager", fullgraph=True)
    assert compiled(_stamps(spec)).shape == (16, 1)


@EVERY
def test_the_centre_of_the_last_map_sees_an_einstein_ring_of_the_largest_radius(architecture: Architecture) -> None:
    # Of the prior, 2.5 arcsec: across 19 pixels of 0.262 arcsec.
    model = build_model(spec_of(architecture)).eval()
    stamp = torch.randn(1, 3, 64, 64, requires_grad=True)
    features = model.forward_features(stamp)  # type: ignore[operator]
    if features.ndim == 3:
        features = features.transpose(1, 2).unflatten(2, (8, 8))
    middle = features.shape[-1] // 2
    features[0, :, middle, middle].square().sum().backward()
    assert stamp.grad is not None
    seen = stamp.grad[0].abs().sum(0) > 0
    y, x = (torch.arange(64) - 31.5).abs()[:, None], (torch.arange(64) - 31.5).abs()[None, :]
    assert seen[torch.maximum(y, x) <= 2.5 / 0.262].all()


@EVERY
def test_the_configuration_knows_which_models_normalise_over_the_batch(architecture: Architecture) -> None:
    assert has_batchnorm(build_model(spec_of(architecture, SMALL))) == architecture.has_batchnorm


@pytest.mark.parametrize("architecture", [one for one in Architecture if one.has_batchnorm])
def test_groups_and_synchronised_statistics_keep_names_activations_and_scales(architecture: Architecture) -> None:
    specs = {
        kind: spec_of(architecture, SMALL, normalization=kind) for kind in (Normalization.batch, Normalization.group)
    }
    specs[Normalization.sync] = spec_of(architecture, SMALL, normalization=Normalization.sync, device="cuda")
    torch.manual_seed(3)
    own = build_model(specs[Normalization.batch]).eval()
    torch.manual_seed(3)
    groups = build_model(specs[Normalization.group]).eval()
    torch.manual_seed(3)
    synchronised = build_model(specs[Normalization.sync]).eval()
    assert not has_batchnorm(groups)
    assert has_batchnorm(synchronised)
    assert [name for name, _ in groups.named_parameters()] == [name for name, _ in own.named_parameters()]
    assert all(torch.equal(p, q) for p, q in zip(groups.parameters(), own.parameters(), strict=True))
    assert list(synchronised.state_dict()) == list(own.state_dict())
    stamps = torch.randn(16, 3, 32, 32)
    # In eval mode a synchronised layer is an ordinary one: a model that was trained on GPUs scores on a CPU.
    assert torch.equal(synchronised(stamps), own(stamps))
    inner = [m for m in groups.modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_channels % m.num_groups for m in inner} == {0}
    assert min(m.num_channels // m.num_groups for m in inner) >= 8
    activations = [sum(isinstance(m, nn.ReLU | nn.SiLU) for m in model.modules()) for model in (own, groups)]
    assert activations[0] == activations[1]


@EVERY_NORMALISED
def test_every_parameter_has_a_layer_to_freeze_and_the_head_is_the_last(
    architecture: Architecture, normalization: Normalization
) -> None:
    model = build_model(spec_of(architecture, SMALL, normalization=normalization))
    for coarse in (True, False):
        layer = layers(model, coarse=coarse)
        assert {name for name, _ in model.named_parameters()} <= set(layer)
        last = {name for name, number in layer.items() if number == max(layer.values())}
        assert {f"{head_name(model)}.weight", f"{head_name(model)}.bias"} <= last
        assert layer[f"{first_name(model)}.weight"] == 0


def test_with_groups_a_row_trains_independently_of_the_rows_beside_it() -> None:
    model = build_model(spec_of(contract=SMALL, normalization="group")).train()
    stamps = torch.randn(4, 3, 32, 32)
    assert torch.allclose(model(stamps)[:1], model(stamps[:1]), atol=1e-5)


def test_resnet18_has_a_3x3_stem_of_stride_1_and_no_pooling() -> None:
    model = build_model(spec_of(Architecture.resnet18))
    assert model.conv1.kernel_size == (3, 3)  # type: ignore[union-attr]
    assert model.conv1.stride == (1, 1)  # type: ignore[union-attr]
    assert isinstance(model.maxpool, torch.nn.Identity)


@pytest.mark.parametrize(("size", "stride"), [(64, 2), (128, 4), (48, 2), (32, 2)])
def test_convnext_tiny_keeps_its_own_stem_only_where_it_leaves_four_pixels(size: int, stride: int) -> None:
    spec = spec_of(Architecture.convnext_tiny, DatasetContract(stamp_size=size))
    assert first_convolution(build_model(spec)).stride == (stride, stride)


@pytest.mark.parametrize(("size", "patch"), [(64, 8), (48, 4), (32, 4), (128, 16), (136, 8)])
def test_vit_tiny_takes_the_largest_patches_that_leave_eight_tokens_a_side(size: int, patch: int) -> None:
    spec = spec_of(Architecture.vit_tiny, DatasetContract(stamp_size=size))
    assert (spec.stem_stride, spec.feature_side) == (patch, size // patch)


def test_vit_tiny_refuses_stamps_that_its_patches_do_not_tile() -> None:
    with pytest.raises(ConfigError, match="of a 101-pixel stamp in patches of 16, 8, 4"):
        spec_of(Architecture.vit_tiny, DatasetContract(stamp_size=101))


@EVERY
def test_stamps_that_are_too_small_for_a_model_are_refused(architecture: Architecture) -> None:
    if architecture is Architecture.vit_tiny:
        assert spec_of(architecture, DatasetContract(stamp_size=8)).feature_side == 2
        return
    with pytest.raises(ConfigError, match="pixels of a 8-pixel stamp"):
        spec_of(architecture, DatasetContract(stamp_size=8))


@pytest.mark.parametrize("size", [16, 24, 32, 48, 101])
@pytest.mark.parametrize("architecture", [Architecture.test_resnet, Architecture.efficientnet_b0])
def test_smaller_and_odd_stamps_are_fitted_by_the_stem_or_refused(architecture: Architecture, size: int) -> None:
    contract = DatasetContract(stamp_size=size)
    if architecture is Architecture.efficientnet_b0 and size == 16:
        with pytest.raises(ConfigError, match="pixels of a 16-pixel stamp"):
            spec_of(architecture, contract)
        return
    spec = spec_of(architecture, contract)
    assert spec.feature_side >= 2
    build_model(spec)


@pytest.mark.parametrize("architecture", [Architecture.test_resnet, Architecture.vit_tiny])
def test_a_feature_map_that_is_not_what_the_spec_says_is_refused(architecture: Architecture) -> None:
    spec = spec_of(architecture)
    with pytest.raises(ConfigError, match="its spec says 5"):
        build_model(ModelSpec(**{**spec.to_json(), "feature_side": 5}))


def test_a_spec_of_another_version_of_the_package_is_refused() -> None:
    spec = spec_of().to_json()
    with pytest.raises(ConfigError, match="another version"):
        ModelSpec.from_json({**spec, "squeeze": True})


def test_the_head_has_one_output_for_two_classes_and_one_a_class_for_more() -> None:
    four = DatasetContract(classes=tuple(StampClass(name=n, label_values=(n,)) for n in "abcd"))
    assert spec_of().outputs == 1
    assert spec_of(contract=four).outputs == 4


@EVERY
@pytest.mark.parametrize("setting", ["dropout", "drop_path"])
def test_dropout_and_drop_path_act_in_training_and_not_in_evaluation(architecture: Architecture, setting: str) -> None:
    torch.manual_seed(0)
    spec = spec_of(architecture, SMALLEST[architecture], **{setting: 0.5})
    model = build_model(spec)
    # Layer scales of convnext start at a millionth, so that a block that is skipped hardly shows.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".gamma"):
                parameter.fill_(1.0)
    stamps = _stamps(spec, rows=8)
    freeze_batchnorm(model.train())
    assert not torch.equal(model(stamps), model(stamps))
    assert torch.equal(model.eval()(stamps), model(stamps))


def test_frozen_batch_statistics_make_a_row_independent_of_its_batch_until_training_goes_on() -> None:
    model = build_model(spec_of(contract=DatasetContract(stamp_size=16))).train()
    freeze_batchnorm(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    stamps = torch.randn(3, 3, 16, 16)
    assert torch.allclose(model(stamps)[:1], model(stamps[:1]), atol=1e-5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    model.train()
    model(stamps)
    assert not all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
