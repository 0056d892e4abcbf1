"""Two real ranks on gloo, forked instead of started by torchrun; test_run.py has the same through torchrun."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from lens_pipeline.stamps.ledger import LedgerReader
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.training.checkpoint import Checkpoint, newest_checkpoint
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import explain
from lens_pipeline.training.folder import RunFolder, read_events
from lens_pipeline.training.metrics import auroc, negative_log_likelihood
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.schedule import Schedule
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
    return [{k: v for k, v in row.items() if k != "seconds"} for row in _last(folder).progress.history]


def _ledgers(folder: RunFolder) -> list[bytes]:
    return [folder.ledger(rank).read_bytes() for rank in range(2)]


def _weights(folder: RunFolder) -> tuple[bytes, bytes]:
    return _last(folder).model_file.read_bytes(), _last(folder).optimizer_file.read_bytes()


def test_it_learns(finished: RunFolder) -> None:
    first, last = _history(finished)[0], _history(finished)[-1]
    assert last["train_loss"] < first["train_loss"]
    assert last["val_auroc"] > 0.8


def test_every_training_row_reached_the_model_once_an_epoch_and_the_ranks_split_each_step(
    finished: RunFolder, survey: Survey
) -> None:
    train = read_rows(survey[1], survey[0]).train
    blocks = [list(LedgerReader(finished.ledger(rank), n_rows=survey[0].attributes["n_stored"])) for rank in range(2)]
    for epoch in range(3):
        rows = np.concatenate([b.rows for rank in blocks for b in rank if b.epoch == epoch])
        assert np.array_equal(np.sort(rows), train)
    assert [len(b.rows) for b in blocks[0][:4]] == [16, 16, 16, 10]


@pytest.mark.parametrize(("epoch", "step"), [(0, 1), (1, 3), (2, 0)])
def test_a_run_killed_in_the_middle_ends_with_the_same_bits_as_one_that_was_left_alone(
    finished: RunFolder, survey: Survey, run_path: Path, epoch: int, step: int
) -> None:
    folder = prepared(run_path, survey)
    codes = run_ranks(folder, sabotage=Sabotage("kill", rank=1, epoch=epoch, step=step))
    assert codes[1] == -9
    assert run_ranks(folder) == [0, 0]
    assert _weights(folder) == _weights(finished)
    assert _history(folder) == _history(finished)
    assert _ledgers(folder) == _ledgers(finished)
    assert [read_parquet(folder.validation(e)) for e in range(3)] == [
        read_parquet(finished.validation(e)) for e in range(3)
    ]


def test_the_short_last_step_of_an_epoch_moves_no_batch_statistics(finished: RunFolder) -> None:
    # 116 rows in steps of 32: three full ones, and one of 10 rows a rank, too few to estimate a mean and a variance from.
    counts = [t for name, t in load_file(_last(finished).model_file).items() if name.endswith("num_batches_tracked")]
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
    content = json.loads(path.read_text())
    content["about"]["preprocessing"]["softening"] = 2.0
    path.write_text(json.dumps(content))
    assert 0 not in run_ranks(folder)
    assert "made with another preprocessing" in (folder.attempt(2) / "failure-rank-0.json").read_text()


def test_a_checkpoint_of_another_order_of_rows_is_not_resumed(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    path = _last(folder).folder / f"{_last(folder).name}.json"
    content = json.loads(path.read_text())
    content["progress"]["sampler"]["global_batch"] = 64
    path.write_text(json.dumps(content))
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
    newest.model_file.write_bytes(newest.model_file.read_bytes()[:-1])
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
    assert load_file(_last(folder).model_file).keys() == load_file(_last(finished).model_file).keys()
    for name, tensor in load_file(_last(folder).model_file).items():
        assert np.array_equal(tensor, load_file(_last(finished).model_file)[name]), name
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
        weights.append(load_file(_last(folder).model_file))
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
    rows = read_rows(survey[1], survey[0])
    labels = rows.labels[rows.validation]
    for record in _history(finished):
        table = read_parquet(finished.validation(record["epoch"]))
        assert table["logical"].to_pylist() == rows.validation.tolist()
        logits = table["logit_0"].to_numpy().astype(np.float64)
        assert record["val_loss"] == negative_log_likelihood(logits[:, None], labels)
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
    said = explain(attempt, attempt / "torchrun.log", "", 1)
    assert "failed in epoch 0, step 2" in said
    assert "TrainingError" in said
    assert "Lower learning_rate" in said
    assert "rank-1" in "".join(path.name for path in attempt.glob("failure-*"))
    assert "the loss on rank 1 is nan" in (attempt / "failure-rank-1.json").read_text()
    assert not list(folder.checkpoints.glob("*"))


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"seed": 2},
        {"weight_decay": 0.5},
        {"clip_norm": 0.01},
        {"label_smoothing": 0.2},
        {"softening": 5.0},
        {"preprocessing": "robust_clip_v1"},
        {"warmup_epochs": 0.0},
        {"dropout": 0.5},
        {"order": "repeated", "order_weights": {"lens": 1.5}},
        {"order": "paired"},
    ],
    ids=lambda change: f"{next(iter(change))}-{next(iter(change.values()))}",
)
def test_every_numeric_setting_changes_what_is_learned(
    survey: Survey, plain: bytes, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert _one_epoch(tmp_path, survey, change) != plain


def test_settings_that_only_say_how_to_run_change_no_bit(survey: Survey, plain: bytes, tmp_path: Path) -> None:
    how = {"loader_threads": 3, "checkpoint_every_steps": 1, "report_every_steps": 7, "validation_batch_size": 5}
    assert _one_epoch(tmp_path, survey, how) == plain


@pytest.fixture(scope="module")
def plain(survey: Survey, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Weights after one epoch with the settings that the others differ from."""
    return _one_epoch(tmp_path_factory.mktemp("plain"), survey, {})


def _one_epoch(path: Path, survey: Survey, change: dict[str, Any]) -> bytes:
    folder = prepared(path / "run", survey, **{"world_size": 1, "epochs": 1, **change})
    assert run_ranks(folder, 1) == [0]
    return _last(folder).model_file.read_bytes()
