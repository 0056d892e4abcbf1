"""A foreign file can crash, swell or hang only the process that inspects it, and is then refused by name."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lens_pipeline.stamps.inspection import FileRefusedError, Inspector, Limits
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline_tests.stamps.making import make_rows

ROWS = 30


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "sound.parquet"
    pq.write_table(pa.Table.from_pylist(make_rows(ROWS)), path, row_group_size=7)
    return path


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    with Inspector() as inspector:
        yield inspector


def refused(inspector: Inspector, path: Path) -> str:
    with pytest.raises(FileRefusedError) as caught:
        inspector.inspect(path, blob="stamp_npz")
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_sound_file_is_read_through_and_hashed(inspector: Inspector, sound: Path) -> None:
    found = inspector.inspect(sound, blob="stamp_npz")
    assert (found.rows, found.row_groups, found.sha256) == (ROWS, (7, 7, 7, 7, 2), sha256_of(sound))
    assert found.schema.equals(pq.read_schema(sound))
    assert inspector.footer(sound).sha256 is None


def repeated(path: Path, value: bytes, n: int, name: str = "stamp_npz") -> Path:
    """Write one value n times, which takes little more room than once."""
    dtype = pa.binary() if name == "stamp_npz" else pa.string()
    column = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), pa.array([value], dtype))
    padding = pa.array([os.urandom(1)] * n, pa.binary())
    table = pa.table({name: column, "padding": padding})
    pq.write_table(table, path, compression="none", store_schema=False, use_dictionary=[name])
    return path


def test_a_small_file_that_swells_when_it_is_read_is_refused_for_its_memory(tmp_path: Path) -> None:
    path = repeated(tmp_path / "bomb.parquet", bytes(1 << 20), 256)
    assert path.stat().st_size < 2 << 20
    with Inspector(Limits(memory=128 << 20)) as inspector:
        assert "needs more than 128 MiB of memory" in refused(inspector, path)
        assert inspector.inspect(repeated(path, bytes(1 << 10), 256), blob="stamp_npz").rows == 256


def test_a_file_that_keeps_a_core_busy_is_stopped(tmp_path: Path) -> None:
    path = repeated(tmp_path / "slow.parquet", b"a" * 4000, 2_000_000, "text")
    with Inspector(Limits(cpu_s=0, bytes_per_cpu_s=1 << 60)) as inspector:
        assert "kept a core busy for too long" in refused(inspector, path)


def test_a_process_that_dies_is_a_refusal_and_the_next_file_gets_another_process(sound: Path, tmp_path: Path) -> None:
    path = repeated(tmp_path / "slow.parquet", b"a" * 4000, 1_000_000, "text")
    with Inspector() as inspector:
        inspector.inspect(sound, blob="stamp_npz")
        assert inspector._process is not None
        crash = threading.Timer(0.1, os.kill, (inspector._process.pid, signal.SIGSEGV))
        crash.start()
        assert "died of SIGSEGV" in refused(inspector, path)
        crash.join()
        assert inspector.inspect(sound, blob="stamp_npz").rows == ROWS
        assert inspector.n_started == 2


def test_a_process_that_was_ended_between_two_files_is_nobodys_fault(sound: Path) -> None:
    with Inspector() as inspector:
        inspector.inspect(sound, blob="stamp_npz")
        assert inspector._process is not None
        inspector._process.kill()
        inspector._process.wait()
        assert inspector.inspect(sound, blob="stamp_npz").rows == ROWS


def test_a_file_that_takes_too_long_is_stopped(sound: Path) -> None:
    with Inspector(Limits(wall_s=0)) as inspector:
        assert "took more than 0 s, and was stopped" in refused(inspector, sound)


def test_a_pipe_a_link_and_a_cut_file_are_refused_without_reading(
    inspector: Inspector, sound: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.parquet"
    os.mkfifo(pipe)
    assert "no regular file" in refused(inspector, pipe)
    link = tmp_path / "link.parquet"
    link.symlink_to(sound)
    assert "no regular file" in refused(inspector, link)
    sound.write_bytes(sound.read_bytes()[:-9])
    assert "cut off" in refused(inspector, sound)


def test_a_footer_that_promises_more_than_the_file_can_hold_is_refused(inspector: Inspector, tmp_path: Path) -> None:
    path = tmp_path / "empty_rows.parquet"
    pq.write_table(pa.table({"task_id": pa.nulls(50_000_000, pa.string())}), path)
    assert path.stat().st_size < 1 << 20
    assert "promises 50,000,000 rows" in refused(inspector, path)


def test_text_that_is_no_utf8_is_refused_before_python_meets_it(inspector: Inspector, sound: Path) -> None:
    content = bytearray(sound.read_bytes())
    place = content.index(b"region 3")
    content[place] = 0xFF
    sound.write_bytes(content)
    assert "UTF8" in refused(inspector, sound)


def test_the_process_knows_no_credentials(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    with Inspector() as inspector:
        inspector.inspect(sound, blob="stamp_npz")
        assert inspector._process is not None
        assert b"hidden" not in Path(f"/proc/{inspector._process.pid}/environ").read_bytes()


def test_the_process_dies_with_whoever_started_it(sound: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lens_pipeline.stamps.inspection import Inspector\n"
        "inspector = Inspector(); inspector.footer(Path(sys.argv[1])); print(inspector._process.pid, flush=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(sound)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        process = psutil.Process(int(starter.stdout.readline()))
        # Stopped, it can't see that its input has ended.
        process.suspend()
        starter.kill()
    gone, _ = psutil.wait_procs([process], timeout=30)
    assert gone or process.status() == psutil.STATUS_ZOMBIE
