"""``lens_pipeline check``: what is wrong with a preset, and what it names that isn't there, is said before anything runs."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lens_pipeline.cli.main import main

Check = Callable[..., tuple[int, str, str]]


@pytest.fixture
def check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Check:
    """Check a preset of the given sections; returns the exit status and what was printed to either stream."""

    def run(**sections: dict[str, Any]) -> tuple[int, str, str]:
        path = tmp_path / "preset.yaml"
        path.write_text(yaml.safe_dump({"ops": {asset: {"config": config} for asset, config in sections.items()}}))
        status = main(["check", str(path)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run


def holding(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def test_what_a_sound_preset_changes_is_listed_and_defaults_are_counted(check: Check, tmp_path: Path) -> None:
    folder = holding(tmp_path / "cubes", "g.fits", "r.fits", "z.fits")
    status, printed, _ = check(parent_sample={"source": "real_cutouts", "folder": folder})
    assert status == 0
    changed, defaults, verdict = printed.splitlines()[:3], *printed.splitlines()[3:]
    assert changed == ["parent_sample", "  source: real_cutouts", f"  folder: {folder}"]
    assert re.fullmatch(r"\d{3} other settings have their defaults, which docs/settings.md lists\.", defaults)
    assert verdict.endswith("preset.yaml is sound.")


def test_a_file_where_a_folder_belongs_and_a_folder_where_a_file_belongs_are_called_what_they_are(
    check: Check, tmp_path: Path
) -> None:
    folder = holding(tmp_path / "data", "g.fits")
    for source in ("real_cutouts", "external_stamps"):
        _, _, wrong = check(parent_sample={"source": source, "folder": f"{folder}/g.fits"})
        assert f"parent_sample.folder: {folder}/g.fits is a file, not a folder" in wrong
    _, _, wrong = check(parent_sample={"source": "real_cutouts", "folder": folder, "catalogue": folder})
    assert f"parent_sample.catalogue: {folder} is a folder, not a file" in wrong


def test_a_setting_out_of_range_is_refused_with_what_is_allowed(check: Check) -> None:
    status, _, wrong = check(lens_classifier={"epochs": 0})
    assert status == 1
    assert "epochs: Input should be greater than or equal to 1, 0 was given (allowed: >= 1" in wrong


def test_all_that_is_not_there_is_named_with_its_setting(check: Check, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    status, printed, wrong = check(
        parent_sample={
            "source": "legacy_catalogue",
            "folder": str(nowhere / "sweep"),
            "images": str(nowhere / "images"),
            "known_lenses": str(nowhere / "lenses.csv"),
        },
        injection_manifest={"real_source_share": 0.5, "real_source_catalogue": str(nowhere / "hst.fits")},
        lens_classifier={"pretrained": str(nowhere / "w.safetensors"), "pretrained_sha256": "0" * 64},
    )
    assert status == 1
    assert "is sound" not in printed
    assert "5 to mend before a run" in wrong
    for said in (
        f"parent_sample.folder: there is no {nowhere}/sweep",
        f"parent_sample.images: there is no folder {nowhere}/images",
        f"parent_sample.known_lenses: there is no file {nowhere}/lenses.csv",
        f"injection_manifest.real_source_catalogue: there is no file {nowhere}/hst.fits",
        f"lens_classifier.pretrained: there is no file of pretrained weights {nowhere}/w.safetensors",
    ):
        assert said in wrong


@pytest.mark.parametrize(
    ("source", "names", "said"),
    [
        ("real_cutouts", None, "parent_sample.folder: there is no folder"),
        ("real_cutouts", ("g.fits", "r.fits"), "lacks z.fits"),
        ("real_cutouts", ("notes.txt",), "holds neither g.fits, r.fits, z.fits, nor coadd/"),
        ("real_cutouts", ("survey-ccds-x.fits",), "set parent_sample.catalogue"),
        ("external_stamps", None, "parent_sample.folder: there is no folder"),
        ("external_stamps", ("a.csv",), "holds no *.parquet file; it holds a.csv"),
        ("legacy_catalogue", ("notes.txt",), "holds no catalogue"),
    ],
)
def test_a_folder_without_what_its_source_reads_is_told(
    check: Check, tmp_path: Path, source: str, names: tuple[str, ...] | None, said: str
) -> None:
    folder = str(tmp_path / "data") if names is None else holding(tmp_path / "data", *names)
    status, _, wrong = check(parent_sample={"source": source, "folder": folder})
    assert (status, said in wrong) == (1, True), wrong


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("real_cutouts", ("a.fits", "b.fits")),
        ("real_cutouts", ("coadd/000/brick/legacysurvey-x.fits",)),
        ("external_stamps", ("a.parquet",)),
        ("legacy_catalogue", ("sweep-x.fits",)),
    ],
)
def test_a_folder_with_what_its_source_reads_is_sound(
    check: Check, tmp_path: Path, source: str, names: tuple[str, ...]
) -> None:
    table = (
        {}
        if names[0] != "coadd/000/brick/legacysurvey-x.fits"
        else {"catalogue": holding(tmp_path, "t.csv") + "/t.csv"}
    )
    status, _, wrong = check(parent_sample={"source": source, "folder": holding(tmp_path / "data", *names), **table})
    assert (status, wrong) == (0, "")


def test_of_an_address_only_the_spelling_is_judged(check: Check) -> None:
    status, printed, _ = check(parent_sample={"source": "external_stamps", "folder": "s3://bucket/stamps"})
    assert status == 0
    assert "s3://bucket/stamps: only its spelling was looked at, no server was asked" in printed
    status, _, wrong = check(parent_sample={"source": "external_stamps", "folder": "s3://bucket//stamps"})
    assert status == 1
    assert "parent_sample.folder: s3://bucket//stamps can't be an address" in wrong


def test_gpus_that_this_machine_lacks_are_told_as_training_would(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    asked = {"lens_classifier": {"device": "cuda", "world_size": 2}, "scores": {"device": "cuda"}}
    status, _, wrong = check(**asked)
    assert status == 1
    assert (
        "lens_classifier.device: device is cuda and 2 process(es) want a GPU each, but this machine offers 0" in wrong
    )
    assert "scores.device: device is cuda and 1 process(es) want a GPU each" in wrong
