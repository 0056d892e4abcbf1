"""Checkpoints: whole and as they were written, or passed over and named."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.training import checkpoint
from lens_pipeline.training.checkpoint import (
    Progress,
    checkpoint_name,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from lens_pipeline.training.sealed import seal, unseal

START = Progress()


def _write(folder: Path, step: int, progress: Progress = START, **changes: Any) -> str:
    name = checkpoint_name(step)
    parts = {"model": b"m%d" % step, "optimizer": b"o%d" % step}
    content = {"run": "r", "about": {"a": 1}, "parts": parts, "kept": 2, **changes}
    write_checkpoint(folder, name, progress=progress, **content)
    return name


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def test_progress_comes_back_as_it_was_written_to_the_last_bit(tmp_path: Path) -> None:
    progress = Progress(
        3, 7, 1, 0.1 + 0.2, 2, "step-000000001", [{"epoch": 0, "train_loss": 1 / 3}], [[1 / 7, 2.0]], None
    )
    name = _write(tmp_path, 5, progress)
    assert read_checkpoint(tmp_path, name, run="r").progress == progress


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        _write(tmp_path, step, Progress(best_checkpoint=checkpoint_name(2)))
    assert _names(tmp_path) == [checkpoint_name(2), checkpoint_name(5), checkpoint_name(6)]
    assert len(list(tmp_path.iterdir())) == 9


def test_nothing_is_removed_before_the_newer_one_was_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        _write(tmp_path, step)
    write = checkpoint.write_atomically
    monkeypatch.setattr(checkpoint, "write_atomically", lambda path, content: write(path, content[:-1] + b"?"))
    with pytest.raises(TrainingError, match="not a checkpoint that can be gone on from"):
        _write(tmp_path, 3)
    assert {checkpoint_name(1), checkpoint_name(2)} <= {*_names(tmp_path)}


def test_a_checkpoint_that_names_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    name = _write(tmp_path, 1)
    path = tmp_path / f"{name}.json"
    content = unseal(path.read_bytes(), format=checkpoint.FORMAT)
    content["sha256"]["../optimizer"] = content["sha256"].pop("optimizer")
    path.write_bytes(seal(content))
    with pytest.raises(TrainingError, match="names the parts"):
        read_checkpoint(tmp_path, name, run="r")


def test_a_checkpoint_whose_hash_would_name_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    name = _write(tmp_path, 1)
    path = tmp_path / f"{name}.json"
    content = unseal(path.read_bytes(), format=checkpoint.FORMAT)
    content["sha256"]["model"] = "/../../x" + content["sha256"]["model"][8:]
    path.write_bytes(seal(content))
    with pytest.raises(TrainingError, match="not a SHA-256"):
        read_checkpoint(tmp_path, name, run="r")


def test_a_former_best_goes_when_there_is_a_better_one(tmp_path: Path) -> None:
    for step in range(1, 6):
        _write(tmp_path, step, Progress(best_checkpoint=checkpoint_name(1 if step < 5 else 5)))
    assert _names(tmp_path) == [checkpoint_name(4), checkpoint_name(5)]


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "cut_json", "hashes_in_a_list"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_named(tmp_path: Path, harm: str) -> None:
    _write(tmp_path, 1)
    name = _write(tmp_path, 2)
    model, text = read_checkpoint(tmp_path, name, run="r").file("model"), tmp_path / f"{name}.json"
    if harm == "flip":
        model.write_bytes(b"M2")
    elif harm == "truncate":
        model.write_bytes(b"m")
    elif harm == "remove":
        model.unlink()
    elif harm == "hashes_in_a_list":
        content = unseal(text.read_bytes(), format=checkpoint.FORMAT)
        text.write_bytes(seal(content | {"sha256": [*content["sha256"]]}))
    else:
        text.write_bytes(text.read_bytes()[:-20])
    found, damaged = newest_checkpoint(tmp_path, run="r")
    assert found is not None
    assert found.name == checkpoint_name(1)
    assert len(damaged) == 1
    assert name in damaged[0]


def test_no_flipped_bit_of_a_checkpoints_json_is_believed(tmp_path: Path) -> None:
    name = _write(tmp_path, 2, Progress(epoch=3, best_epoch=1, best_value=0.713, history=[{"train_loss": 0.698}]))
    whole, path = read_checkpoint(tmp_path, name, run="r"), tmp_path / f"{name}.json"
    content = path.read_bytes()
    refused = 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            assert read_checkpoint(tmp_path, name, run="r") == whole
        except TrainingError:
            refused += 1
    # White space between words may be another.
    assert refused > 0.9 * 8 * len(b"".join(content.split()))


def test_a_checkpoint_whose_best_is_damaged_is_none_to_go_on_from(tmp_path: Path) -> None:
    best = checkpoint_name(2)
    _write(tmp_path, 1, kept=9)
    for step in (2, 3, 4):
        _write(tmp_path, step, Progress(best_checkpoint=best), kept=9)
    read_checkpoint(tmp_path, best, run="r").file("model").write_bytes(b"M2")
    found, damaged = newest_checkpoint(tmp_path, run="r")
    assert found is not None
    assert found.name == checkpoint_name(1)
    assert len(damaged) == 3
    assert all(best in one for one in damaged)


def test_tensors_whose_json_was_never_written_are_no_checkpoint(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    (tmp_path / f"{checkpoint_name(2)}.model.safetensors").write_bytes(b"half")
    found, damaged = newest_checkpoint(tmp_path, run="r")
    assert found is not None
    assert (found.name, damaged) == (checkpoint_name(1), [])


def test_a_checkpoint_of_another_run_or_format_is_refused(tmp_path: Path) -> None:
    name = _write(tmp_path, 1)
    with pytest.raises(TrainingError, match="belongs to another run"):
        read_checkpoint(tmp_path, name, run="other")
    path = tmp_path / f"{name}.json"
    path.write_text(path.read_text().replace(f'"format": {checkpoint.FORMAT}', '"format": 99'))
    with pytest.raises(TrainingError, match="has format 99"):
        read_checkpoint(tmp_path, name, run="r")


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, 1)
    from lens_pipeline.training import checkpoint

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path, 2)
    found, _ = newest_checkpoint(tmp_path, run="r")
    assert found is not None
    assert found.name == checkpoint_name(1)


def test_a_checkpoint_that_is_taken_again_at_the_same_step_stands_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lens_pipeline.training import checkpoint

    name, other = _write(tmp_path, 1), {"model": b"m1", "optimizer": b"judged"}
    write = checkpoint.write_atomically

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError(28, "No space left on device")
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        _write(tmp_path, 1, parts=other)
    found, damaged = newest_checkpoint(tmp_path, run="r")
    assert found is not None
    assert (found.name, found.file("optimizer").read_bytes(), damaged) == (name, b"o1", [])
    monkeypatch.setattr(checkpoint, "write_atomically", write)
    _write(tmp_path, 1, parts=other)
    assert read_checkpoint(tmp_path, name, run="r").file("optimizer").read_bytes() == b"judged"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("permitted", range(4))
def test_a_writer_that_is_replaced_while_it_writes_completes_no_checkpoint_and_removes_none(
    tmp_path: Path, permitted: int
) -> None:
    for step in (1, 2):
        _write(tmp_path, step)
    asked: list[int] = []

    def allowed() -> None:
        asked.append(1)
        if len(asked) > permitted:
            raise TrainingError("replaced")

    with pytest.raises(TrainingError, match="replaced"):
        _write(tmp_path, 3, allowed=allowed)
    there = {path.stem for path in tmp_path.glob("step-*.json")}
    assert {checkpoint_name(1), checkpoint_name(2)} <= there
    # After the last file, nothing but the removal of older ones is left to refuse.
    assert (checkpoint_name(3) in there) == (permitted == 3)


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path, run="r") == (None, [])


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    import torch

    from lens_pipeline.training.forward import serialize

    name = _write(
        tmp_path, 1, replace(Progress(), epoch=1), parts={"model": serialize({"w": torch.ones(2)}), "optimizer": b""}
    )
    assert load_file(read_checkpoint(tmp_path, name, run="r").file("model"))["w"].tolist() == [1, 1]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
