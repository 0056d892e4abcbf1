"""What is said of a GPU that isn't there, is too old or too small, played on the CPU; and float16 with its scaler, run on it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_pipeline.contracts.errors import ConfigError, TrainingError
from lens_pipeline.training import processes
from lens_pipeline.training.choices import Device, Precision
from lens_pipeline.training.gpus import device_for
from lens_pipeline.training.loop import Trainer
from lens_pipeline.training.rank import trainer_for
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import only_rank, prepared

CUDA_13 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
CUDA_12 = ["sm_70", *CUDA_13]
GpusOf = Callable[..., None]
TrainerOf = Callable[..., Trainer]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> GpusOf:
    """Play two GPUs of a kind, and a torch built for some architectures."""

    def play(name: str, capability: tuple[int, int], built_for: list[str]) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: name)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built_for)

    return play


@pytest.fixture
def trainer_of(survey: Survey, tmp_path: Path) -> Iterator[TrainerOf]:
    """Build the one rank of a run in this process; a precision that the settings keep from CPUs is had all the same."""
    with only_rank(tmp_path) as world:

        def build(name: str = "run", precision: Precision = Precision.float32, **settings: Any) -> Trainer:
            folder = prepared(tmp_path / name, survey, world_size=1, **settings)
            spec = RunSpec.read(folder.specification)
            spec = replace(spec, config=spec.config.model_copy(update={"precision": precision}))
            return trainer_for(spec, folder, world, lambda epoch, step: None, folder.next_attempt())

        yield build


def test_a_cpu_asks_no_gpu_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cuda, "is_available")
    assert device_for(Device.cpu, precision=Precision.bf16) == torch.device("cpu")


def test_a_rank_without_a_gpu_of_its_own_is_refused(gpus: GpusOf) -> None:
    gpus("Tesla V100", (7, 0), CUDA_12)
    assert device_for(Device.cuda, 1, wanted=2) == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"3 process\(es\) want a GPU each; torch \S+ finds 2 .* at most 2 processes"):
        device_for(Device.cuda, 2, wanted=3)


@pytest.mark.parametrize("found", [0, 2])
def test_where_there_is_no_gpu_only_a_cpu_is_proposed(monkeypatch: pytest.MonkeyPatch, found: int) -> None:
    monkeypatch.setattr(processes, "count_gpus", lambda: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    with pytest.raises(ConfigError) as refused:
        device_for(Device.cuda, 2, wanted=3)
    for said in (str(refused.value), processes.refuse_missing_gpus(Device.cuda, 3) or ""):
        assert "Set device: cpu" in said
        assert ("at most 2 processes" in said) == (found == 2)
        assert "at most 0" not in said


@pytest.mark.parametrize("precision", [Precision.float16, Precision.float32])
def test_a_v100_trains_in_float16_or_float32_with_a_torch_that_has_kernels_for_it(
    gpus: GpusOf, precision: Precision
) -> None:
    gpus("Tesla V100", (7, 0), CUDA_12)
    assert device_for(Device.cuda, precision=precision).type == "cuda"


@pytest.mark.parametrize(("name", "capability"), [("Tesla V100", (7, 0)), ("Tesla T4", (7, 5))])
def test_bf16_on_a_gpu_without_it_is_refused_with_what_to_set(
    gpus: GpusOf, name: str, capability: tuple[int, int]
) -> None:
    gpus(name, capability, CUDA_12)
    with pytest.raises(ConfigError, match=rf"bf16, and {name} \(compute capability .*Set precision: float16"):
        device_for(Device.cuda, precision=Precision.bf16)


@pytest.mark.parametrize(("name", "capability"), [("A100", (8, 0)), ("L4", (8, 9)), ("H200", (9, 0))])
def test_bf16_is_taken_where_the_gpu_has_it(gpus: GpusOf, name: str, capability: tuple[int, int]) -> None:
    gpus(name, capability, CUDA_13)
    assert device_for(Device.cuda, precision=Precision.bf16).type == "cuda"


def test_a_gpu_that_this_torch_has_no_kernels_for_is_refused_with_the_lock_to_install(gpus: GpusOf) -> None:
    gpus("Tesla V100", (7, 0), CUDA_13)
    with pytest.raises(
        ConfigError, match=r"no kernels for Tesla V100 \(sm_70\), only for sm_75, .*LOCK=requirements-cuda12.lock"
    ):
        device_for(Device.cuda)


def test_machine_code_serves_its_own_major_version_and_intermediate_code_all_later_ones(gpus: GpusOf) -> None:
    gpus("a later one", (12, 1), ["sm_90", "compute_90"])
    assert device_for(Device.cuda).type == "cuda"
    gpus("a later one", (12, 1), ["sm_90", "sm_100"])
    with pytest.raises(ConfigError, match="no kernels for a later one"):
        device_for(Device.cuda)


def _with_memory_for(trainer: Trainer, rows: int, *, also_judging: bool = True) -> Trainer:
    def refuse(model: torch.nn.Module, seen: tuple[torch.Tensor, ...]) -> None:
        if len(seen[0]) > rows and (model.training or also_judging):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has no more.")

    trainer.model.register_forward_pre_hook(refuse)
    return trainer


@pytest.mark.parametrize(
    ("settings", "proposed"),
    [
        ({"batch_size": 64}, 32),
        # Of 62 rows three parts have 20 or 21 each; four would have 15, which batch normalisation doesn't take.
        ({"batch_size": 62, "micro_batch_size": 31}, 21),
        ({"batch_size": 40, "normalization": "group", "micro_batch_size": 3}, 2),
    ],
)
def test_too_little_memory_names_a_micro_batch_with_which_the_same_global_batch_fits(
    trainer_of: TrainerOf, settings: dict[str, Any], proposed: int
) -> None:
    short = _with_memory_for(trainer_of("short", **settings), proposed)
    with pytest.raises(
        TrainingError,
        match=rf"out of memory\. Set micro_batch_size: {proposed} \(.*batch_size {settings['batch_size']} ",
    ):
        short.run()
    enough = trainer_of("enough", **{**settings, "micro_batch_size": proposed, "epochs": 1, "warmup_epochs": 0})
    assert enough.sampler.steps_per_epoch == short.sampler.steps_per_epoch
    assert _with_memory_for(enough, proposed, also_judging=False).run()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_size": 16}, "Batch normalisation takes no fewer than these 16 rows at once: set normalization: group"),
        ({"normalization": "group", "micro_batch_size": 1}, "That is for one row: take a smaller model"),
    ],
)
def test_where_no_micro_batch_is_smaller_that_is_said(
    trainer_of: TrainerOf, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        _with_memory_for(trainer_of(**settings), 0).run()


def test_too_little_memory_for_judging_names_the_setting(trainer_of: TrainerOf) -> None:
    trainer = _with_memory_for(trainer_of(validation_batch_size=48), 32)
    with pytest.raises(TrainingError, match=r"to validate 48 rows at once: .*Set validation_batch_size: 24"):
        trainer.run()


def _epochs(trainer: Trainer) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in trainer.folder.history.read_text().splitlines()]
    return [line for line in lines if line["event"] == "epoch"]


def test_float16_with_its_scaler_learns_what_float32_learns(trainer_of: TrainerOf) -> None:
    losses = []
    for precision in (Precision.float32, Precision.float16):
        trainer = trainer_of(precision, precision, epochs=1, warmup_epochs=0)
        assert trainer.run()
        losses.append(_epochs(trainer)[0]["train_loss"])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_float16_run_that_overflowed_skips_and_counts_steps_and_goes_on_from_a_kill_with_the_same_bits(
    trainer_of: TrainerOf,
) -> None:
    class KilledError(Exception):
        pass

    settings = {"epochs": 1, "warmup_epochs": 0, "ema_decay": 0.9, "checkpoint_every_steps": 1}

    def kill(epoch: int, step: int) -> None:
        if (epoch, step) == (0, 2):
            raise KilledError

    def started(name: str) -> Trainer:
        trainer = trainer_of(name, Precision.float16, **settings)
        trainer.take_step.scaler.load_state_dict({**trainer.take_step.scaler.state_dict(), "scale": 2.0**18})
        return trainer

    alone, killed = started("alone"), started("killed")
    assert alone.run()
    assert 0 < _epochs(alone)[0]["skipped_steps"] < alone.sampler.steps_per_epoch
    killed.place = killed.settling._place = kill
    with pytest.raises(KilledError):
        killed.run()
    resumed = trainer_of("killed", Precision.float16, **settings)
    assert resumed.resumed_from is not None
    assert resumed.take_step.scaler.get_scale() < 2.0**18
    assert resumed.run()
    ended = [trainer.take_step.tensors() for trainer in (alone, resumed)]
    for name, tensors in ended[0].items():
        assert all(torch.equal(tensor, ended[1][name][key]) for key, tensor in tensors.items())
    assert resumed.take_step.scaler.state_dict() == alone.take_step.scaler.state_dict()
