"""A home at an s3:// address: what one machine publishes, others read whole, and nothing is overwritten or half there."""

import hashlib
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.checks import green, red
from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.storage import read_table
from lens_pipeline.storage.cache import Cache
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.manifest import Manifest
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.remote import Remote
from lens_pipeline.storage.s3 import Address, ObjectStore
from lens_pipeline_tests.s3_servers import Bucket
from lens_pipeline_tests.storage.racing import Racers
from reliability.s3_faults import ANYTHING
from reliability.s3_publishing import FAULTS, SUBJECT

ROOT = Path(__file__).parent.parent.parent
TABLE = pa.table({"task_id": ["a", "b", "c"], "value": [1.0, 2.0, 3.0]})
Machine = Callable[[str], Home]
on_both_servers = pytest.mark.parametrize("bucket", ["swift_s3", "moto_s3"], indirect=True)


@pytest.fixture(params=["swift_s3"])
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    found: Bucket = request.getfixturevalue(request.param)
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"{found.address}/some/where")
    return found


@pytest.fixture
def machine(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Another machine is another local folder."""

    def on(name: str) -> Home:
        monkeypatch.setenv("LENS_PIPELINE_LOCAL", str(tmp_path / name))
        return Home.from_environment()

    return on


@dataclass(frozen=True)
class Sent:
    """A request that was sent, and its If-None-Match."""

    method: str
    path: str
    guard: bytes | None


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Sent]:
    """Every request that this process sends."""
    requests: list[Sent] = []
    plain = ObjectStore._client

    def note(request: Any, **_: Any) -> None:
        requests.append(Sent(request.method, urlsplit(request.url).path, request.headers.get("If-None-Match")))

    def watched(self: ObjectStore) -> Any:
        client = plain(self)
        client.meta.events.register("before-send.s3", note, unique_id="a test")
        return client

    monkeypatch.setattr(ObjectStore, "_client", watched)
    return requests


def commit(home: Home, table: pa.Table = TABLE, **files: bytes) -> Publication:
    with home.stage("sky", "scores") as staging:
        staging.write_table(None, table)
        for name, content in files.items():
            staging.write_bytes(name, content)
        return staging.commit()


def publish(home: Home, table: pa.Table = TABLE, *, passed: bool = True, **files: bytes) -> Publication:
    publication = commit(home, table, **files)
    check = green("sound", "fine") if passed else red("sound", "broken", wrong=["a"], why="a test", next_step="mend")
    home.conclude(publication, [check])
    return publication


def requests_of(home: Home) -> int:
    assert home.remote is not None
    return home.remote.store.requests


@on_both_servers
def test_what_one_machine_publishes_another_reads_fetching_only_what_it_asks_for(machine: Machine) -> None:
    published = publish(machine("here"), pixels=b"p" * 5000)
    there = machine("there")
    assert read_table("scores").to_dicts() == TABLE.to_pylist()
    assert read_table("scores", dataset="sky", columns=["value"]).columns == ["value"]
    read = there.open("sky", "scores")
    assert (read.version, read.inputs, read.attributes) == (published.version, {}, {})
    assert read.manifest.provenance == published.manifest.provenance
    assert not read.is_here("pixels")
    assert read.path("pixels").read_bytes() == b"p" * 5000
    assert read.folder.is_relative_to(there.path)
    assert read.verdict == {"passed": True, "checks": published.verdict["checks"]}  # type: ignore[index]
    assert sorted(p.name for p in read.folder.iterdir()) == ["manifest.json", "pixels", "scores.parquet"]
    assert there.datasets_with("scores") == ["sky"]
    assert there.assets() == ["scores"]


def test_a_file_that_is_here_is_not_asked_for_again(machine: Machine) -> None:
    publish(machine("here"))
    there = machine("there")
    there.open("sky", "scores").read_table()
    before = requests_of(there)
    there.open("sky", "scores").read_table()
    assert requests_of(there) - before == 2  # the log, listed twice


@pytest.mark.parametrize("where", ["s3", "folder"])
def test_the_last_verdicts_decide_what_is_current_as_in_a_folder(machine: Machine, where: str, tmp_path: Path) -> None:
    home = machine("here") if where == "s3" else Home(tmp_path / "folder")
    first, second = commit(home), commit(home, TABLE.slice(1))
    bad = [red("sound", "broken", wrong=["a"], why="a test", next_step="mend")]

    def current() -> str | None:
        return home.open("sky", "scores").version if home.has_current("sky", "scores") else None

    seen = [current()]
    for publication, checks in [
        (first, []),
        (second, bad),
        (second, []),
        (first, bad),
        (second, bad),
        (first, []),
        (first, bad),
    ]:
        home.conclude(publication, checks)
        seen.append(current())
    f, s = first.version, second.version
    assert seen == [None, f, f, s, s, None, f, None]
    with pytest.raises(StorageError, match="Versions that did not pass their checks"):
        home.open("sky", "scores")
    assert {p.version for p in home.versions("sky", "scores")} == {f, s}
    assert home.open("sky", "scores", version=s).verdict["passed"] is False  # type: ignore[index]


def test_publishing_the_same_content_again_sends_no_byte_of_it_and_reads_none(
    machine: Machine, sent: list[Sent]
) -> None:
    first = publish(machine("here"), pixels=b"p" * 100_000)
    sent.clear()
    second = commit(machine("again"), pixels=b"p" * 100_000)
    assert (second.version, second.manifest) == (first.version, first.manifest)
    listing, same_listing, manifest = sent
    assert listing.method == same_listing.method == manifest.method == "GET"
    assert manifest.path.endswith(f"{first.version}/manifest.json")
    assert publish(machine("here"), pixels=b"p" * 100_000).version == first.version


def test_an_upload_that_was_cut_is_seen_by_nobody_and_finished_by_a_rerun(bucket: Bucket, machine: Machine) -> None:
    home = machine("here")
    whole = publish(Home(home.path.parent / "folder"), pixels=b"p" * 1000)
    cut = Address.parse(f"{bucket.address}/some/where/sky/scores/default/{whole.version}/pixels")
    ObjectStore.from_environment().create(cut, b"p" * 1000, hashlib.sha256(b"p" * 1000).hexdigest())
    assert home.versions("sky", "scores") == []
    with pytest.raises(StorageError, match=rf"no version '{whole.version}'; it has none in s3://"):
        home.open("sky", "scores", version=whole.version)
    publish(home, pixels=b"p" * 1000)
    assert machine("there").open("sky", "scores").verify() == []


def test_other_bytes_under_the_same_name_are_not_overwritten_and_nothing_is_published(
    bucket: Bucket, machine: Machine
) -> None:
    home = machine("here")
    whole = publish(Home(home.path.parent / "folder"))
    key = f"some/where/sky/scores/default/{whole.version}/scores.parquet"
    other = bytes(whole.manifest.files["scores.parquet"].size)
    bucket.client().put_object(Bucket=bucket.name, Key=key, Body=other)
    with pytest.raises(StorageError, match="other bytes are there"):
        publish(home)
    assert bucket.keys() == [key]
    assert bucket.client().get_object(Bucket=bucket.name, Key=key)["Body"].read() == other
    assert home.versions("sky", "scores") == []
    assert [path.name for path in home.shelf("sky", "scores").iterdir() if path.name != ".lock"] == []


def test_an_object_that_somebody_removed_is_named_and_put_back_by_publishing_again(
    bucket: Bucket, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(machine("here"))
    key = f"some/where/sky/scores/default/{published.version}/scores.parquet"
    bucket.client().delete_object(Bucket=bucket.name, Key=key)
    with pytest.raises(StorageError, match=rf"{key}: it was published and is gone"):
        machine("there").open("sky", "scores").read_table()
    assert main(["verify"]) == 0
    assert main(["verify", "--remote"]) == 1
    printed = capsys.readouterr().out
    assert "sound    sky/scores/default" in printed
    assert "1 of their files aren't on this machine" in printed
    assert f"{key}: it was published and is gone" in printed
    publish(machine("here"))
    assert machine("there").open("sky", "scores").read_table().num_rows == 3
    assert main(["verify", "--remote"]) == 0


def test_an_object_that_was_changed_is_refused_by_readers_and_found_by_verify(
    bucket: Bucket, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    published = publish(machine("here"), pixels=b"p" * 100)
    key = f"some/where/sky/scores/default/{published.version}/pixels"
    bucket.client().put_object(Bucket=bucket.name, Key=key, Body=b"p" * 99 + b"q")
    there = machine("there").open("sky", "scores")
    with pytest.raises(StorageError, match="its SHA-256 starts with"):
        there.path("pixels")
    assert not there.is_here("pixels")
    assert main(["verify", "--remote", "--dataset", "sky"]) == 1
    assert key in capsys.readouterr().out


def test_a_damaged_copy_is_refused_and_fetched_again_once_it_is_removed(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(machine("here"))
    copy = machine("there").open("sky", "scores").path("scores.parquet")
    content = bytearray(copy.read_bytes())
    content[40] ^= 1
    copy.write_bytes(content)
    with pytest.raises(StorageError, match="Remove this file: it is fetched again from s3://"):
        read_table("scores")
    assert main(["verify"]) == 1
    assert "damaged  sky/scores" in capsys.readouterr().out
    copy.unlink()
    assert read_table("scores").height == 3


def test_publishing_again_mends_a_damaged_copy(machine: Machine) -> None:
    home = machine("here")
    path = publish(home, pixels=b"p" * 10).path("pixels")
    path.write_bytes(b"q" * 10)
    assert publish(home, pixels=b"p" * 10).verify() == []


def test_objects_are_only_made_listed_and_read_never_overwritten_or_removed(machine: Machine, sent: list[Sent]) -> None:
    for table in (TABLE, TABLE.slice(1), TABLE):
        publish(machine("here"), table)
        publish(machine("here"), table, passed=False)
    machine("there").versions("sky", "scores")[0].verify()
    main(["verify", "--remote"])
    assert {one.method for one in sent} == {"PUT", "GET"}
    assert {one.guard for one in sent if one.method == "PUT"} == {b"*"}


def test_a_local_folder_belongs_to_one_home(
    bucket: Bucket, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    publish(machine("here"))
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"{bucket.address}/another")
    with pytest.raises(ConfigError, match=r"holds local copies of s3://.*/some/where.* LENS_PIPELINE_LOCAL"):
        machine("here")
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path / "here"))
    with pytest.raises(ConfigError, match=r"is no home of its own. Set LENS_PIPELINE_HOME to s3://"):
        Home.from_environment()
    publish(Home(tmp_path / "mine"))
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"{bucket.address}/some/where")
    with pytest.raises(ConfigError, match=r"mine is a home of its own: it holds sky/scores/default"):
        machine("mine")


@pytest.mark.parametrize("variable", ["LENS_PIPELINE_HOME", "LENS_PIPELINE_LOCAL", "LENS_PIPELINE_CACHE"])
@pytest.mark.parametrize("named", ["gs://bucket/home", "file:///home", "S3://bucket/home"])
def test_an_address_is_never_taken_for_a_folder(
    moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"{moto_s3.address}/home")
    monkeypatch.setenv(variable, named)
    if variable == "LENS_PIPELINE_HOME" and named.startswith("S3"):
        assert str(Home.from_environment()) == "s3://bucket/home"
    else:
        with pytest.raises(ConfigError, match=f"{variable} is '{named}', and must be a folder on this machine"):
            Cache.from_environment(Home.from_environment().path)
    assert not list(tmp_path.glob("*:*"))


def test_a_stranger_in_the_log_is_named_and_stops_readers(bucket: Bucket, machine: Machine) -> None:
    publish(machine("here"))
    bucket.client().put_object(Bucket=bucket.name, Key="some/where/_log/sky/scores/default/current.json", Body=b"{}")
    with pytest.raises(StorageError, match=r"1 objects that are no events of its log: current\.json"):
        machine("there").open("sky", "scores")


def test_a_word_after_that_of_a_writer_whose_clock_is_ahead_is_the_last_all_the_same(
    bucket: Bucket, machine: Machine
) -> None:
    home = machine("here")
    ahead, after = commit(home), commit(home, TABLE.slice(1))
    name = f"000001-20990101T000000000000Z-green-{ahead.version}-00000000.json"
    bucket.client().put_object(Bucket=bucket.name, Key=f"some/where/_log/sky/scores/default/{name}", Body=b"{}")
    assert home.open("sky", "scores").version == ahead.version
    home.conclude(after, [])
    assert home.open("sky", "scores").version == after.version


def test_a_manifest_that_names_files_elsewhere_is_refused(bucket: Bucket, machine: Machine) -> None:
    entry = publish(machine("here")).manifest.files["scores.parquet"]
    evil = Manifest("sky", "scores", "default", {"../../../../../secret": entry}, {}, {})
    key = f"some/where/sky/scores/default/{evil.version}/manifest.json"
    bucket.client().put_object(Bucket=bucket.name, Key=key, Body=evil.to_json())
    with pytest.raises(
        StorageError, match=r"manifest\.json is damaged: '\.\.' can't be part of a published file's name"
    ):
        machine("there").open("sky", "scores", version=evil.version)


def test_a_manifest_of_another_shelf_is_refused(bucket: Bucket, machine: Machine) -> None:
    manifest = publish(machine("here")).manifest
    key = f"some/where/land/scores/default/{manifest.version}/manifest.json"
    bucket.client().put_object(Bucket=bucket.name, Key=key, Body=manifest.to_json())
    with pytest.raises(StorageError, match=r"of 'sky': it was copied there by hand"):
        machine("there").open("land", "scores", version=manifest.version)


def test_the_commands_for_folders_alone_and_for_addresses_alone_say_so(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    machine("here")
    assert main(["summary"]) == 1
    assert "was never published in s3://" in capsys.readouterr().err
    assert main(["verify"]) == 1
    assert "on this machine; --remote reads the objects" in capsys.readouterr().err
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path / "folder"))
    assert main(["verify", "--remote"]) == 1
    assert "--remote is for a LENS_PIPELINE_HOME that is an s3:// address" in capsys.readouterr().err


def test_an_address_in_capitals_is_the_same_home(
    bucket: Bucket, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(machine("here"))
    monkeypatch.setenv("LENS_PIPELINE_HOME", f"S3://{bucket.name}/some/where")
    assert machine("here").open("sky", "scores").version == published.version
    assert str(machine("here")) == f"{bucket.address}/some/where"


def test_a_version_without_a_verdict_is_read_by_its_id_alone_as_in_a_folder(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    version = commit(machine("one")).version
    machine("another")
    assert read_table("scores", version=version).height == TABLE.num_rows
    with pytest.raises(StorageError, match="was never published in s3://"):
        read_table("scores")
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path / "folder"))
    assert commit(Home.from_environment()).version == version
    assert read_table("scores", version=version).height == TABLE.num_rows


@on_both_servers
def test_of_eight_writers_at_once_each_is_heard_once_and_the_last_word_wins(bucket: Bucket, tmp_path: Path) -> None:
    racers = Racers.at(f"{bucket.address}/home", tmp_path, 8)
    for _ in range(8):
        before = racers.log()
        racers.race()
        assert racers.what_is_wrong(before) == []
    assert len(racers.log()) == 64


@pytest.mark.parametrize("seed", range(6))
def test_with_a_tenth_of_the_requests_failing_a_version_is_published_whole_or_a_typed_error_says_it_is_not(
    seed: int,
) -> None:
    case = SUBJECT.case(FAULTS.index(ANYTHING) + seed * len(FAULTS))
    assert case.problem is None
    assert case.counts["requests hit"] > 0


def test_killed_at_any_request_readers_see_the_old_version_or_the_new_and_a_rerun_finishes(
    machine: Machine, tmp_path: Path
) -> None:
    # Each publication is first tried by a fork that is killed at its first request, the next one's at its second ...
    script = """
        import os, signal, sys
        import pyarrow as pa
        from lens_pipeline.contracts.checks import green
        from lens_pipeline.storage.home import Home
        from lens_pipeline.storage.s3 import ObjectStore

        def publish(n):
            with home.stage("sky", "scores") as staging:
                staging.write_table(None, pa.table({"n": [n]}))
                staging.write_bytes("pixels", bytes([n]) * 20_000)
                publication = staging.commit()
            home.conclude(publication, [green("sound", "fine")])

        def publish_and_be_killed_at(n, request):
            if child := os.fork():
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            counted, before = ObjectStore._count, home.remote.store.requests
            def count(store):
                counted(store)
                if store.requests - before == request:
                    os.kill(os.getpid(), signal.SIGKILL)
            ObjectStore._count = count
            publish(n)
            os._exit(0)

        def say(*words):
            print(*words, flush=True)
            if not sys.stdin.readline():
                sys.exit("nobody looks")

        home = Home.from_environment()
        publish(0)
        say("published", 0)
        for n in range(1, 100):
            code = publish_and_be_killed_at(n, n)
            say("killed" if code == -signal.SIGKILL else f"ended {code}", n)
            if code != -signal.SIGKILL:
                break
            publish(n)
            say("published", n)
    """
    reader = machine("there")
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        env={**os.environ, "LENS_PIPELINE_LOCAL": str(tmp_path / "here")},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    said: list[str] = []
    seen: list[int] = []
    problems: list[str] = []
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(0.05):
            try:
                seen.append(look(reader))
            except StorageError as error:
                problems.append(str(error))

    polling = threading.Thread(target=poll)
    try:
        for line in process.stdout:
            what, n = line.rsplit(maxsplit=1)
            empty = on_an_empty_machine(reader, tmp_path / f"empty-{len(said)}")
            fresh = look(empty)
            # Also a version that nobody has concluded yet is there as a whole or not at all.
            assert [problem for version in empty.versions("sky", "scores")[-2:] for problem in version.verify()] == []
            assert fresh in (int(n) - 1, int(n)) if what == "killed" else fresh == int(n)
            if not said:
                polling.start()
            said.append(what)
            process.stdin.write("go on\n")
            process.stdin.flush()
    finally:
        stop.set()
        process.stdin.close()
        process.wait()
        process.stdout.close()
    polling.join()
    assert process.returncode == 0
    assert said[-1] == "ended 0"
    assert said.count("killed") >= 9
    assert problems == []
    assert seen
    assert seen == sorted(seen)
    assert list((tmp_path / "here").glob("*/*/*/.staging-*")) == []


def on_an_empty_machine(home: Home, folder: Path) -> Home:
    assert home.remote is not None
    return Home(folder, Remote(home.remote.root, folder, home.remote.store))


def look(home: Home) -> int:
    """Read the current version whole, and return its number."""
    publication = home.open("sky", "scores")
    [n] = publication.read_table()["n"].to_pylist()
    assert publication.path("pixels").read_bytes() == bytes([n]) * 20_000
    return int(n)
