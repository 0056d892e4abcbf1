"""The same training through the real torchrun, as the asset starts it."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from lens_pipeline.contracts.catalogue import HISTORY
from lens_pipeline.contracts.errors import ConfigError, SplitError, TrainingError
from lens_pipeline.stamps.ledger import Ledger
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training import checks
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.failures import TrainingCancelledError
from lens_pipeline.training.finding import Found, find_run
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.history import is_held
from lens_pipeline.training.order import sampler_for
from lens_pipeline.training.rows import read_rows
from lens_pipeline.training.run import collect, launch, prepare_run
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.supervisor import Supervisor
from lens_pipeline_tests.training.conftest import Survey
from lens_pipeline_tests.training.making import (
    CONTRACT,
    QUICK,
    SHARES,
    Sabotage,
    prepared,
    publish_splits,
    run_ranks,
    small_survey,
)


def _processes_of(folder: RunFolder) -> list[int]:
    """Every living process, torchrun and ranks, that names the run's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder.specification) in command and "lens_pipeline.training" in command and state != "Z":
                found.append(int(entry.name))
    return found


def _gone_within(folder: RunFolder, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while _processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _processes_of(folder)


def _ranks_of(folder: RunFolder) -> list[int]:
    """Ranks by their number: their parent is torchrun, and each has RANK in its environment."""
    found = {}
    for pid in _processes_of(folder):
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
        environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        if "LOCAL_RANK" in environment:
            found[int(environment["RANK"])] = pid
    return [found[rank] for rank in sorted(found)]


def _listening_beyond_loopback(pids: list[int]) -> list[str]:
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(descriptor)
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table, loopback in (("tcp", "0100007F"), ("tcp6", "00000000000000000000000001000000")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, state, inode = fields[1].split(":")[0], fields[3], fields[9]
            if state == "0A" and inode in inodes and address != loopback:
                found.append(fields[1])
    return found


def test_torchrun_trains_resumes_after_a_kill_and_is_collected_into_a_version(
    survey: Survey, run_path: Path, tmp_path: Path
) -> None:
    longer = {"epochs": 12, "patience": 12}
    folder = prepared(run_path, survey, **longer)
    listening: list[str] = []
    killed: list[int] = []

    def kill_one_rank(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["epoch"] == 1 and not killed:
            listening.extend(_listening_beyond_loopback(_processes_of(folder)))
            killed.append(_ranks_of(folder)[1])
            os.kill(killed[0], signal.SIGKILL)

    events: list[dict[str, Any]] = []
    summary = launch(run_path, lambda event: (events.append(event), kill_one_rank(event)))
    assert listening == []
    assert _gone_within(folder, 0)
    assert (summary.epochs, summary.was_complete, summary.ended) == (12, False, "all epochs were trained")
    (restart,) = [event for event in events if event["event"] == "restart"]
    assert restart["why"].startswith("rank 1 was killed by signal 9 after epoch 1, step ")
    assert "stderr.log" in restart["why"]
    first, second = [event for event in events if event["event"] == "run_started"]
    assert first["resumed_from"] is None
    assert second["resumed_from"]
    assert second["reader_why"].startswith("mapped: the rows take ")
    assert events[-1]["event"] == "finished"
    assert launch(run_path).was_complete

    made = _collect(folder, survey)
    undisturbed = prepared(tmp_path / "undisturbed", survey, **longer)
    assert run_ranks(undisturbed) == [0, 0]
    assert _bits(made) == _bits(_collect(undisturbed, survey))
    HISTORY.validate(made.read_table(), where="the test")
    for check in (checks.no_duplicated_fragments, checks.validation_is_whole):
        assert check(made, survey[0], survey[1]).passed


def test_a_launcher_that_is_killed_leaves_no_process_behind(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey, epochs=500, patience=500)
    code = f"from pathlib import Path; from lens_pipeline.training.run import launch; launch(Path({str(run_path)!r}))"
    launcher = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: len(_ranks_of(folder)) == 2, 120)
    finally:
        launcher.kill()
        launcher.wait()
    assert _gone_within(folder, 10)


def test_a_cancelled_run_is_gone_within_ten_seconds_and_says_that_it_can_go_on(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey, epochs=500, patience=500)
    cancelled_at: list[float] = []

    def cancelled() -> bool:
        if not cancelled_at and len(_ranks_of(folder)) == 2:
            cancelled_at.append(time.monotonic())
        return bool(cancelled_at)

    with pytest.raises(TrainingCancelledError, match="materialize lens_classifier again to go on"):
        launch(run_path, cancelled=cancelled)
    assert _gone_within(folder, 10 - (time.monotonic() - cancelled_at[0]))


def test_a_second_launcher_in_the_same_folder_is_refused(survey: Survey, run_path: Path) -> None:
    import fcntl

    folder = prepared(run_path, survey)
    before = folder.specification.read_bytes()
    with open(folder.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another process is training"):
            launch(run_path)
        # Nor does it change what the other one is training, though these settings are no others.
        with pytest.raises(TrainingError, match="another process is training"):
            prepared(run_path, survey, world_size=1, checkpoints_kept=9)
    assert folder.specification.read_bytes() == before


def test_a_launcher_may_prepare_launch_and_collect_in_the_folder_that_it_occupies(
    survey: Survey, run_path: Path, tmp_path: Path
) -> None:
    run_path.mkdir(parents=True)
    folder = RunFolder(run_path)
    with folder.occupied():
        prepared(run_path, survey)
        with ThreadPoolExecutor(1) as pool, pytest.raises(TrainingError, match="another process is training"):
            pool.submit(prepared, run_path, survey).result()
        assert is_held(folder.lock)
    assert not is_held(folder.lock)


def test_a_run_whose_own_account_is_gone_is_collected_all_the_same(
    survey: Survey, finished: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    for content, reader in ((b"no event\n{}\n", "not known"), (None, "not known")):
        (tmp_path / "run" / "history.jsonl").unlink()
        if content is not None:
            (tmp_path / "run" / "history.jsonl").write_bytes(content)
        with Home(tmp_path / "home").stage("tried", "lens_classifier") as staging:
            assert collect(tmp_path / "run", staging).reader.startswith(reader)


def test_a_disk_that_is_full_under_the_launcher_is_told_with_the_checkpoint_that_stands(
    survey: Survey, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(run_path, survey)

    def interrupted(*_: object, error: int) -> None:
        run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Supervisor, "run", partialmethod(interrupted, error=errno.ENOSPC))
    with pytest.raises(TrainingError, match=r"No space left on device\. Checkpoint step-000000004 stands\. Make room"):
        launch(run_path)
    monkeypatch.setattr(Supervisor, "run", partialmethod(interrupted, error=errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        launch(run_path)


def test_a_run_that_has_not_ended_cannot_be_published(survey: Survey, run_path: Path, tmp_path: Path) -> None:
    folder = prepared(run_path, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=1))
    with (
        Home(tmp_path).stage("tried", "lens_classifier") as staging,
        pytest.raises(TrainingError, match=r"has not ended: it stands at epoch (1, step 0|0, step 4)"),
    ):
        collect(run_path, staging)


@pytest.mark.parametrize("absent", ["val_select", "train"])
@pytest.mark.parametrize("label", [0, 1])
def test_a_split_without_one_of_the_classes_is_refused_before_any_work(
    survey: Survey, tmp_path: Path, absent: str, label: int
) -> None:
    class_name = ("control", "lens")[label]
    splits = _without(survey, tmp_path, absent, label)
    with pytest.raises(TrainingError, match=f"{absent} has no row of class {class_name}"):
        prepare_run(TrainingConfig.model_validate(QUICK), survey[0], splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_fewer_rows_than_one_step_takes_are_refused(survey: Survey, run_path: Path) -> None:
    with pytest.raises(TrainingError, match="train has 116 rows, fewer than one step takes"):
        prepared(run_path, survey, batch_size=128)


def test_cuda_on_a_machine_without_a_gpu_is_refused_before_any_work(
    survey: Survey, run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"2 process.* want a GPU each, but this machine offers 0"):
        prepared(run_path, survey, device="cuda")
    assert not run_path.exists()


def test_splits_of_another_store_are_refused(survey: Survey, tmp_path: Path) -> None:
    _, others = small_survey(Home(tmp_path / "other"), n_galaxies=90)
    with pytest.raises(SplitError, match="was made for stamp_store"):
        prepare_run(TrainingConfig.model_validate(QUICK), survey[0], others, tmp_path / "run")


def test_a_folder_that_holds_another_run_is_not_resumed_and_the_difference_is_named(
    survey: Survey, run_path: Path
) -> None:
    prepared(run_path, survey)
    with pytest.raises(TrainingError, match=r"seed 1 -> 5; learning_rate 0\.002 -> 0\.004"):
        prepared(run_path, survey, learning_rate=4e-3, seed=5)


def test_a_run_that_is_watched_otherwise_is_the_same_run(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    before = RunSpec.read(folder.specification).sha256()
    prepared(run_path, survey, hang_seconds=7, attempts=9)
    after = RunSpec.read(folder.specification)
    assert (after.sha256(), after.config.hang_seconds) == (before, 7)


def test_a_run_specification_that_was_changed_by_hand_is_refused(survey: Survey, run_path: Path) -> None:
    folder = prepared(run_path, survey)
    written = json.loads(folder.specification.read_text())
    changed = [written | {"class_counts": [1, 1]}, written | {"config": {**written["config"], "learning_rate": 0.1}}]
    for content in changed:
        folder.specification.write_text(json.dumps(content))
        with pytest.raises(TrainingError, match="changed after it was written"):
            RunSpec.read(folder.specification)


def test_a_row_that_a_rank_read_twice_turns_the_ledger_check_red(
    survey: Survey, finished: RunFolder, tmp_path: Path
) -> None:
    copied = RunFolder(tmp_path / "copied")
    shutil.copytree(finished.path, copied.path)
    ledger = Ledger(copied.ledger(0), n_rows=survey[0].attributes["n_stored"])
    ledger.append(2, 4, _train_rows(survey)[:1])
    ledger.close()
    check = checks.no_duplicated_fragments(_collect(copied, survey), survey[0], survey[1])
    assert not check.passed
    assert "came 2 times in epoch 2" in check.first[0]


@pytest.mark.parametrize(
    ("settings", "claim", "n_fed"),
    [
        ({"order": "repeated", "order_weights": {"lens": 2.5, "control": 0.5}}, "as often as its weight gives it", 174),
        ({"order": "repeated", "order_weights": {"lens/SIE/theta_e 0.75-1.25": 2}}, "its weight gives it", 174),
        ({"order": "with_replacement", "order_weights": {"lens": 3}}, "as often as it was drawn", 116),
        ({"order": "paired"}, "exactly once", 116),
    ],
    ids=["classes", "stratum", "with_replacement", "paired"],
)
def test_every_order_is_trained_in_and_proven_from_its_ledgers(
    survey: Survey, run_path: Path, settings: dict[str, Any], claim: str, n_fed: int
) -> None:
    folder = prepared(run_path, survey, epochs=1, **settings)
    assert run_ranks(folder) == [0, 0]
    made = _collect(folder, survey)
    check = checks.no_duplicated_fragments(made, *survey)
    assert check.passed, check.message()
    assert claim in check.what
    assert check.figures["rows_read"] == n_fed
    assert made.read_table()["train_rows"].to_pylist() == [n_fed]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"order_weights": {"lense": 2}},
            r"order_weights names lense, which no row belongs to. Classes: control, lens",
        ),
        (
            {"order_weights": {"control": 0.01, "lens": 0.2}},
            "an epoch in the order repeated takes 13: fewer than one step",
        ),
    ],
    ids=["unknown name", "epoch too short"],
)
def test_an_order_that_these_rows_cannot_have_is_refused_before_any_work(
    survey: Survey, run_path: Path, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(TrainingError, match=said):
        prepared(run_path, survey, order="repeated", **settings)
    assert not run_path.exists()


@pytest.mark.parametrize("weights", [{"lense": 2}, {"lens/SIE/theta_e 9-10": 2, "lens": 3}])
def test_a_weight_of_nobody_is_refused_before_the_store_is_re_read(
    survey: Survey, run_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, float]
) -> None:
    monkeypatch.delattr("lens_pipeline.stamps.store.refuse_damaged")
    with pytest.raises(TrainingError, match="which no row belongs to"):
        prepared(run_path, survey, order="repeated", order_weights=weights)


def test_a_weight_of_a_stratum_without_training_rows_is_refused(survey: Survey, tmp_path: Path) -> None:
    [stratum] = {name for name in survey[0].read_table(None, ["stratum"])["stratum"].to_pylist() if "lens" in name}
    lonely = _without(survey, tmp_path, "train", 1)
    config = TrainingConfig.model_validate({**QUICK, "order": "repeated", "order_weights": {stratum: 2}})
    with pytest.raises(TrainingError, match=f"order_weights names {stratum}, which no training row belongs to"):
        sampler_for(config, CONTRACT, read_rows(lonely, survey[0], TrainingConfig()), survey[0])


def test_the_paired_order_needs_pairs(survey: Survey, tmp_path: Path) -> None:
    lonely = _without(survey, tmp_path, "train", 0)
    rows = read_rows(lonely, survey[0], TrainingConfig())
    config = TrainingConfig.model_validate({**QUICK, "order": "paired"})
    with pytest.raises(TrainingError, match="no injection of the 29 training rows has its control among them"):
        sampler_for(config, CONTRACT, rows, survey[0])


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_ranks_in_the_same_order_and_says_so(
    survey: Survey, run_path: Path, first: int, then: int
) -> None:
    folder = prepared(run_path, survey, world_size=first)
    run_ranks(folder, first, sabotage=Sabotage("kill", rank=0, epoch=1, step=3))
    folder = prepared(run_path, survey, world_size=then)
    assert run_ranks(folder, then) == [0] * then
    made = _collect(folder, survey)
    check = checks.no_duplicated_fragments(made, *survey)
    assert check.passed, check.message()
    assert check.figures["rows_read"] == 3 * 116
    assert made.attributes["world_sizes"] == [first, then]
    assert made.attributes["config"]["world_size"] == then
    # The sums of the epoch that both had a part in are of all its rows.
    assert made.read_table()["train_rows"].to_pylist() == [116, 116, 116]
    with pytest.raises(TrainingError, match=f"has ended, with world_size {then}, not {first}"):
        prepared(run_path, survey, world_size=first)


def _spec(survey: Survey, **settings: Any) -> RunSpec:
    return RunSpec.of(TrainingConfig.model_validate({**QUICK, **settings}), *survey)


def test_a_killed_run_is_found_again_whatever_it_is_fed_watched_or_kept_with(survey: Survey, tmp_path: Path) -> None:
    spec = _spec(survey)
    folder = prepared(tmp_path / spec.name, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=3))
    otherwise = {"report_every_steps": 2, "checkpoints_kept": 5, "checkpoint_every_steps": 2, "loader_threads": 1}
    assert find_run(tmp_path, _spec(survey, **otherwise)) == Found(folder.path)
    assert run_ranks(prepared(folder.path, survey, **otherwise)) == [0, 0]

    again = find_run(tmp_path, _spec(survey, learning_rate=0.5))
    assert (again.folder.name, again.words) == (_spec(survey, learning_rate=0.5).name, None)


def test_an_unfinished_run_goes_on_with_other_ranks_and_one_with_other_settings_is_named_and_left(
    survey: Survey, tmp_path: Path
) -> None:
    folder = prepared(tmp_path / _spec(survey).name, survey)
    run_ranks(folder, sabotage=Sabotage("kill", rank=0, epoch=1, step=3))
    alone = find_run(tmp_path, _spec(survey, world_size=1))
    assert alone.folder == folder.path
    assert alone.words is not None
    assert "stands at epoch 1, step " in alone.words
    assert "world_size 2 -> 1" in alone.words
    other = _spec(survey, learning_rate=0.5, world_size=1)
    found = find_run(tmp_path, other)
    assert found.folder == tmp_path / other.name
    assert found.words is not None
    assert "this training is another: learning_rate" in found.words
    assert str(folder.path) in found.words


def test_ledgers_are_taken_in_the_order_of_their_ranks() -> None:
    names = [f"ledger-rank-{rank}.ledger" for rank in range(12)]
    assert checks.ledger_names([*sorted(names), "model.json"]) == names


def test_a_validation_that_left_a_row_out_turns_its_check_red(
    survey: Survey, finished: RunFolder, tmp_path: Path
) -> None:
    made = _collect(finished, survey)
    logits = made.read_table("validation_logits")
    with Home(tmp_path).stage("tried", "lens_classifier") as staging:
        staging.attributes.update(made.attributes)
        staging.write_table("validation_logits", pa.concat_tables([logits.slice(0, 7), logits.slice(8)]))
        check = checks.validation_is_whole(staging.commit(), survey[0], survey[1])
    assert not check.passed
    assert check.count == 1
    assert f"{logits['task_id'][7]} came 0 times in epoch 0" in check.first[0]


def test_rows_are_held_in_few_bytes(survey: Survey) -> None:
    rows = read_rows(survey[1], survey[0], TrainingConfig())
    assert (rows.train.itemsize, rows.labels.itemsize) == (4, 1)
    assert rows.labels.tolist() == survey[0].read_table(None, ["label"])["label"].to_pylist()
    table = survey[1].read_table("rows").sort_by("logical")
    for found, split in ((rows.train, "train"), (rows.validation, "val_select")):
        wanted = table.filter(pc.equal(table["split"], split))["logical"].to_pylist()
        assert found.tolist() == wanted


def test_splits_that_name_a_row_twice_or_none_are_refused(survey: Survey, tmp_path: Path) -> None:
    rows = survey[1].read_table("rows")
    with Home(tmp_path).stage("tried", "region_splits", inputs=[survey[0]]) as staging:
        staging.write_table("rows", pa.concat_tables([rows.slice(1), rows.slice(1, 1)]))
        twice = staging.commit()
    with pytest.raises(SplitError, match="gives 1 of 232 rows no split, first logical numbers: 0"):
        read_rows(twice, survey[0], TrainingConfig())


def test_validation_logits_under_other_keys_are_named(survey: Survey, finished: RunFolder, tmp_path: Path) -> None:
    made = _collect(finished, survey)
    logits = made.read_table("validation_logits")
    keys = logits["task_id"].to_pylist()
    place = logits.column_names.index("task_id")
    turned = [keys[1], keys[0], *keys[2:-1], "stranger"]
    with Home(tmp_path).stage("tried", "lens_classifier") as staging:
        staging.attributes.update(made.attributes)
        staging.write_table("validation_logits", logits.set_column(place, "task_id", pa.array(turned)))
        check = checks.validation_is_whole(staging.commit(), survey[0], survey[1])
    first, second, last = (logits["logical"][row] for row in (0, 1, -1))
    assert (check.passed, check.count) == (False, 3)
    assert check.first == (
        f"row {first} is called {keys[1]}, the store calls it {keys[0]}",
        f"row {second} is called {keys[0]}, the store calls it {keys[1]}",
        f"row {last} is called stranger, the store calls it {keys[-1]}",
    )


def test_a_whole_validation_is_proven_without_a_python_object_for_each_key(tmp_path: Path) -> None:
    n, home = 100_000, Home(tmp_path)
    keys, numbers = [f"t{row}" for row in range(n)], np.arange(n)
    split = np.where(numbers % 2, "train", "val_select")
    with home.stage("tried", "stamp_store") as staging:
        staging.write_table(None, pa.table({"task_id": keys, "label": np.zeros(n, np.int8)}))
        store = staging.commit()
    with home.stage("tried", "region_splits", inputs=[store]) as staging:
        rows = {"task_id": keys, "logical": numbers, "split": split, "label": np.zeros(n, np.int8)}
        staging.write_table("rows", pa.table(rows))
        splits = staging.commit()
    with home.stage("tried", "lens_classifier") as staging:
        staging.attributes.update(epochs=1, config=TrainingConfig().model_dump(mode="json"))
        judged = {"epoch": np.zeros(n // 2, np.int64), "logical": numbers[::2], "task_id": keys[::2]}
        staging.write_table("validation_logits", pa.table(judged))
        classifier = staging.commit()
    tracemalloc.start()
    assert checks.validation_is_whole(classifier, store, splits).passed
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * n


def _collect(folder: RunFolder, survey: Survey) -> Publication:
    home = Home(folder.path / "published")
    with home.stage("tried", "lens_classifier", inputs=list(survey)) as staging:
        collect(folder.path, staging)
        return staging.commit()


def _bits(made: Publication) -> dict[str, str]:
    """Hash of every published file but the history, which holds wall times."""
    return {name: entry.sha256 for name, entry in made.manifest.files.items() if name != "lens_classifier.parquet"}


def _train_rows(survey: Survey) -> Any:
    return read_rows(survey[1], survey[0], TrainingConfig()).train


def _without(survey: Survey, path: Path, split: str, label: int) -> Publication:
    index = survey[0].read_table(None, ["task_id", "label"])
    labels = dict(zip(index["task_id"].to_pylist(), index["label"].to_pylist(), strict=True))
    published = publish_splits(Home(path / "lacking"), survey[0], lambda row: list(SHARES)[row // 2 % 4])
    rows = published.read_table("rows")
    moved = [
        "test" if name == split and labels[key] == label else name
        for key, name in zip(rows["task_id"].to_pylist(), rows["split"].to_pylist(), strict=True)
    ]
    with Home(path / "lacking").stage("tried", "region_splits", inputs=[survey[0]]) as staging:
        staging.write_table("rows", rows.set_column(rows.column_names.index("split"), "split", pa.array(moved)))
        return staging.commit()


def _wait_for(condition: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
