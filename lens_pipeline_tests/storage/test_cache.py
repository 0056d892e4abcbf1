"""The cache of objects: never another's bytes, never more than its quota, never a wait for what it just put out."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from lens_pipeline.cli.main import main
from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.storage.atomic import locked
from lens_pipeline.storage.cache import Cache
from lens_pipeline.storage.s3 import Address, ObjectChangedError, ObjectInfo, ObjectStore
from lens_pipeline_tests.s3_servers import Bucket
from lens_pipeline_tests.storage.fault_proxy import FaultProxy, fault_proxy
from lens_pipeline_tests.storage.test_s3 import files_of_at_most, put_in_parts

SIZE = 100_000


@pytest.fixture
def proxy(moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(moto_s3.environment["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield proxy


@pytest.fixture
def store(proxy: FaultProxy) -> ObjectStore:
    return ObjectStore.from_environment()


def put(bucket: Bucket, name: str, content: bytes) -> ObjectInfo:
    etag = bucket.client().put_object(Bucket=bucket.name, Key=f"source/{name}", Body=content)["ETag"].strip('"')
    return ObjectInfo(Address(bucket.name, f"source/{name}"), len(content), etag)


def content_of(number: int, size: int = SIZE) -> bytes:
    return hashlib.sha256(b"%d" % number).digest() * (size // 32) + bytes(size % 32)


def gets(proxy: FaultProxy) -> list[str]:
    return [asked.path.rpartition("/")[2] for asked, _ in proxy.asked if asked.kind == "GET"]


def files(cache: Cache) -> list[Path]:
    """Files that hold objects, kept or being fetched."""
    folders = [found for part in ("objects", "fetching") for found in os.walk(cache.folder / part)]
    return [Path(folder, name) for folder, _, names in folders for name in names if name != ".lock"]


def leased(cache: Cache, store: ObjectStore, info: ObjectInfo, sha256: str | None = None) -> bytes:
    with cache.lease(store, info, sha256=sha256) as lease:
        content = lease.path.read_bytes()
        assert lease.sha256 == hashlib.sha256(content).hexdigest()
        return content


def test_what_was_fetched_once_is_not_fetched_again(
    proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path / "cache", 10 * SIZE), put(moto_s3, "it", content_of(1))
    for _ in range(3):
        assert leased(cache, store, info) == content_of(1)
    assert leased(cache, store, info, hashlib.sha256(content_of(1)).hexdigest()) == content_of(1)
    assert leased(Cache(tmp_path / "cache", 10 * SIZE), ObjectStore.from_environment(), info) == content_of(1)
    assert gets(proxy) == ["it"]
    assert cache.counts == {"fetched": 1, "kept": 3}
    assert cache.used() == SIZE


def test_the_same_bytes_at_another_address_are_kept_once(moto_s3: Bucket, store: ObjectStore, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 10 * SIZE)
    for name in ("one", "two"):
        assert leased(cache, store, put(moto_s3, name, content_of(1))) == content_of(1)
    assert cache.used() == SIZE
    assert len(files(cache)) == 1


def test_a_lease_outlives_the_same_bytes_from_another_address(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache = Cache(tmp_path, 10 * SIZE)
    with cache.lease(store, put(moto_s3, "one", content_of(1)), sha256=None) as lease:
        leased(cache, store, put(moto_s3, "two", content_of(1)))
        assert cache.prune() == 0
        assert lease.path.read_bytes() == content_of(1)


@pytest.mark.parametrize("bit", [0, 8 * SIZE - 1])
def test_a_flipped_bit_in_the_cache_is_found_and_the_object_fetched_again(
    bit: int, proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path, 10 * SIZE), put(moto_s3, "it", content_of(1))
    leased(cache, store, info)
    [path] = files(cache)
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8] ^= 1 << bit % 8
    path.chmod(0o644)
    path.write_bytes(damaged)
    assert leased(cache, store, info) == content_of(1)
    assert cache.counts == {"fetched": 2, "damaged": 1}
    assert leased(cache, store, info) == content_of(1)
    assert gets(proxy) == ["it", "it"]


def test_a_damaged_note_of_what_an_object_held_costs_a_fetch_and_nothing_else(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info, other = (
        Cache(tmp_path, 10 * SIZE),
        put(moto_s3, "it", content_of(1)),
        put(moto_s3, "other", content_of(2)),
    )
    leased(cache, store, info)
    leased(cache, store, other)
    for path in (tmp_path / "known").iterdir():
        content = path.read_bytes()
        body = json.dumps([info.etag, str(SIZE), hashlib.sha256(content_of(2)).hexdigest()]).encode()
        path.write_bytes(content[:64] + body)
    assert leased(cache, store, info) == content_of(1)
    assert cache.used() == 2 * SIZE


def test_a_full_cache_passes_the_same_bytes_and_puts_nothing_out(
    proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    infos = [put(moto_s3, str(number), content_of(number)) for number in range(5)]
    cache = Cache(tmp_path, 2 * SIZE + SIZE // 2)
    for _ in range(3):
        for number, info in enumerate(infos):
            with cache.lease(store, info, sha256=None) as lease:
                assert lease.path.read_bytes() == content_of(number)
                assert cache.used() <= cache.quota
    assert cache.counts == {"fetched": 2, "kept": 4, "passed": 9}
    assert [gets(proxy).count(str(number)) for number in range(5)] == [1, 1, 3, 3, 3]
    assert len(files(cache)) == 2


def test_without_a_quota_objects_only_pass(moto_s3: Bucket, store: ObjectStore, tmp_path: Path) -> None:
    cache, info = Cache(tmp_path, 0), put(moto_s3, "it", content_of(1))
    for _ in range(2):
        assert leased(cache, store, info) == content_of(1)
    with pytest.raises(LookupError), cache.lease(store, info, sha256=None) as lease:
        raise LookupError(lease.path)
    assert cache.counts == {"passed": 3}
    assert files(cache) == []


def test_a_changed_source_is_never_served_stale_and_its_old_bytes_make_room(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, old = Cache(tmp_path, SIZE), put(moto_s3, "it", content_of(1))
    assert leased(cache, store, old) == content_of(1)
    new = put(moto_s3, "it", content_of(2))
    assert leased(cache, store, new) == content_of(2)
    assert leased(cache, store, new) == content_of(2)
    assert leased(cache, store, new) == content_of(2)
    assert cache.counts == {"fetched": 2, "passed": 1, "kept": 1}
    with pytest.raises(ObjectChangedError, match="replaced"):
        leased(cache, store, old)
    assert cache.used() == SIZE


def test_a_hash_that_somebody_expects_is_not_taken_for_what_an_object_holds(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path, 10 * SIZE), put(moto_s3, "it", content_of(1))
    leased(cache, store, info)
    other = put(moto_s3, "other", content_of(2))
    assert leased(cache, store, other, hashlib.sha256(content_of(1)).hexdigest()) == content_of(1)
    assert leased(cache, store, other) == content_of(2)


def test_an_object_of_another_server_is_another_object(
    moto_s3: Bucket, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = content_of(1)
    put_in_parts(moto_s3, "source/it", content)
    [info] = store.list(Address(moto_s3.name, "source"))
    cache = Cache(tmp_path, 10 * SIZE)
    leased(cache, store, info)
    with fault_proxy(moto_s3.environment["AWS_ENDPOINT_URL_S3"]) as elsewhere:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", elsewhere.address)
        leased(cache, ObjectStore.from_environment(), info)
        assert len(gets(elsewhere)) == 2
    assert cache.used() == SIZE


def test_a_leased_file_is_not_pruned_and_others_go_the_longest_unused_first(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, infos = Cache(tmp_path, 10 * SIZE), [put(moto_s3, str(number), content_of(number)) for number in range(4)]
    paths = []
    for number, info in enumerate(infos):
        with cache.lease(store, info, sha256=None) as lease:
            paths.append(lease.path)
        os.utime(lease.path, ns=(number, number))
    with cache.lease(store, infos[0], sha256=None) as lease:
        assert cache.prune(2 * SIZE) == 2 * SIZE
        assert [path.exists() for path in paths] == [True, False, False, True]
        assert cache.prune() == SIZE
        assert lease.path.read_bytes() == content_of(0)
    assert cache.prune() == SIZE
    assert cache.used() == 0
    assert leased(cache, store, infos[0]) == content_of(0)


def test_the_command_prunes_what_nobody_reads_and_says_how_much(
    moto_s3: Bucket,
    store: ObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_CACHE", str(tmp_path / "cache"))
    assert main(["prune"]) == 0
    assert f"nothing is cached: there is no folder {tmp_path / 'cache'}" in capsys.readouterr().out
    assert not (tmp_path / "cache").exists()
    cache = Cache.from_environment(tmp_path)
    infos = [put(moto_s3, str(number), content_of(number)) for number in range(4)]
    for info in infos:
        leased(cache, store, info)
    assert main(["prune", "--keep", str(3 * SIZE)]) == 0
    said = capsys.readouterr().out
    assert f"{SIZE:,} bytes of fetched objects were removed from {cache.folder}, {3 * SIZE:,} are kept." in said
    assert "asked for" not in said
    with cache.lease(store, infos[3], sha256=None) as lease:
        assert main(["prune"]) == 0
        assert lease.path.exists()
    said = capsys.readouterr().out
    assert f"{2 * SIZE:,} bytes of fetched objects were removed from {cache.folder}, {SIZE:,} are kept." in said
    assert "more than the 0 asked for: the others are being read or fetched" in said
    with pytest.raises(SystemExit):
        main(["prune", "--keep", "-1"])
    assert "is no whole number of bytes" in capsys.readouterr().err


def test_threads_that_want_one_object_fetch_it_once(
    proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path, 10 * SIZE), put(moto_s3, "it", content_of(1))
    start = threading.Barrier(8)

    def want(_: int) -> bytes:
        start.wait()
        return leased(cache, store, info)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(want, range(8))) == [content_of(1)] * 8
    assert gets(proxy) == ["it"]


def test_room_is_counted_by_one_at_a_time(
    proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path, 10 * SIZE), put(moto_s3, "it", content_of(1))
    store.head(info.address)
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path):
            waiting = pool.submit(leased, cache, store, info)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=1.0)
            assert gets(proxy) == []
        assert waiting.result() == content_of(1)


WORKERS = """
    import hashlib, os, sys
    from pathlib import Path
    from lens_pipeline.storage.cache import Cache
    from lens_pipeline.storage.s3 import Address, ObjectStore
    from lens_pipeline_tests.storage.test_cache import content_of

    bucket, folder, quota, workers = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    store, cache = ObjectStore.from_environment(), Cache(folder, quota)
    infos = store.list(Address(bucket, "source"))
    ready, start = os.pipe(), os.pipe()
    for worker in range(workers):
        if os.fork() == 0:
            store.head(infos[0].address)
            os.close(start[1])
            os.write(ready[1], b"r")
            os.read(start[0], 1)
            for turn in range(len(infos)):
                info = infos[(turn + worker) % len(infos)]
                with cache.lease(store, info, sha256=None) as lease:
                    if lease.path.read_bytes() != content_of(int(info.address.name)):
                        os._exit(1)
            sys.stdout.write(f"{cache.counts['fetched']} {cache.counts['passed']}\\n")
            sys.stdout.flush()
            os._exit(0)
    for _ in range(workers):
        os.read(ready[0], 1)
    os.close(start[1])
    for _ in range(workers):
        if os.wait()[1]:
            sys.exit("a worker was given other bytes")
"""


def test_eight_processes_never_overshoot_the_quota_and_fetch_what_they_keep_once(
    proxy: FaultProxy, moto_s3: Bucket, tmp_path: Path
) -> None:
    n, workers = 6, 8
    for number in range(n):
        put(moto_s3, str(number), content_of(number))
    cache = Cache(tmp_path, 4 * SIZE - 1)
    arguments = [moto_s3.name, str(cache.folder), str(cache.quota), str(workers)]
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WORKERS), *arguments], stdout=subprocess.PIPE, text=True
    )
    largest = 0
    while process.poll() is None:
        largest = max(largest, bytes_in_account(cache))
        time.sleep(0.002)
    assert process.stdout is not None
    counted = [[int(word) for word in line.split()] for line in process.stdout.read().splitlines()]
    assert process.returncode == 0
    assert len(counted) == workers
    fetched, passed = (sum(column) for column in zip(*counted, strict=True))
    assert fetched == 3
    assert fetched + passed == len(gets(proxy))
    assert 2 * SIZE < largest <= cache.quota
    assert cache.used() == bytes_in_account(cache) == 3 * SIZE


def bytes_in_account(cache: Cache) -> int:
    """Bytes on disk, kept or fetched to be kept; whoever only passes one has reserved none."""
    total = 0
    seen = set()
    for path in files(cache):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        passing = path.parts[-2].startswith("0-")
        if not passing and found.st_ino not in seen:
            seen.add(found.st_ino)
            total += found.st_size
    return total


FILLER = """
    import sys
    from pathlib import Path
    from lens_pipeline.storage.cache import Cache
    from lens_pipeline.storage.s3 import Address, ObjectStore

    store = ObjectStore.from_environment()
    [info] = store.list(Address(sys.argv[1], "source"))
    with Cache(Path(sys.argv[2]), int(sys.argv[3])).lease(store, info, sha256=None) as lease:
        print(lease.path)
"""


@pytest.mark.parametrize("quota", [SIZE, 0])
def test_a_killed_filler_leaves_nothing_that_counts_or_is_served(
    quota: int, proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    info, cache = put(moto_s3, "it", content_of(1)), Cache(tmp_path, quota)
    proxy.begin(lambda asked: "stall_in_body" if asked.kind == "GET" else None)
    arguments = [moto_s3.name, str(tmp_path), str(quota)]
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(FILLER), *arguments], stdout=subprocess.PIPE)
    while not any(path.stat().st_size for path in files(cache)):
        assert process.poll() is None
        time.sleep(0.005)
    assert cache.used() == quota
    process.send_signal(signal.SIGKILL)
    assert process.communicate()[0] == b""
    proxy.begin(lambda asked: None)
    assert cache.used() == 0
    assert files(cache) == []
    assert leased(cache, store, info) == content_of(1)
    assert cache.used() == quota


def test_a_forked_process_that_ends_does_not_end_its_parents_lease(
    moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    info, cache, stack = put(moto_s3, "it", content_of(1)), Cache(tmp_path, 0), ExitStack()
    lease = stack.enter_context(cache.lease(store, info, sha256=None))
    child = os.fork()
    if child == 0:
        stack.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    cache.prune()
    assert lease.path.read_bytes() == content_of(1)
    stack.close()
    assert files(cache) == []


def test_a_fetch_that_fails_leaves_nothing(
    proxy: FaultProxy, moto_s3: Bucket, store: ObjectStore, tmp_path: Path
) -> None:
    cache, info = Cache(tmp_path, 10 * SIZE), put(moto_s3, "it", content_of(1))
    proxy.begin(lambda asked: "status_403_AccessDenied")
    with pytest.raises(StorageError, match="refuses these credentials"):
        leased(cache, store, info)
    proxy.begin(lambda asked: None)
    with files_of_at_most(SIZE // 2), pytest.raises(StorageError, match="LENS_PIPELINE_CACHE"):
        leased(cache, store, info)
    assert files(cache) == []
    assert cache.used() == 0
    assert leased(cache, store, info) == content_of(1)


def test_the_environment_names_folder_and_quota(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("LENS_PIPELINE_CACHE", "LENS_PIPELINE_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    assert Cache.from_environment(tmp_path) == Cache(tmp_path / ".cache", 50_000_000_000)
    monkeypatch.setenv("LENS_PIPELINE_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("LENS_PIPELINE_CACHE_BYTES", "1000")
    assert Cache.from_environment(tmp_path) == Cache(tmp_path / "elsewhere", 1000)
    for wrong in ("-1", "1e9", "much", "²"):
        monkeypatch.setenv("LENS_PIPELINE_CACHE_BYTES", wrong)
        with pytest.raises(ConfigError, match="LENS_PIPELINE_CACHE_BYTES"):
            Cache.from_environment(tmp_path)
