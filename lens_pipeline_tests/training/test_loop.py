"""Two real ranks on gloo, forked instead of started by torchrun; test_run.py has the same through torchrun."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lens_pipeline.stamps.ledger import LedgerReader
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.training.checkpoint import FORMAT, Checkpoint, checkpoint_name, newest_checkpoint
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import Cause, diagnose
from lens_pipeline.training.folder import STOPPED_STATUS, TIMINGS, RunFolder, read_events
from lens_pipeline.training.metrics import auroc, log_losses
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.schedule import Schedule
from lens_pipeline.training.sealed import seal, unseal
from lens_pipeline.training.spec import RunSpec
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import QUICK, Sabotage, prepared, run_ranks


def _last(folder: RunFolder) -> Checkpoint:
    found, damaged = newest_checkpoint(folder.checkpoints, run=RunSpec.read(folder.specification).sha256())
    assert found is not None
    assert not damaged
    return found


def _history(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the record of the epochs without their wall time."""
    return [{k: v for k, v in row.items() if k not in TIMINGS} for row in _last(folder).progress.history]


def _ledgers(folder: RunFolder) -> list[bytes]:
    return [folder.ledger(rank).read_bytes() for rank in range(2)]


def _weights(folder: RunFolder) -> tuple[bytes, bytes]:
    return _last(folder).file("model").read_bytes(), _last(folder).file("optimizer").read_bytes()


def test_it_learns(finished: RunFolder) -> None:
    first, last = _history(finished)[0], _history(finished)[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_auroc"] > 0.8


def test_every_training_row_reached_the_model_once_an_epoch_and_the_ranks_split_each_step(
    finished: RunFolder, survey: Survey
) -> None:
    train = read_rows(survey[1], survey[0], TrainingConfig()).train
    blocks = [list(LedgerReader(finished.ledger(rank), n_rows=survey[0].attributes["n_stored"])) for rank in range(2)]
    for epoch in range(3):
        rows = np.concatenate([b.rows for rank in blocks for b in rank if b.epoch == epoch])
        assert np.array_equal(np.sort(rows), train)
    assert [len(b.rows) for b in blocks[0][:4]] == [16, 16, 16, 10]


@pytest.mark.parametrize(
    "settings",
    [
        {"world_size": 3, "batch_size": 48, "dropout": 0.3},
        {"micro_batch_size": 16, "batch_size": 64, "dropout": 0.3},
    ],
    ids=["three ranks", "micro-batches"],
)
def test_a_resumed_run_has_the_same_bits_whatever_it_is_made_of(
    survey: Survey, tmp_path: Path, settings: dict[str, Any]
) -> None:
    world = settings.get("world_size", 2)
    whole, killed = prepared(tmp_path / "whole", survey, **settings), prepared(tmp_path / "killed", survey, **settings)
    assert run_ranks(whole, world) == [0] * world
    run_ranks(killed, world, sabotage=Sabotage("kill", rank=world - 1, epoch=1, step=1))
    assert run_ranks(killed, world) == [0] * world
    for part in _last(whole).parts:
        assert _last(killed).file(part).read_bytes() == _last(whole).file(part).read_bytes(), part
    assert _history(killed) == _history(whole)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (1, 1), (2, 3)])
def test_ranks_that_are_asked_to_stop_leave_after_the_same_step_with_a_checkpoint_and_go_on_to_the_same_bits(
    finished: RunFolder, survey: Survey, run_path: Path, rank: int, epoch: int, step: int
) -> None:
    folder = prepared(run_path, survey, checkpoint_every_steps=100)
    codes = run_ranks(folder, sabotage=Sabotage("term", rank=rank, epoch=epoch, step=step))
    assert codes == [STOPPED_STATUS] * 2
    # The word may come too late for the boundary after this very step.
    soonest = 4 * epoch + step + 1
    assert _last(folder).name in (checkpoint_name(soonest), checkpoint_name(soonest + 1))
    assert read_events(folder.history)[-1]["event"] == "stopped"
    assert run_ranks(folder) == [0, 0]
    assert _last(folder).file("model").read_bytes() == _last(finished).file("model").read_bytes()
    assert _ledgers(folder) == _ledgers(finished)


def test_an_epoch_whose_word_a_kill_swallowed_is_told_by_the_run_that_goes_on(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    lines = folder.history.read_text().splitlines(keepends=True)
    folder.history.write_text("".join(line for line in lines if json.loads(line)["event"] != "epoch"))
    assert run_ranks(folder) == [0, 0]
    assert {event["epoch"] for event in read_events(folder.history) if event["event"] == "epoch"} == {0, 1, 2}


def test_the_moving_average_is_what_is_validated_and_published(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey, ema_decay=0.9)
    assert run_ranks(folder) == [0, 0]
    last = _last(folder)
    assert last.published_file == last.file("average")
    average, model = load_file(last.file("average")), load_file(last.file("model"))
    assert average.keys() == model.keys()
    assert any(not np.array_equal(average[name], model[name]) for name in model)


def test_gradients_summed_over_micro_batches_are_those_of_the_whole_step(larger_survey: Survey, tmp_path: Path) -> None:
    norms = []
    for micro in (0, 5, 8):
        settings = {"model": "test_convnext", "epochs": 1, "world_size": 1, "micro_batch_size": micro}
        folder = prepared(tmp_path / str(micro), larger_survey, **settings)
        assert run_ranks(folder, 1) == [0]
        norms.append([event["gradient_norm"] for event in read_events(folder.history) if event["event"] == "step"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert norms[2] == pytest.approx(norms[0], rel=1e-5)


def test_a_checkpoint_that_the_disk_refuses_stops_the_run_and_the_one_before_stands(
    finished: RunFolder, survey: Survey, run_path: Path
) -> None:
    folder = prepared(run_path, survey)
    assert 0 not in run_ranks(folder, sabotage=Sabotage("full", rank=0, epoch=1, step=1))
    said = (folder.attempt(1) / "failure-rank-0.json").read_text()
    assert "could not be written" in said
    assert "No space left on device" in said
    assert "step-000000004 stands" in said
    assert _last(folder).name == "step-000000004"
    assert run_ranks(folder) == [0, 0]
    assert _weights(folder) == _weights(finished)


def test_the_short_last_step_of_an_epoch_moves_no_batch_statistics(finished: RunFolder) -> None:
    # 116 rows in steps of 32: three full ones, and one of 10 rows a rank, too few to estimate a mean and a variance from.
    counts = [t for name, t in load_file(_last(finished).file("model")).items() if name.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 9 for count in counts)


def test_another_number_of_ranks_than_the_configuration_says_is_refused(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    assert run_ranks(folder, 1) == [1]
    assert "--nproc-per-node=2" in (folder.attempt(1) / "failure-rank-0.json").read_text()


def test_a_checkpoint_of_another_preprocessing_than_this_package_fits_is_not_resumed(
    survey: Survey, run_path: Path
) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    path = _last(folder).folder / f"{_last(folder).name}.json"
    content = unseal(path.read_bytes(), format=FORMAT)
    content["about"]["preprocessing"]["softening"] = 2.0
    path.write_bytes(seal(content))
    assert 0 not in run_ranks(folder)
    assert "made with another preprocessing" in (folder.attempt(2) / "failure-rank-0.json").read_text()


def test_a_checkpoint_of_another_order_of_rows_is_not_resumed(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    path = _last(folder).folder / f"{_last(folder).name}.json"
    content = unseal(path.read_bytes(), format=FORMAT)
    content["progress"]["sampler"]["global_batch"] = 64
    path.write_bytes(seal(content))
    assert 0 not in run_ranks(folder)
    assert "global_batch differ from this run" in (folder.attempt(2) / "failure-rank-0.json").read_text()


def test_a_run_whose_ledger_lacks_steps_that_its_checkpoint_counts_on_is_not_resumed(
    survey: Survey, run_path: Path
) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    folder.ledger(1).write_bytes(folder.ledger(1).read_bytes()[:100])
    assert 0 not in run_ranks(folder)
    said = (folder.attempt(2) / "failure-rank-1.json").read_text()
    assert "records 1 steps and the checkpoint counts on 4" in said


def test_a_run_that_lost_its_newest_checkpoint_goes_on_from_the_one_before(
    finished: RunFolder, survey: Survey, run_path: Path
) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=3))
    newest = _last(folder)
    newest.file("model").write_bytes(newest.file("model").read_bytes()[:-1])
    assert run_ranks(folder) == [0, 0]
    assert _weights(folder) == _weights(finished)
    assert _ledgers(folder) == _ledgers(finished)
    started = [json.loads(line) for line in folder.history.read_text().splitlines() if "run_started" in line]
    assert newest.name in started[-1]["damaged_checkpoints"][0]


@pytest.mark.parametrize("reader", ["pread", "memory"])
def test_how_the_store_is_read_moves_no_bit_and_is_told(
    finished: RunFolder, survey: Survey, run_path: Path, reader: str
) -> None:
    folder = prepared(run_path, survey, reader=reader)
    assert run_ranks(folder) == [0, 0]
    assert _history(folder) == _history(finished)
    assert load_file(_last(folder).file("model")).keys() == load_file(_last(finished).file("model")).keys()
    for name, tensor in load_file(_last(folder).file("model")).items():
        assert np.array_equal(tensor, load_file(_last(finished).file("model"))[name]), name
    for run, used in ((folder, reader), (finished, "mapped")):
        started = [event for event in read_events(run.history) if event["event"] == "run_started"]
        assert started[0]["reader"] == used
        assert started[0]["reader_why"].startswith(used)


@pytest.mark.parametrize(
    ("world", "batch_size"), [(2, 32), (3, 57)], ids=["short last step", "last step with nothing for the third rank"]
)
def test_several_ranks_and_one_rank_take_the_same_steps(
    larger_survey: Survey, tmp_path: Path, world: int, batch_size: int
) -> None:
    # Without batch normalisation the mean gradient over a step is the same however its rows are shared.
    weights, records = [], []
    for size in (1, world):
        folder = prepared(
            tmp_path / str(size), larger_survey, model="test_convnext", epochs=1, world_size=size, batch_size=batch_size
        )
        assert run_ranks(folder, size) == [0] * size
        weights.append(load_file(_last(folder).file("model")))
        records.append(_history(folder)[0])
    for name, one in weights[0].items():
        assert np.allclose(one, weights[1][name], rtol=1e-3, atol=2e-5), name
    # AdamW forgives a wrong scale of the gradient; its norm doesn't.
    for figure in ("gradient_norm", "train_loss", "val_loss"):
        assert records[1][figure] == pytest.approx(records[0][figure], rel=1e-3), figure


def test_training_stops_exactly_patience_epochs_after_the_best(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey, epochs=9, patience=2, min_delta=10.0, learning_rate=1e-5)
    assert run_ranks(folder) == [0, 0]
    progress = _last(folder).progress
    assert [row["epoch"] for row in progress.history] == [0, 1, 2]
    assert (progress.best_epoch, progress.ended) == (0, "patience ran out")
    # The best checkpoint is still there, beside the last two.
    assert (folder.checkpoints / f"{progress.best_checkpoint}.json").exists()


def test_validation_is_on_every_row_and_its_metrics_can_be_computed_again_from_the_logits(
    finished: RunFolder, survey: Survey
) -> None:
    rows = read_rows(survey[1], survey[0], TrainingConfig())
    labels = rows.labels[rows.validation]
    for record in _history(finished):
        table = read_parquet(finished.validation(record["epoch"]))
        assert table["logical"].to_pylist() == rows.validation.tolist()
        logits = table["logit_0"].to_numpy().astype(np.float64)
        assert record["val_loss"] == log_losses(logits[:, None], labels).mean()
        assert record["val_auroc"] == auroc(logits, labels > 0)


def test_the_learning_rate_of_every_step_is_the_closed_form_also_after_a_resume(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    assert run_ranks(folder) == [0, 0]
    events = [json.loads(line) for line in folder.history.read_text().splitlines()]
    steps = {(e["epoch"], e["step"]): e["learning_rate"] for e in events if e["event"] == "step"}
    schedule = Schedule(TrainingConfig.model_validate(QUICK), steps_per_epoch=4)
    assert sorted(steps) == [(epoch, step) for epoch in range(3) for step in range(1, 5)]
    for (epoch, step), rate in steps.items():
        assert rate == schedule.rate(epoch, step - 1)


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_rank_step_rows_and_cause(
    survey: Survey, run_path: Path
) -> None:
    folder = prepared(run_path, survey)
    codes = run_ranks(folder, sabotage=Sabotage("nan", rank=1, epoch=0, step=2))
    assert 0 not in codes
    attempt = folder.attempt(1)
    found = diagnose(attempt, attempt / "torchrun.log", "", 1)
    assert found.cause is Cause.refused
    assert "failed in epoch 0, step 2" in found.said
    assert "TrainingError" in found.said
    assert "Lower learning_rate" in found.said
    assert "rank-1" in "".join(path.name for path in attempt.glob("failure-*"))
    assert "the loss on rank 1 is nan" in (attempt / "failure-rank-1.json").read_text()
    assert not list(folder.checkpoints.glob("*"))


def test_settings_that_only_say_how_to_run_change_no_bit(survey: Survey, plain: bytes, tmp_path: Path) -> None:
    how = {
        "loader_threads": 3,
        "checkpoint_every_steps": 1,
        "report_every_steps": 7,
        "validation_batch_size": 5,
        "checkpoints_kept": 5,
    }
    assert _one_epoch(tmp_path, survey, how) == plain


@pytest.fixture(scope="module")
def plain(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights after one epoch with the settings that the others differ from."""
    return _one_epoch(tmp_path_factory.mktemp("plain"), survey, {})


def _one_epoch(path: Path, survey: Survey, change: dict[str, Any]) -> bytes:
    folder = prepared(path / "run", survey, **{"world_size": 1, "epochs": 1, **change})
    assert run_ranks(folder, 1) == [0]
    return _last(folder).published_file.read_bytes()
