"""Published weights are stood in for by timm's stock network, 3 inputs and 224 pixels, saved here."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.training.checkpoint import Checkpoint, newest_checkpoint
from lens_pipeline.training.choices import Architecture
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.models import build_model
from lens_pipeline.training.pretrained import PretrainedReport, load_pretrained
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.stems import FAMILIES, first_convolution
from lens_pipeline_tests.stamps.making import OTHER_SURVEY
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import Sabotage, prepared, run_ranks
from lens_pipeline_tests.training.test_models import EVERY, spec_of

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Published:
    """A file of weights as others publish them."""

    path: Path
    tensors: Tensors

    @property
    def sha256(self) -> str:
        return sha256_of(self.path)


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Published]:
    def published(architecture: Architecture, change: Callable[[Tensors], None] = lambda tensors: None) -> Published:
        torch.manual_seed(5)
        tensors = timm.create_model(FAMILIES[architecture].timm_name, pretrained=False).state_dict()
        # Fresh residual branches are scaled by nothing or by a millionth; trained ones aren't.
        for name, tensor in tensors.items():
            if name.endswith((".weight", ".gamma")) and tensor.ndim == 1:
                tensor.fill_(0.5)
        change(tensors)
        path = tmp_path / f"{architecture.value}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        return Published(path, tensors)

    return published


@EVERY
@pytest.mark.parametrize("contract", [DatasetContract(), OTHER_SURVEY], ids=["three bands", "five bands"])
def test_every_tensor_but_the_stem_and_the_head_is_the_files_and_all_are_accounted_for(
    architecture: Architecture, contract: DatasetContract, publish: Callable[..., Published]
) -> None:
    published = publish(architecture)
    spec = spec_of(architecture, contract)
    model = build_model(spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = load_pretrained(model, spec, published.path, sha256=published.sha256)

    mapped = {one.name for one in report.mapped}
    after = model.state_dict()
    copied = set(after) - mapped - set(report.fresh)
    assert len(copied) == report.copied
    assert all(torch.equal(after[name], published.tensors[name]) for name in copied)
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    assert not any(torch.equal(after[name], before[name]) for name in mapped)
    assert {name.split(".")[0] for name in report.fresh} <= {"fc", "head", "classifier"}
    assert len(report.fresh) == 2
    assert set(report.unused) == set(published.tensors) - (set(after) - set(report.fresh))
    stamps = torch.randn(2, spec.bands, spec.stamp_size, spec.stamp_size)
    assert torch.isfinite(model.eval()(stamps)).all()


def test_what_was_mapped_is_said_with_its_formula_and_the_report_is_json(publish: Callable[..., Published]) -> None:
    published = publish(Architecture.resnet18)
    spec = spec_of(Architecture.resnet18, OTHER_SURVEY)
    report = load_pretrained(build_model(spec), spec, published.path, sha256=published.sha256)
    (kernel,) = report.mapped
    assert (kernel.name, kernel.stock_shape, kernel.shape) == ("conv1.weight", (64, 3, 7, 7), (64, 5, 3, 3))
    assert "b mod 3, times 3 / 5" in kernel.formulas[0]
    assert "7 to 3 pixels a side at stride 2 to 1" in kernel.formulas[1]
    assert set(report.fresh) == set(report.unused) == {"fc.weight", "fc.bias"}
    assert json.loads(json.dumps(report.to_json())) == report.to_json()
    assert report.to_json()["sha256"] == published.sha256


def test_a_stem_that_fits_is_copied(publish: Callable[..., Published]) -> None:
    published = publish(Architecture.test_resnet)
    spec = spec_of(Architecture.test_resnet)
    model = build_model(spec)
    report = load_pretrained(model, spec, published.path, sha256=published.sha256)
    assert report.mapped == ()
    assert torch.equal(first_convolution(model).weight, published.tensors["conv1.0.weight"])


def test_the_stem_of_convnext_sees_what_it_would_see_on_the_stamp_enlarged_twice(
    publish: Callable[..., Published],
) -> None:
    published = publish(Architecture.convnext_tiny)
    spec = spec_of(Architecture.convnext_tiny)
    model = build_model(spec)
    load_pretrained(model, spec, published.path, sha256=published.sha256)
    stock = timm.create_model("convnext_tiny", pretrained=False)
    stock.load_state_dict(published.tensors)
    stamps = torch.randn(1, 3, 64, 64)
    enlarged = stamps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    with torch.inference_mode():
        # So do all layers after it: the last feature map is that of the stock network.
        features = model.eval().forward_features(stamps)  # type: ignore[operator]
        assert torch.allclose(features, stock.eval().forward_features(enlarged), rtol=1e-3, atol=1e-4)


def test_with_groups_the_running_statistics_are_named_as_unused(publish: Callable[..., Published]) -> None:
    published = publish(Architecture.test_resnet)
    spec = spec_of(normalization="group")
    report = load_pretrained(build_model(spec), spec, published.path, sha256=published.sha256)
    assert {name.rpartition(".")[2] for name in report.unused} == {
        *("running_mean", "running_var", "num_batches_tracked"),
        *("weight", "bias"),
    }
    assert all("running" in name or "batches" in name or name.startswith("fc.") for name in report.unused)


def test_weights_that_were_saved_in_half_precision_and_without_head_and_counters_are_taken(
    publish: Callable[..., Published],
) -> None:
    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            if name.startswith("fc.") or name.endswith("num_batches_tracked"):
                del tensors[name]
            else:
                tensors[name] = tensors[name].half()

    published = publish(Architecture.test_resnet, change)
    spec = spec_of()
    report = load_pretrained(build_model(spec), spec, published.path, sha256=published.sha256)
    assert all(name.startswith("fc.") or name.endswith("num_batches_tracked") for name in report.fresh)
    assert report.unused == ()


def _lacks(tensors: Tensors) -> None:
    del tensors["layer1.0.conv1.weight"], tensors["layer1.0.bn1.bias"]


def _has_more(tensors: Tensors) -> None:
    tensors["teacher.weight"] = torch.zeros(1)


def _has_another_shape(tensors: Tensors) -> None:
    tensors["layer1.0.bn1.bias"] = torch.zeros(7)


def _is_not_finite(tensors: Tensors) -> None:
    tensors["layer1.0.bn1.bias"][0] = torch.nan


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _lacks,
            "2 missing: layer1.0.bn1.bias, layer1.0.conv1.weight|2 missing: layer1.0.conv1.weight, layer1.0.bn1.bias",
        ),
        (_has_more, "1 unexpected: teacher.weight"),
        (_has_another_shape, r"1 of another shape: layer1.0.bn1.bias \(7,\) for \(\d+,\)"),
        (_is_not_finite, "1 not finite: layer1.0.bn1.bias"),
    ],
)
def test_weights_that_are_not_the_architectures_are_refused_with_the_names_and_the_model_stays(
    change: Callable[[Tensors], None], said: str, publish: Callable[..., Published]
) -> None:
    published = publish(Architecture.test_resnet, change)
    spec = spec_of()
    model = build_model(spec)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError, match=said):
        load_pretrained(model, spec, published.path, sha256=published.sha256)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_another_file_than_the_one_that_was_meant_is_refused(publish: Callable[..., Published]) -> None:
    published = publish(Architecture.test_resnet)
    with pytest.raises(ConfigError, match=f"has the SHA-256 {published.sha256}, pretrained_sha256 says 0000"):
        _load(published.path, "0" * 64)
    meant = published.sha256
    content = bytearray(published.path.read_bytes())
    content[-1] ^= 1
    published.path.write_bytes(content)
    with pytest.raises(ConfigError, match="another file, or was changed"):
        _load(published.path, meant)


def test_a_pickle_is_refused_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    # A protocol-2 pickle that would end the interpreter if anything loaded it.
    path.write_bytes(b"\x80\x02cos\n_exit\nK\x07\x85R.")
    with pytest.raises(ConfigError, match="isn't a safetensors file"):
        _load(path, sha256_of(path))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Weights are never fetched"):
        _load(tmp_path / "none.safetensors", "0" * 64)


def _newest(folder: RunFolder) -> Checkpoint:
    found, _ = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert found is not None
    return found


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_run_starts_from_the_weights_says_so_and_goes_on_without_the_file(
    survey: Survey, tmp_path: Path, publish: Callable[..., Published], ema_decay: float
) -> None:
    published = publish(Architecture.test_resnet)
    fresh = {"world_size": 1, "epochs": 2, "ema_decay": ema_decay}
    settings = {**fresh, "pretrained": str(published.path), "pretrained_sha256": published.sha256}
    folders = [
        prepared(tmp_path / name, survey, **given)
        for name, given in (("whole", settings), ("killed", settings), ("fresh", fresh))
    ]
    run_ranks(folders[1], 1, sabotage=Sabotage("kill", rank=0, epoch=1, step=2))
    assert [run_ranks(folders[0], 1), run_ranks(folders[2], 1)] == [[0], [0]]
    published.path.unlink()
    assert run_ranks(folders[1], 1) == [0]
    whole, killed, other = (_newest(folder) for folder in folders)
    assert whole.about["pretrained"]["sha256"] == settings["pretrained_sha256"]
    assert [one["name"] for one in whole.about["pretrained"]["mapped"]] == ["conv1.0.weight"]
    assert killed.about["pretrained"] == whole.about["pretrained"]
    assert other.about["pretrained"] is None
    assert killed.published_file.read_bytes() == whole.published_file.read_bytes()
    assert other.published_file.read_bytes() != whole.published_file.read_bytes()


def test_a_run_from_another_file_is_refused_before_a_rank_starts_and_from_another_place_it_is_the_same_run(
    survey: Survey, run_path: Path, publish: Callable[..., Published]
) -> None:
    published = publish(Architecture.test_resnet)
    with pytest.raises(ConfigError, match="another file, or was changed"):
        prepared(run_path, survey, pretrained=str(published.path), pretrained_sha256="0" * 64)
    meant = published.sha256
    prepared(run_path, survey, pretrained=str(published.path), pretrained_sha256=meant)
    moved = published.path.rename(published.path.with_name("moved.safetensors"))
    prepared(run_path, survey, pretrained=str(moved), pretrained_sha256=meant)


def _load(path: Path, sha256: str) -> PretrainedReport:
    spec = spec_of()
    return load_pretrained(build_model(spec), spec, path, sha256=sha256)
