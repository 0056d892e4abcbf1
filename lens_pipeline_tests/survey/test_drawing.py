import os
from typing import Any

import pytest

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey import drawing
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig
from lens_pipeline.survey.design import Design
from lens_pipeline.survey.manifest import null_flux_rows, rows_of_galaxy
from lens_pipeline.survey.population import Hosts

from .conftest import Survey

SETTINGS: dict[str, Any] = {
    "injections_per_galaxy": 8,
    "population": "velocity_dispersion",
    "design": "stratified",
    "floor_per_cell": 2,
    "fake_blob_share": 0.3,
    "unpaired_control_share": 0.1,
    "null_flux_share": 0.5,
}


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lots of four galaxies, and a process for each few of them."""
    monkeypatch.setattr(drawing, "_ROWS_A_LOT", 40)
    monkeypatch.setattr(drawing, "_ROWS_WORTH_A_PROCESS", 40)


def content(publication: Publication) -> dict[str, str]:
    return {name: entry.sha256 for name, entry in publication.manifest.files.items()}


def test_the_bytes_are_the_same_in_any_number_of_processes(survey: Survey, fine: None) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=90, n_bricks=6))
    wanted = survey.manifest(parent, **SETTINGS, workers=1)
    for workers in (2, 3):
        made = survey.manifest(parent, **SETTINGS, workers=workers)
        assert content(made) == content(wanted)
        assert made.version == wanted.version
    assert not list(parent.folder.parent.parent.glob("injection_manifest/.work/*"))


def test_rows_stand_in_the_order_of_their_galaxies_and_are_counted(survey: Survey, fine: None) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=90, n_bricks=6))
    manifest = survey.manifest(parent, **SETTINGS, workers=2)
    galaxies = parent.read_table().to_pylist()
    config = InjectionConfig(**SETTINGS)
    design = Design.of(config, Hosts.of(config, [galaxy["z_lens"] for galaxy in galaxies]))
    for name, rows_of in ((None, rows_of_galaxy), ("null_flux", null_flux_rows)):
        rows = [row["task_id"] for galaxy in galaxies for row in rows_of(design, galaxy)]
        assert manifest.read_table(name)["task_id"].to_pylist() == rows
    roles = manifest.attributes["roles"]
    assert sum(roles.values()) == manifest.read_table().num_rows + manifest.read_table("null_flux").num_rows
    counted = {row["cell"]: row["n"] for row in manifest.read_table("design").to_pylist() if row["axis"] == "all"}
    assert counted == {"all": roles["injection"]}


def test_a_small_manifest_starts_no_process(survey: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", None)
    assert survey.manifest(survey.parents(), workers=8).read_table().num_rows == 24


def test_a_process_that_dies_leaves_no_manifest_and_no_trace(
    survey: Survey, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=90, n_bricks=6))
    monkeypatch.setattr(drawing, "TASK", "lens_pipeline_tests.no_such_task")
    with pytest.raises(PipelineError, match=r"while it made the rows of lot \d of galaxies"):
        survey.manifest(parent, **SETTINGS, workers=2)
    shelf = survey.home.shelf("test", "injection_manifest")
    assert [name for name in os.listdir(shelf) if not name.startswith(".")] == []
    assert not list(shelf.rglob("*.galaxies"))
