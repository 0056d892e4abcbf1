"""Fragments are made once: by whoever, however often it was stopped, and however much the survey has grown."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from lens_pipeline.contracts.errors import PipelineError
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.pace import Pace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey import rendering
from lens_pipeline.survey.config import ParentSampleConfig, StampsConfig
from lens_pipeline.survey.cutouts import CUTOUTS_FILE, open_cutouts, write_cutouts
from lens_pipeline.survey.fragment_worker import Renderer
from lens_pipeline.survey.stamps import build_stamps

from . import fake_ray
from .conftest import Survey, real_config

MADE = {"rows_per_fragment": 6, "neighbours_per_stamp": 0.0}


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """task_ids of what is rendered in this process."""
    seen: list[str] = []
    real = Renderer.write_fragment

    def watched(self: Renderer, job: dict[str, Any]) -> dict[str, Any]:
        seen.extend(row["task_id"] for row in job["rows"])
        return real(self, job)

    monkeypatch.setattr(Renderer, "write_fragment", watched)
    return seen


def content(stamps: Publication) -> dict[str, Any]:
    return {"version": stamps.version, **{name: entry.sha256 for name, entry in stamps.manifest.files.items()}}


def files_of(stamps: Publication) -> dict[str, Path]:
    return {entry.sha256: stamps.folder / name for name, entry in stamps.manifest.files.items()}


@pytest.mark.parametrize("how", [{"workers": 2}, {"workers": 3}, {"engine": "ray"}])
def test_the_bytes_are_the_same_whoever_renders(
    survey: Survey, small: dict[str, Publication], monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", fake_ray)
    inputs = small["parent_sample"], small["injection_manifest"]
    wanted = survey.stamps(*inputs, **MADE, noiseless_arcs=True)
    for name in wanted.manifest.files:
        (wanted.folder / name).unlink()
    assert content(survey.stamps(*inputs, **MADE, noiseless_arcs=True, **how)) == content(wanted)


def test_a_run_that_was_stopped_is_gone_on_with_by_another_number_of_processes(
    survey: Survey, small: dict[str, Publication], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = small["parent_sample"], small["injection_manifest"]
    wanted = content(survey.stamps(*inputs, **MADE))
    survey.home.shelf("test", "stamps").rename(survey.home.path / "aside")
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(PipelineError, match="pulled the plug"):
            survey.stamps(*inputs, **MADE)
    work = next(survey.home.shelf("test", "stamps").glob(".work/*"))
    before = {path.name: path.stat().st_mtime_ns for path in work.glob("*.parquet")}
    assert len(before) == 3
    asked: list[str] = []
    monkeypatch.setattr(rendering, "do_jobs", watching(asked, rendering.do_jobs))
    made = survey.stamps(*inputs, **MADE, workers=2)
    assert content(made) == wanted
    assert len(asked) == len(made.attributes["fragments"]) - 3
    assert not list(survey.home.shelf("test", "stamps").glob(".work/*"))


def stop_after(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    real = Renderer.write_fragment
    calls: list[int] = []

    def stopping(self: Renderer, job: dict[str, Any]) -> dict[str, Any]:
        if len(calls) == n:
            raise PipelineError("pulled the plug")
        calls.append(1)
        return real(self, job)

    monkeypatch.setattr(Renderer, "write_fragment", stopping)


def watching(asked: list[str], real: Callable[..., Any]) -> Callable[..., Any]:
    def watched(task: str, settings: dict[str, Any], jobs: Any, **how: Any) -> Any:
        for job, answer in real(task, settings, jobs, **how):
            asked.append(job["key"])
            yield job, answer

    return watched


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_finished_fragment_that_was_harmed_is_rendered_anew(
    survey: Survey, small: dict[str, Publication], monkeypatch: pytest.MonkeyPatch, rendered: list[str], harm: str
) -> None:
    inputs = small["parent_sample"], small["injection_manifest"]
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(PipelineError):
            survey.stamps(*inputs, **MADE)
    path = next(survey.home.shelf("test", "stamps").glob(".work/*/*.parquet"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    harmed = {"flipped": bytes(data), "cut": bytes(data[:-1]), "gone": None}[harm]
    path.unlink()
    if harmed is not None:
        path.write_bytes(harmed)
    rendered.clear()
    made = survey.stamps(*inputs, **MADE)
    assert made.verify() == []
    assert len(rendered) < 36
    clean = Survey(Home(survey.home.path / "clean")).stamps(*inputs, **MADE)
    assert content(made) == content(clean)


def test_another_setting_or_manifest_goes_on_with_nothing_of_an_interrupted_run(
    survey: Survey, small: dict[str, Publication], monkeypatch: pytest.MonkeyPatch, rendered: list[str]
) -> None:
    inputs = small["parent_sample"], small["injection_manifest"]
    with monkeypatch.context() as stopping:
        stop_after(stopping, 3)
        with pytest.raises(PipelineError):
            survey.stamps(*inputs, **MADE)
    rendered.clear()
    survey.stamps(*inputs, **MADE, seed=12)
    assert len(rendered) == 36


def grown(survey: Survey, n_galaxies: int, previous: Publication | None = None, **settings: Any) -> Publication:
    parent = survey.parents(ParentSampleConfig(n_galaxies=n_galaxies, n_bricks=4))
    manifest = survey.manifest(parent, injections_per_galaxy=2)
    with survey.home.stage("test", "stamps", inputs=[parent, manifest]) as staging:
        build_stamps(StampsConfig(**{"workers": 1, **MADE, **settings}), parent, manifest, staging, previous)
        return staging.commit()


def test_of_a_survey_that_grew_only_fragments_with_new_galaxies_are_rendered(
    survey: Survey, rendered: list[str]
) -> None:
    first = grown(survey, 20)
    n_before = len(rendered)
    rendered.clear()
    second = grown(survey, 24, first)
    assert n_before == 60
    assert len(rendered) < 40
    shared = files_of(first).keys() & files_of(second).keys()
    assert shared
    assert all(files_of(first)[sha].samefile(files_of(second)[sha]) for sha in shared)
    assert content(second) == content(grown(Survey(Home(survey.home.path / "alone")), 24))
    assert Fragments.open(second).n_rows == 72


def test_galaxies_that_come_first_or_go_leave_other_fragments_alone(survey: Survey, rendered: list[str]) -> None:
    parent = survey.parents(ParentSampleConfig(n_galaxies=40, n_bricks=4))
    galaxies = parent.read_table()

    def stamped(first: int, n: int, previous: Publication | None) -> Publication:
        rows = galaxies.slice(first, n).to_pylist()
        some = survey.table("parent_sample", rows, parent.attributes)
        manifest = survey.manifest(some)
        with survey.home.stage("test", "stamps", inputs=[some, manifest]) as staging:
            build_stamps(StampsConfig(workers=1, **MADE), some, manifest, staging, previous)
            return staging.commit()

    before = stamped(1, 30, None)
    rendered.clear()
    after = stamped(0, 30, before)
    assert {"-".join(task_id.split("-")[:2]) for task_id in rendered} >= set(galaxies["galaxy_id"].to_pylist()[:1])
    assert len(rendered) < 30
    assert after.verify() == []


def test_what_the_fragments_are_made_of_decides_and_not_their_place(
    survey: Survey, small: dict[str, Publication], rendered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = grown(survey, 12)
    for change in ({"seed": 12}, {"neighbours_per_stamp": 1.0}, {"noiseless_arcs": True}):
        rendered.clear()
        grown(survey, 12, first, **change)
        assert len(rendered) == 36
    rendered.clear()
    grown(survey, 12, first, workers=2)
    assert rendered == []
    monkeypatch.setattr("lens_pipeline.survey.stamps.rendering_code", lambda: "other code")
    grown(survey, 12, first)
    assert len(rendered) == 36


def test_a_harmed_fragment_of_the_current_version_is_rendered_anew(survey: Survey, rendered: list[str]) -> None:
    first = grown(survey, 20)
    harmed = first.folder / first.attributes["fragments"][2]["file"]
    data = bytearray(harmed.read_bytes())
    data[len(data) // 2] ^= 1
    harmed.write_bytes(data)
    rendered.clear()
    second = grown(survey, 24, first)
    assert second.verify() == []
    assert len(rendered) > first.attributes["fragments"][2]["rows"]


def test_real_pixels_are_part_of_what_a_fragment_is_made_of_and_their_place_in_the_file_is_not(
    survey: Survey, cubes: Callable[..., Path], rendered: list[str]
) -> None:
    parent = survey.parents(real_config(cubes()))
    manifest = survey.manifest(parent, injections_per_galaxy=6)
    pixels = open_cutouts(parent.path(CUTOUTS_FILE))
    galaxies = parent.read_table().to_pylist()

    def stamped(
        pixels: NDArray[np.float32], galaxies: list[dict[str, Any]], previous: Publication | None
    ) -> Publication:
        with survey.home.stage("test", "parent_sample") as staging:
            staging.attributes.update(parent.attributes)
            staging.write_table(None, pa.Table.from_pylist(galaxies))
            write_cutouts(staging.folder, pixels)
            other = staging.commit()
        with survey.home.stage("test", "stamps", inputs=[other, manifest]) as staging:
            build_stamps(StampsConfig(workers=1, rows_per_fragment=3), other, manifest, staging, previous)
            return staging.commit()

    first = stamped(pixels, galaxies, None)
    rendered.clear()
    moved = [{**galaxy, "cutout_row": 2 - galaxy["cutout_row"]} for galaxy in galaxies]
    stamped(pixels[::-1], moved, first)
    assert rendered == []
    retouched = pixels.copy()
    retouched[1, 0, 0, 0] += 1e-3
    stamped(retouched, galaxies, first)
    assert "cutout-0001-c" in rendered
    assert "cutout-0002-i0005" not in rendered


def test_stamps_that_were_never_made_current_will_do_and_damaged_ones_are_no_hindrance(
    survey: Survey, small: dict[str, Publication]
) -> None:
    inputs = small["parent_sample"], small["injection_manifest"]
    assert rendering.find_earlier(survey.home, "test", inputs[1]) is None
    made = survey.stamps(*inputs, **MADE)
    assert rendering.find_earlier(survey.home, "test", inputs[1]) == made
    (made.folder / "manifest.json").write_bytes(b"{")
    assert rendering.find_earlier(survey.home, "test", inputs[1]) is None


def test_progress_is_told_by_the_caller(survey: Survey, small: dict[str, Publication]) -> None:
    lines: list[str] = []
    clock = iter(range(0, 10_000, 4))
    inputs = small["parent_sample"], small["injection_manifest"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lens_pipeline.survey.stamps.Pace", lambda *told: Pace(*told, clock=lambda: float(next(clock))))
        with survey.home.stage("test", "stamps", inputs=list(inputs)) as staging:
            build_stamps(StampsConfig(workers=1, **MADE), *inputs, staging, None, lines.append)
    assert "rows/s" in lines[0]
    assert lines[-1].startswith("rendering: 36 rows in ")


def test_rows_taken_over_are_those_of_the_stamps_without_the_probes_beside_them(survey: Survey) -> None:
    parent = survey.parents()
    manifest = survey.manifest(parent, null_flux_share=1.0)
    first = survey.stamps(parent, manifest, **MADE)
    with survey.home.stage("test", "stamps", inputs=[parent, manifest]) as staging:
        made = build_stamps(StampsConfig(workers=1, **MADE), parent, manifest, staging, first)
    assert (made.n_rows, made.n_taken_over) == (24, 24)
