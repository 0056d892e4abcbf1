"""The process that asks a model: each stamp's logit is the model's own, by whatever way it comes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from lens_pipeline.audits.worker import main
from lens_pipeline.scoring.model import open_classifier
from lens_pipeline.scoring.predict import predict
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.conftest import Trained, exported, trained
from lens_pipeline_tests.training.making import CONTRACT

__all__ = ["trained"]


def pixels(n: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return rng.normal(0.01, 0.01, (n, *CONTRACT.stamp_shape)).astype(np.float32)


def ask(classifier: Publication, folder: Path, stamps: np.ndarray, **settings: Any) -> dict[str, np.ndarray]:
    """Ask about stamps as arrays, as blobs of which the last is damaged, and the first of them occluded by the second."""
    save_file({"some": stamps}, folder / "stamps.safetensors")
    save_file({"stamp": stamps[:1], "background": stamps[1:2]}, folder / "evidence.safetensors")
    blobs = [encode_stamp(stamp, CONTRACT) for stamp in stamps[:-1]] + [b"no stamp"]
    keys = [f"t{number}" for number in range(len(blobs))]
    pq.write_table(pa.table({"task_id": keys, "stamp_npz": pa.array(blobs, pa.binary())}), folder / "blobs.parquet")
    run = {"classifiers": [str(classifier.folder)], "is_ensemble": False, "tta": False, "device": "cpu", **settings}
    (folder / "run.json").write_text(json.dumps(run))
    assert main(["ask", str(folder / "run.json")]) == 0
    return load_file(folder / "logits.safetensors")


@pytest.fixture(scope="module")
def classifier(trained: Trained) -> Publication:
    return exported(trained, "asked")


def test_arrays_blobs_and_the_exported_program_give_the_model_s_own_logits(
    classifier: Publication, tmp_path: Path
) -> None:
    stamps = pixels(20)
    found = ask(classifier, tmp_path, stamps)
    wanted = predict(open_classifier(classifier), stamps).score
    assert found["some"].tolist() == wanted.tolist()
    assert found["predict"][:-1].tolist() == wanted[:-1].tolist()
    assert np.isnan(found["predict"][-1])
    assert found["program"][:-1] == pytest.approx(wanted[:-1], abs=1e-5)
    assert found["occluded/0"][0] == wanted[0]
    assert len(set(found["occluded/0"].tolist())) > 100


def test_a_stamp_that_is_no_variant_has_no_logit(classifier: Publication, tmp_path: Path) -> None:
    stamps = pixels(4)
    stamps[2] = np.nan
    found = ask(classifier, tmp_path, stamps[[0, 1, 3]])
    save_file({"some": stamps}, tmp_path / "stamps.safetensors")
    (tmp_path / "predicted.parquet").unlink()
    assert main(["ask", str(tmp_path / "run.json")]) == 0
    again = load_file(tmp_path / "logits.safetensors")["some"]
    assert np.isnan(again).tolist() == [False, False, True, False]
    assert again[[0, 1, 3]].tolist() == found["some"].tolist()


def test_of_a_mean_over_turns_the_program_is_not_asked(classifier: Publication, tmp_path: Path) -> None:
    found = ask(classifier, tmp_path, pixels(3), tta=True)
    assert "program" not in found
    assert found["predict"][0] == found["some"][0]


def test_a_model_that_can_not_be_opened_is_a_refusal_beside_the_run(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(
        json.dumps({"classifiers": [str(tmp_path / "nowhere")], "is_ensemble": False, "tta": False, "device": "cpu"})
    )
    assert main(["ask", str(tmp_path / "run.json")]) == 3
    assert json.loads((tmp_path / "refusal.json").read_bytes())["kind"] == "StorageError"
    assert main(["judge", "x"]) == 2
