"""Stochastic weight averaging: the last epochs' weights, equally, with batch statistics of their own."""

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from lens_pipeline.training.checkpoint import Checkpoint, checkpoint_name, newest_checkpoint, read_checkpoint
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import prepared, run_ranks

AVERAGED = {"swa_epochs": 2, "epochs": 3, "checkpoints_kept": 100, "learning_rate": 5e-3}
STEPS = 4


def ended(folder: RunFolder) -> Checkpoint:
    checkpoint, _ = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert checkpoint is not None
    assert checkpoint.progress.ended
    return checkpoint


def after_epoch(folder: RunFolder, epoch: int) -> Checkpoint:
    name = checkpoint_name((epoch + 1) * STEPS)
    return read_checkpoint(folder.checkpoints, name, run=RunSpec.read(folder.specification).sha256())


@pytest.fixture(scope="module")
def averaged(tmp_path_factory: pytest.TempPathFactory, survey: Survey) -> RunFolder:
    folder = prepared(tmp_path_factory.mktemp("averaged") / "run", survey, **AVERAGED)
    assert run_ranks(folder) == [0, 0]
    return folder


def test_what_is_published_is_the_equal_mean_of_the_last_epochs_weights(averaged: RunFolder) -> None:
    epochs = [load_file(after_epoch(averaged, epoch).file("model")) for epoch in range(3)]
    last = ended(averaged)
    assert last.published_file == last.file("average")
    found = load_file(last.file("average"))
    weights = [name for name in found if "running" not in name and "num_batches" not in name]
    for name in weights:
        assert np.allclose(found[name], (epochs[1][name] + epochs[2][name]) / 2, rtol=1e-5, atol=1e-7)
    assert any(not np.allclose(found[name], epochs[2][name], rtol=1e-3) for name in weights)


def test_before_the_last_epochs_the_mean_is_the_weights_themselves(averaged: RunFolder) -> None:
    first = after_epoch(averaged, 0)
    assert first.file("average").read_bytes() == first.file("model").read_bytes()


def test_batch_statistics_of_the_mean_are_taken_anew(averaged: RunFolder) -> None:
    last = ended(averaged)
    found, weights = load_file(last.file("average")), load_file(last.file("model"))
    statistics = [name for name in found if "running" in name]
    assert statistics
    assert all(not np.array_equal(found[name], weights[name]) for name in statistics)
    # Each batch of 116 training rows counts once.
    assert {int(found[name]) for name in found if "num_batches" in name} == {1}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"swa_epochs": 2, "ema_decay": 0.9}, "two averages"),
        ({"swa_epochs": 1}, "from 2 to all"),
        ({"swa_epochs": 7}, "from 2"),
    ],
)
def test_averages_that_cant_be_taken_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainingConfig.model_validate({"epochs": 6, **settings})
