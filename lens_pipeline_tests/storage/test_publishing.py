"""What is published is whole, verified, and never replaced by a part or by a red version."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pytest

from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.checks import green, red
from lens_pipeline.contracts.errors import ContractError, StorageError
from lens_pipeline.storage import read_table
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import remove_abandoned

TABLE = pa.table({"task_id": ["a", "b", "c"], "value": [1.0, 2.0, 3.0]})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path / "home"))
    return Home.from_environment()


def publish(
    home: Home, table: pa.Table = TABLE, *, dataset: str = "sky", model: str | None = None, passed: bool = True
) -> Publication:
    with home.stage(dataset, "scores", model=model) as staging:
        staging.write_table(None, table)
        publication = staging.commit()
    check = green("sound", "fine") if passed else red("sound", "broken", wrong=["a"], why="a test", next_step="mend")
    home.conclude(publication, [check])
    return publication


def test_a_published_table_is_read_back_with_one_call(home: Home) -> None:
    publish(home)
    assert read_table("scores").to_dicts() == TABLE.to_pylist()
    assert read_table("scores", columns=["value"]).columns == ["value"]


def test_a_red_version_never_becomes_current_but_is_readable_by_its_id(home: Home) -> None:
    good = publish(home)
    bad = publish(home, TABLE.slice(0, 1), passed=False)
    assert home.open("sky", "scores").version == good.version
    assert read_table("scores", version=bad.version).height == 1
    assert home.open("sky", "scores", version=bad.version).verdict["passed"] is False


def test_a_red_first_version_is_refused_to_readers_and_named(home: Home) -> None:
    bad = publish(home, passed=False)
    with pytest.raises(StorageError, match=rf"did not pass their checks: {bad.version}"):
        home.open("sky", "scores")


def test_an_advisory_check_that_is_red_does_not_stop_a_version(home: Home) -> None:
    with home.stage("sky", "scores") as staging:
        staging.write_table(None, TABLE)
        publication = staging.commit()
    finding = red("odd", "odd", wrong=["a"], why="w", next_step="n", blocking=False)
    assert home.conclude(publication, [finding])


def test_the_same_content_has_the_same_version_whoever_made_it_when(home: Home) -> None:
    first = publish(home)
    with home.stage("sky", "scores", provenance={"who": "somebody else"}) as staging:
        staging.write_table(None, TABLE)
        second = staging.commit()
    assert second.version == first.version
    assert [p.version for p in home.versions("sky", "scores")] == [first.version]


def test_another_attribute_or_input_is_another_version(home: Home) -> None:
    first = publish(home)
    with home.stage("sky", "scores", inputs=[first]) as staging:
        staging.write_table(None, TABLE)
        with_input = staging.commit()
    with home.stage("sky", "scores") as staging:
        staging.write_table(None, TABLE)
        staging.attributes["unit"] = "nanomaggy"
        with_attribute = staging.commit()
    assert len({first.version, with_input.version, with_attribute.version}) == 3
    assert with_input.inputs == {"scores": first.version}


def test_every_flipped_byte_of_a_table_is_noticed(home: Home) -> None:
    path = publish(home).folder / "scores.parquet"
    sound = path.read_bytes()
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            read_table("scores")
    path.write_bytes(sound)
    assert read_table("scores").height == 3


def test_a_flipped_page_is_noticed_by_its_checksum_alone(home: Home) -> None:
    from lens_pipeline.storage.parquet import read_parquet, write_parquet

    path = home.path / "numbers.parquet"
    home.path.mkdir()
    write_parquet(pa.table({"x": list(range(10_000))}), path, compression="none", use_dictionary=False)
    damaged = bytearray(path.read_bytes())
    damaged[5_000] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(StorageError, match="CRC"):
        read_parquet(path)


@pytest.mark.parametrize("harm", ["truncate", "delete", "manifest", "symlink"])
def test_a_damaged_version_is_refused_with_what_to_do(home: Home, harm: str, tmp_path: Path) -> None:
    folder = publish(home).folder
    table, manifest = folder / "scores.parquet", folder / "manifest.json"
    if harm == "truncate":
        table.write_bytes(table.read_bytes()[:-1])
    elif harm == "delete":
        table.unlink()
    elif harm == "symlink":
        table.rename(tmp_path / "elsewhere.parquet")
        table.symlink_to(tmp_path / "elsewhere.parquet")
    else:
        changed = json.loads(manifest.read_text())
        changed["files"]["scores.parquet"]["rows"] = 4
        changed["attributes"]["new"] = 1
        manifest.write_text(json.dumps(changed))
    with pytest.raises(StorageError, match=r"[Mm]aterialize"):
        read_table("scores")


def test_committing_again_replaces_a_version_that_was_damaged(home: Home) -> None:
    first = publish(home)
    (first.folder / "scores.parquet").write_bytes(b"ruined")
    again = publish(home)
    assert again.version == first.version
    assert read_table("scores").height == 3


def test_a_staging_that_is_left_by_an_error_leaves_no_trace(home: Home) -> None:
    publish(home)

    def fail_while_staging() -> None:
        with home.stage("sky", "scores") as staging:
            staging.write_table(None, TABLE.slice(0, 1))
            raise ValueError("the stage broke")

    with pytest.raises(ValueError, match="the stage broke"):
        fail_while_staging()
    assert not list(home.shelf("sky", "scores").glob(".staging-*"))
    assert read_table("scores").height == 3


def test_a_full_disk_publishes_nothing_and_says_what_to_do(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(home)

    def write_to_full_disk() -> None:
        with home.stage("sky", "scores") as staging:
            staging.write_table(None, TABLE.slice(0, 1))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError, match=r"No space left.*Nothing was published.*Free some space"):
        write_to_full_disk()
    assert read_table("scores").height == 3


def test_a_disk_that_is_really_full_leaves_the_old_publication(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        import pyarrow as pa
        from lens_pipeline.contracts.errors import StorageError
        from lens_pipeline.storage.home import Home
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        home = Home(Path(sys.argv[1]))
        def publish(n):
            with home.stage("sky", "scores") as staging:
                staging.write_bytes("pixels", b"x" * n)
                staging.write_table(None, pa.table({"n": [n]}))
                home.conclude(staging.commit(), [])
        publish(1_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            publish(1_000_000)
        except StorageError as error:
            print("REFUSED", error)
        assert home.open("sky", "scores").read_table().to_pylist() == [{"n": 1000}]
        assert not list(home.shelf("sky", "scores").glob(".staging-*"))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "REFUSED" in done.stdout
    assert "Nothing was published" in done.stdout


def test_what_a_living_writer_has_staged_is_not_removed(home: Home) -> None:
    with home.stage("sky", "scores") as staging:
        assert remove_abandoned(home.shelf("sky", "scores")) == 0
        assert staging.folder.exists()


def test_a_table_that_breaks_its_contract_is_not_staged(home: Home) -> None:
    wrong = pa.table({"task_id": ["a", "a"], "logical": [0, 1], "split": ["test"] * 2, "label": [0, 1]})
    wrong = wrong.append_column("logit", pa.array([0.5, float("nan")], pa.float32()))
    with (
        home.stage("sky", "scores") as staging,
        pytest.raises(ContractError, match=r"1 of 2 rows .* logit .* not finite"),
    ):
        staging.write_table(None, wrong, SCORES)


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden", "a\x00b", "é", "x" * 129, "a b", "%2e%2e/"])
def test_a_name_that_could_leave_its_folder_is_refused(home: Home, name: str) -> None:
    with pytest.raises(StorageError, match="can't be"):
        home.stage(name, "scores")
    with pytest.raises(StorageError, match="can't be"):
        home.open("sky", "scores", version=name) if name else home.open(name, "scores")


def test_reading_what_was_never_published_names_the_next_command(home: Home) -> None:
    with pytest.raises(StorageError, match="make run"):
        read_table("scores")
    publish(home, dataset="other")
    with pytest.raises(StorageError, match=r"published for other"):
        read_table("scores", dataset="sky")


def test_a_model_that_was_never_published_is_named_with_those_that_were(home: Home) -> None:
    for model in ("tiny", "default"):
        publish(home, model=model)
    publish(home, dataset="other", model="elsewhere")
    with pytest.raises(
        StorageError, match=r"'sky', model 'huge', was never .* published for model: default, tiny\. Next"
    ):
        home.open("sky", "scores", model="huge")
    with pytest.raises(StorageError, match=r"'land', model 'huge', was never .* published for other, sky\. Next"):
        home.open("land", "scores", model="huge")


def test_two_datasets_are_never_mixed_up(home: Home) -> None:
    publish(home, dataset="one")
    publish(home, TABLE.slice(0, 2), dataset="two")
    with pytest.raises(StorageError, match=r"one, two: name one"):
        read_table("scores")
    assert read_table("scores", dataset="two").height == 2


def test_content_that_was_current_and_turns_red_under_other_settings_is_current_no_more(home: Home) -> None:
    good = publish(home)
    again = publish(home, passed=False)
    assert again.version == good.version
    with pytest.raises(StorageError, match=rf"did not pass their checks: {good.version}"):
        home.open("sky", "scores")
    publish(home)
    assert home.open("sky", "scores").version == good.version


def test_a_red_version_of_a_first_run_is_read_by_its_id_alone(home: Home) -> None:
    bad = publish(home, passed=False)
    assert read_table("scores", version=bad.version).height == 3


def test_a_misspelt_asset_or_column_is_answered_with_what_there_is(home: Home) -> None:
    publish(home)
    with pytest.raises(StorageError, match=r"scroes was never published .* which has scores"):
        read_table("scroes")
    with pytest.raises(StorageError, match=r"no column valeu .* it has task_id, value"):
        read_table("scores", columns=["valeu"])
