"""Recipes in real runs of ranks: what is declared is trained, told, and the same after a kill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training.checkpoint import Checkpoint, checkpoint_name, newest_checkpoint, read_checkpoint
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import TIMINGS, RunFolder, read_events
from lens_pipeline.training.losses import RowLoss, build_loss
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.schedule import Schedule
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.weights import read_strata
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import QUICK, Sabotage, prepared, run_ranks

THAWING = {"frozen_epochs": 1, "thaw_every_epochs": 1, "epochs": 4, "checkpoints_kept": 100}
PLATEAU = {"schedule": "plateau", "plateau_factor": 0.1, "plateau_patience": 0, "learning_rate": 0.05, "epochs": 5}


def _last(folder: RunFolder) -> Checkpoint:
    found, _ = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert found is not None
    return found


def _history(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in row.items() if name not in TIMINGS} for row in _last(folder).progress.history
    ]


def _weights(folder: RunFolder) -> tuple[bytes, bytes]:
    return _last(folder).file("model").read_bytes(), _last(folder).file("optimizer").read_bytes()


def _events(folder: RunFolder, event: str) -> list[dict[str, Any]]:
    return [one for one in read_events(folder.history) if one["event"] == event]


@pytest.fixture(scope="module")
def thawed(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that trains the head first, and then a stage more each epoch."""
    folder = prepared(tmp_path_factory.mktemp("thawed") / "run", survey, **THAWING)
    assert run_ranks(folder) == [0, 0]
    return folder


def _moved(folder: RunFolder, step: int, later: int) -> set[str]:
    run = RunSpec.read(folder.specification).sha256()
    one, other = (
        load_file(read_checkpoint(folder.checkpoints, checkpoint_name(n), run=run).file("model")) for n in (step, later)
    )
    return {name.split(".")[0] for name in one if not np.array_equal(one[name], other[name])}


def test_each_epoch_moves_exactly_the_stages_that_have_thawed_batch_statistics_included(thawed: RunFolder) -> None:
    assert _moved(thawed, 3, 4) == {"fc"}
    assert _moved(thawed, 4, 8) == {"fc", "layer4"}
    assert _moved(thawed, 8, 12) == {"fc", "layer4", "layer3"}


def test_the_history_tells_how_many_parameters_each_epoch_trains(thawed: RunFolder) -> None:
    counts = [row["trained_parameters"] for row in _history(thawed)]
    assert len(counts) == 4
    assert counts == sorted(set(counts))
    head = load_file(_last(thawed).file("model"))
    assert counts[0] == head["fc.weight"].size + head["fc.bias"].size


@pytest.mark.parametrize(("epoch", "step"), [(1, 0), (1, 2), (3, 0)])
def test_a_run_killed_while_it_thaws_ends_with_the_same_bits(
    thawed: RunFolder, survey: Survey, run_path: Path, epoch: int, step: int
) -> None:
    folder = prepared(run_path, survey, **THAWING)
    assert run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=epoch, step=step))[0] == -9
    assert run_ranks(folder) == [0, 0]
    assert _weights(folder) == _weights(thawed)


@pytest.mark.parametrize(
    "recipe",
    [{"mixup_alpha": 0.4, "cutmix_alpha": 1.0}, {"stratum_weighting": "balanced", "layer_decay": 0.7}, PLATEAU],
    ids=["mixing", "weights and layers", "plateau"],
)
def test_a_run_killed_in_the_middle_of_a_recipe_ends_with_the_same_bits(
    uneven_survey: Survey, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    folders = [prepared(tmp_path / name, uneven_survey, **recipe) for name in ("alone", "killed")]
    assert run_ranks(folders[0]) == [0, 0]
    assert run_ranks(folders[1], sabotage=Sabotage("kill", rank=1, epoch=1, step=2))[1] == -9
    assert run_ranks(folders[1]) == [0, 0]
    assert _weights(folders[0]) == _weights(folders[1])
    assert _history(folders[0]) == _history(folders[1])


@pytest.mark.parametrize(
    "recipe",
    [PLATEAU, {"schedule": "one_cycle"}, {"layer_decay": 0.6, "monitor": "val_balanced_loss"}],
    ids=lambda recipe: next(iter(recipe)),
)
def test_the_rates_in_force_are_the_closed_form_of_every_step_times_the_scale_of_the_layer(
    survey: Survey, run_path: Path, recipe: dict[str, Any]
) -> None:
    folder = prepared(run_path, survey, **recipe)
    assert run_ranks(folder) == [0, 0]
    config = TrainingConfig.model_validate({**QUICK, **recipe})
    monitored = [row[config.monitor.value] for row in _history(folder)]
    schedule, steps = Schedule(config, steps_per_epoch=4), _events(folder, "step")
    assert len(steps) == 4 * len(monitored)
    for event in steps:
        wanted = schedule.rate(event["epoch"], event["step"] - 1, monitored[: event["epoch"]])
        assert event["learning_rate"] == wanted
        assert event["rates"] == pytest.approx([wanted * config.layer_decay**n for n in range(len(event["rates"]))])
    assert len(steps[0]["rates"]) == (6 if "layer_decay" in recipe else 1)
    assert len({event["learning_rate"] for event in steps}) > 2


def test_the_loss_that_is_told_and_published_is_the_one_that_is_used(uneven_survey: Survey, run_path: Path) -> None:
    recipe = {"class_weighting": "balanced", "stratum_weighting": "balanced", "label_smoothing": 0.1, "epochs": 1}
    folder = prepared(run_path, uneven_survey, **recipe, learning_rate=1e-6, min_learning_rate=0.0, warmup_epochs=0)
    assert run_ranks(folder) == [0, 0]
    spec, rows = RunSpec.read(folder.specification), read_rows(uneven_survey[1], uneven_survey[0], TrainingConfig())
    told = _events(folder, "run_started")[0]["loss"]
    assert told == _last(folder).about["loss"]
    strata = read_strata(rows, uneven_survey[0])
    assert told == build_loss(spec.config, rows.counts(rows.train, 2), strata).describe()
    assert len(set(told["stratum_weights"].values())) == 3
    # With a rate of nothing the first model is also the last: its loss on the training rows, by the loss that was told.
    used = RowLoss.from_description(told)
    weights = torch.from_numpy(strata.by_row(used.stratum_weights)[rows.train])
    labels = torch.from_numpy(rows.labels[rows.train].astype(np.int64))
    wanted = used(torch.zeros(len(labels), 1), labels, weights).mean()
    assert _history(folder)[0]["train_loss"] == pytest.approx(float(wanted), rel=0.05)


def test_the_part_of_a_label_that_is_mixed_in_is_learned_from(uneven_survey: Survey, tmp_path: Path) -> None:
    losses = []
    for name, recipe in (("plain", {}), ("mixed", {"mixup_alpha": 0.4})):
        folder = prepared(tmp_path / name, uneven_survey, **recipe)
        assert run_ranks(folder) == [0, 0]
        losses.append(_history(folder)[-1]["train_loss"])
    assert losses[1] > losses[0]


def test_a_monitor_that_validation_cannot_resolve_stops_before_any_rank_starts(survey: Survey, run_path: Path) -> None:
    with pytest.raises(TrainingError, match="would be decided by chance"):
        prepared(run_path, survey, monitor="val_partial_auc")
    assert not (run_path / "run.json").exists()
