"""A model leaves this package as a program of plain torch operations: the same logits, the same bytes, nothing of ours."""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from lens_pipeline.contracts.errors import ScoringError
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.export import PROGRAM, exported_program_agrees
from lens_pipeline.scoring.logits import score_rows
from lens_pipeline.scoring.program import export_program
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.conftest import Trained, exported

ROOT = Path(__file__).parents[2]
# A fresh interpreter that finds neither this package nor timm, in which any unpickling of more than tensors fails.
ALONE = """
import sys

class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("lens_pipeline", "timm", "mlflow"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import torch
from safetensors.torch import load_file, save_file

torch.set_num_threads(1)
for folder in sys.argv[1:]:
    model, rows = torch.export.load(f"{folder}/model.pt2").module(), load_file(f"{folder}/rows.safetensors")
    inputs = [rows[name] for name in ("pixels", "median", "mad")]
    with torch.inference_mode():
        together = model(*inputs)
        apart = torch.cat([model(*(part[row : row + 1] for part in inputs)) for row in range(len(inputs[0]))])
    save_file({"together": together, "apart": apart.contiguous()}, f"{folder}/out.safetensors")
"""


@pytest.fixture(scope="module")
def program(trained: Trained) -> Publication:
    return exported(trained)


@pytest.fixture(scope="module")
def alone(
    trained: Trained, program: Publication, trained_elsewhere: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Trained], dict[str, np.ndarray]]:
    """What two programs, of two surveys, give for their rows in one interpreter without this package."""
    made = {trained.classifier.version: program, trained_elsewhere.classifier.version: exported(trained_elsewhere)}
    folders = {}
    for one in (trained, trained_elsewhere):
        version = one.classifier.version
        folders[version] = folder = tmp_path_factory.mktemp("alone")
        shutil.copy(made[version].path(PROGRAM), folder / "model.pt2")
        _, store = one.opened()
        rows = store.take(np.arange(store.n_rows))
        tensors = {"pixels": np.ascontiguousarray(rows.pixels), "median": rows.median, "mad": rows.mad}
        save_file(tensors, folder / "rows.safetensors")
    subprocess.run([sys.executable, "-c", ALONE, *folders.values()], check=True, cwd=folder)
    return lambda one: load_file(folders[one.classifier.version] / "out.safetensors")


def test_without_this_package_the_program_gives_the_pipelines_own_logits_bit_for_bit(
    trained: Trained, alone: Callable[[Trained], dict[str, np.ndarray]]
) -> None:
    found, ours = alone(trained), score_rows(*trained.opened(), ScoringConfig())
    assert found["together"].dtype == np.float32
    assert found["together"].tobytes() == ours.tobytes()
    assert np.allclose(found["apart"], ours, rtol=1e-5, atol=1e-5)


def test_three_classes_and_five_bands_leave_as_one_program_too(
    trained_elsewhere: Trained, alone: Callable[[Trained], dict[str, np.ndarray]]
) -> None:
    ours = score_rows(*trained_elsewhere.opened(), ScoringConfig())
    assert alone(trained_elsewhere)["together"].tobytes() == ours.tobytes()


def test_the_same_model_gives_the_same_bytes_so_its_version_is_the_same(trained: Trained, program: Publication) -> None:
    again = exported(trained, "again")
    assert again.entry(PROGRAM).sha256 == program.entry(PROGRAM).sha256
    assert again.version == program.version


def test_the_program_names_no_path_of_this_machine(program: Publication) -> None:
    with zipfile.ZipFile(program.path(PROGRAM)) as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    for path in (str(ROOT), sys.prefix, "site-packages"):
        assert path.encode() not in content


def test_the_check_says_on_how_many_rows_the_program_agreed_and_how_well(program: Publication) -> None:
    check = exported_program_agrees(program)
    assert check.passed
    assert not check.blocking
    assert (check.figures["rows"], check.figures["largest_difference"]) == (64, 0.0)


def test_a_model_that_cant_be_exported_is_published_all_the_same_and_the_check_says_why(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ScoringError("its layers can't be traced")

    monkeypatch.setattr("lens_pipeline.scoring.export.compute", refuse)
    check = exported_program_agrees(exported(trained, "refused"))
    assert not check.passed
    assert not check.blocking
    assert "its layers can't be traced" in check.first[0]


def test_a_program_with_other_logits_is_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(nn.Module):
        def forward(self, pixels: torch.Tensor, median: torch.Tensor, mad: torch.Tensor) -> torch.Tensor:
            return median[:, :1]

    class Loaded:
        def module(self) -> nn.Module:
            return Other()

    monkeypatch.setattr("torch.export.load", lambda path: Loaded())
    classifier, store = trained.opened()
    with pytest.raises(ScoringError, match=r"the exported program's logits differ .* on 64 stored rows"):
        export_program(classifier, store, tmp_path / "model.pt2")
