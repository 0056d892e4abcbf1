"""The S3 client against real servers, and against servers and networks at their worst."""

import base64
import hashlib
import io
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from lens_pipeline.contracts.errors import ConfigError, PipelineError, StorageError
from lens_pipeline.storage import s3_reading, s3_writing
from lens_pipeline.storage.s3 import (
    AccessError,
    Address,
    ObjectChangedError,
    ObjectInfo,
    ObjectStore,
    Patience,
    S3Error,
    is_address,
)
from lens_pipeline.storage.sources import is_own
from lens_pipeline_tests.s3_servers import Bucket
from lens_pipeline_tests.storage.fault_proxy import FAULTS, Asked, FaultProxy, fault_proxy
from reliability import s3_faults

HASTY = Patience(connect_s=1.0, read_s=0.4, request_s=0.8, backoff_s=0.001, longest_backoff_s=0.01)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=["swift_s3", "moto_s3"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found: Bucket = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def home(bucket: Bucket) -> Address:
    return Address(bucket.name, "some/prefix")


@pytest.fixture
def store(bucket: Bucket) -> ObjectStore:
    return ObjectStore.from_environment()


@pytest.fixture
def proxy(moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(moto_s3.environment["AWS_ENDPOINT_URL_S3"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        yield proxy


def first(fault: str, n: int = 1, kind: str | None = None) -> Callable[[Asked], str | None]:
    """Plan that does a fault to the first n requests that it can be done to."""
    left = [n]

    def plan(asked: Asked) -> str | None:
        if left[0] == 0 or asked.kind not in ({kind} if kind else FAULTS[fault].kinds):
            return None
        left[0] -= 1
        return fault

    return plan


def put_in_parts(bucket: Bucket, key: str, content: bytes) -> None:
    client, name = bucket.client(), {"Bucket": bucket.name, "Key": key}
    upload = {**name, "UploadId": client.create_multipart_upload(**name)["UploadId"]}
    etag = client.upload_part(**upload, PartNumber=1, Body=content)["ETag"]
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": etag}]})


def test_what_was_created_is_listed_and_read_back_one_request_an_object(
    bucket: Bucket, store: ObjectStore, home: Address, tmp_path: Path
) -> None:
    contents = {f"part {number} é+%.bin": bytes([number]) * (number * 70_000) for number in range(4)}
    for name, content in contents.items():
        assert store.create(home / name, content, sha256(content))
    bucket.client().put_object(Bucket=bucket.name, Key="some/prefix-of-another", Body=b"not below it")
    bucket.client().put_object(Bucket=bucket.name, Key="some/prefix/", Body=b"")
    before = store.requests
    infos = store.list(home)
    assert [(info.address.name, info.size) for info in infos] == [(n, len(c)) for n, c in contents.items()]
    assert store.requests - before == 2
    for info in infos:
        path, before = tmp_path / info.address.name, store.requests
        assert store.download(info, path) == sha256(contents[info.address.name])
        assert store.requests - before == 1
        assert path.read_bytes() == contents[info.address.name]
        assert store.read(info.address, at_most=1 << 20) == contents[info.address.name]
        assert store.head(info.address) == info
    assert store.head(home / "nothing") is None
    assert store.read(home / "nothing", at_most=10) is None
    assert store.list(home / "nothing") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(contents)


def test_nothing_that_was_written_is_written_again(store: ObjectStore, home: Address, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"first")
    assert store.create(home / "it", path, sha256(b"first"))
    assert not store.create(home / "it", b"first", sha256(b"first"))
    with pytest.raises(StorageError, match="other bytes are there"):
        store.create(home / "it", b"other", sha256(b"other"))
    assert store.read(home / "it", at_most=10) == b"first"


def test_of_many_writers_of_the_same_bytes_one_makes_the_object(moto_s3: Bucket) -> None:
    store, at = ObjectStore.from_environment(), Address(moto_s3.name, "it")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: store.create(at, b"same", sha256(b"same")), range(8)))
    assert sorted(made) == [False] * 7 + [True]


def test_of_many_writers_of_other_bytes_the_losers_are_told(bucket: Bucket, store: ObjectStore, home: Address) -> None:
    contents = [b"number %d" % number for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        racing = [pool.submit(store.create, home / "it", content, sha256(content)) for content in contents]
    errors = [future.exception() for future in racing]
    winners = [content for content, error in zip(contents, errors, strict=True) if error is None]
    assert all(isinstance(error, S3Error) for error in errors if error is not None)
    assert store.read(home / "it", at_most=99) in winners
    if bucket.environment["AWS_ACCESS_KEY_ID"] == "anybody":
        # Swift is only nearly exclusive: its writers of the same moment may all be told that they made it.
        assert len(winners) == 1


def test_a_replaced_or_removed_object_is_not_what_was_listed(
    bucket: Bucket, store: ObjectStore, home: Address, tmp_path: Path
) -> None:
    store.create(home / "it", b"first", sha256(b"first"))
    [info] = store.list(home)
    bucket.client().put_object(Bucket=bucket.name, Key=info.address.key, Body=b"other")
    for at in (info, ObjectInfo(home / "gone", 5, info.etag)):
        with pytest.raises(ObjectChangedError, match=r"replaced|gone"):
            store.download(at, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_object_uploaded_in_parts_is_read_twice_unless_its_hash_is_known(
    bucket: Bucket, store: ObjectStore, home: Address, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 400
    put_in_parts(bucket, "some/prefix/parts", content)
    [info] = store.list(home)
    assert "-" in info.etag
    before = store.requests
    assert store.download(info, tmp_path / "file") == sha256(content)
    assert store.requests - before == 2
    assert store.download(info, tmp_path / "file", sha256=sha256(content)) == sha256(content)
    assert store.requests - before == 3
    with pytest.raises(ObjectChangedError, match="expected was 00000"):
        store.download(info, tmp_path / "file", sha256="0" * 64)
    assert (tmp_path / "file").read_bytes() == content


def test_a_server_that_checks_uploads_refuses_a_damaged_one_and_gets_it_again(
    swift_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, at = bytes(range(256)) * 40, Address(swift_s3.name, "it")
    with fault_proxy(swift_s3.environment["AWS_ENDPOINT_URL_S3"], first("flipped_bit_in_upload")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        store = ObjectStore.from_environment(HASTY)
        assert store.create(at, content, sha256(content))
        assert [fault for _, fault in proxy.asked] == ["flipped_bit_in_upload", None]
        assert store.read(at, at_most=1 << 20) == content


@pytest.mark.parametrize("fault", ["flipped_bit_in_upload", "truncated_upload"])
def test_the_checksum_that_is_sent_lets_a_server_refuse_damage(fault: str, proxy: FaultProxy, moto_s3: Bucket) -> None:
    store, at, content = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it"), bytes(range(256)) * 40
    proxy.begin(first(fault), strict=True)
    assert store.create(at, content, sha256(content))
    assert [fault for _, fault in proxy.asked] == [fault, None]
    proxy.begin(first(fault), strict=False)
    with pytest.raises(S3Error, match="other bytes are there"):
        store.create(at / "unchecked", content, sha256(content))


def test_a_large_object_that_is_there_already_is_not_sent_again(proxy: FaultProxy, moto_s3: Bucket) -> None:
    store, at, content = ObjectStore.from_environment(), Address(moto_s3.name, "large"), bytes(9 << 20)
    assert store.create(at, content, sha256(content))
    proxy.begin(lambda asked: None)
    assert not store.create(at, content, sha256(content))
    assert [asked.kind for asked, _ in proxy.asked] == ["HEAD", "GET"]


def test_an_object_that_is_too_large_is_refused_unread(moto_s3: Bucket) -> None:
    store, at = ObjectStore.from_environment(), Address(moto_s3.name, "large")
    store.create(at, bytes(1000), sha256(bytes(1000)))
    assert store.read(at, at_most=1000) == bytes(1000)
    with pytest.raises(S3Error, match="it has 1,000 bytes, 999 are the most"):
        store.read(at, at_most=999)


def test_a_file_that_changed_after_it_was_hashed_is_not_sent(moto_s3: Bucket, tmp_path: Path) -> None:
    store, path = ObjectStore.from_environment(), tmp_path / "file"
    path.write_bytes(b"changed")
    with pytest.raises(StorageError, match="it changed after it was hashed"):
        store.create(Address(moto_s3.name, "it"), path, sha256(b"hashed"))
    assert store.requests == 0
    assert moto_s3.keys() == []


def test_keys_that_are_no_addresses_are_named_not_left_out(moto_s3: Bucket) -> None:
    for key in ("data/good", "data/../up", "data//double"):
        moto_s3.client().put_object(Bucket=moto_s3.name, Key=key, Body=b"it")
    with pytest.raises(S3Error, match=r"2 keys can't be addresses: 'data/../up', 'data//double'"):
        ObjectStore.from_environment().list(Address(moto_s3.name, "data"))


@pytest.mark.parametrize("name", s3_faults.NAMES)
def test_under_every_fault_a_job_ends_byte_identical_or_as_a_typed_error(name: str) -> None:
    case = s3_faults.tried(name, seed=0, rate=0.0)
    assert case.problem is None
    for figure, bound in s3_faults.SUBJECT.bounds.items():
        assert case.largest[figure] <= bound


@pytest.mark.parametrize("fault", ["status_503_SlowDown", "reset_before_answer", "stall_before_answer", "flipped_bit"])
def test_a_server_that_never_recovers_is_asked_eight_times(
    fault: str, proxy: FaultProxy, moto_s3: Bucket, tmp_path: Path
) -> None:
    store, at = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it")
    store.create(at, bytes(1000), sha256(bytes(1000)))
    info = store.head(at)
    assert info is not None
    proxy.begin(lambda asked: fault)
    before = store.requests
    with pytest.raises(S3Error, match="gave up after 8 requests") as caught:
        store.download(info, tmp_path / "file")
    assert store.requests - before == len(proxy.asked) == 8
    assert str(at) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_comes_twice_is_asked_for_again(moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        moto_s3.client().put_object(Bucket=moto_s3.name, Key=f"data/{number}", Body=b"it")
    with fault_proxy(moto_s3.environment["AWS_ENDPOINT_URL_S3"], pages=333) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        store, at = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "data")
        right = store.list(at)
        fault_free = len(proxy.asked)
        proxy.begin(lambda asked: "repeated_page" if asked.number == 1 else None)
        assert store.list(at) == right
        assert len(proxy.asked) == fault_free + 1


@pytest.mark.parametrize("fault", ["dripping_header", "dripping_body"])
def test_a_server_that_sends_a_byte_now_and_then_is_cut(fault: str, proxy: FaultProxy, moto_s3: Bucket) -> None:
    store, at = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it")
    store.create(at, bytes(1000), sha256(bytes(1000)))
    proxy.begin(first(fault, kind="GET"))
    assert store.read(at, at_most=1000) == bytes(1000)
    wait_until(lambda: proxy.n_cut == 1)
    assert [fault for _, fault in proxy.asked] == [fault, None]


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it never came to that")


@pytest.mark.parametrize(
    ("fault", "says", "kind"),
    [
        ("status_400_ExpiredToken", "credentials have expired", AccessError),
        ("status_403_RequestTimeTooSkewed", "clock", AccessError),
        ("status_403_AccessDenied", "refuses these credentials", AccessError),
        ("status_301_PermanentRedirect", "set AWS_REGION", S3Error),
        ("status_400_AuthorizationHeaderMalformed", "set AWS_REGION", S3Error),
    ],
)
def test_refused_credentials_a_wrong_clock_and_a_wrong_region_are_said_at_once(
    fault: str, says: str, kind: type[S3Error], proxy: FaultProxy, moto_s3: Bucket
) -> None:
    store = ObjectStore.from_environment(HASTY)
    for ask in (store.list, lambda at: store.read(at, at_most=9), lambda at: store.create(at, b"", sha256(b""))):
        proxy.begin(lambda asked: fault)
        with pytest.raises(kind, match=says):
            ask(Address(moto_s3.name, "it"))
        assert len(proxy.asked) == 1


def test_a_wrong_secret_is_refused_by_a_server_that_checks_it(
    swift_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = ObjectStore.from_environment()
    with pytest.raises(AccessError, match="AWS_SECRET_ACCESS_KEY"):
        store.list(Address(swift_s3.name))
    assert store.requests == 1


def test_a_bucket_that_is_not_there_is_an_error_not_an_empty_list(bucket: Bucket, store: ObjectStore) -> None:
    missing = Address("no-such-bucket-anywhere", "it")
    for ask in (store.list, lambda at: store.read(at, at_most=9), lambda at: store.create(at, b"", sha256(b""))):
        with pytest.raises(S3Error, match="Make the bucket"):
            ask(missing)


@pytest.mark.parametrize(
    "fault", ["answer_lost_after_success", "answer_stalls_after_success", "status_500_after_success"]
)
def test_a_write_whose_answer_was_lost_is_found_done_and_not_called_ours(
    fault: str, proxy: FaultProxy, moto_s3: Bucket
) -> None:
    store, at = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it")
    proxy.begin(first(fault))
    assert not store.create(at, b"content", sha256(b"content"))
    assert [asked.kind for asked, _ in proxy.asked] == ["PUT", "PUT", "GET"]
    assert store.read(at, at_most=10) == b"content"


def test_a_server_says_how_long_to_wait_and_is_believed_within_bounds(
    proxy: FaultProxy, moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    patience = Patience(backoff_s=0.01, longest_backoff_s=5.0)
    for asked_for, longest in (("3", 3.0), ("3600", 5.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.01), ("nonsense", 0.01)):
        monkeypatch.setitem(FAULTS, "busy", s3_faults_busy(asked_for))
        proxy.begin(first("busy"))
        waits.clear()
        ObjectStore.from_environment(patience).head(Address(moto_s3.name, "it"))
        assert len(waits) == 1
        assert longest / 2 <= waits[0] <= longest


def s3_faults_busy(asked_for: str) -> Any:
    from lens_pipeline_tests.storage import fault_proxy as module

    answer = module._error(503, "SlowDown", Retry_After=asked_for)
    return module.Fault(frozenset({"HEAD"}), lambda exchange: exchange.handler.answer(answer))


def test_a_full_disk_is_not_asked_again_and_leaves_nothing(proxy: FaultProxy, moto_s3: Bucket, tmp_path: Path) -> None:
    store, at, content = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it"), bytes(300_000)
    store.create(at, content, sha256(content))
    info = store.head(at)
    assert info is not None
    proxy.begin(lambda asked: None)
    with files_of_at_most(100_000), pytest.raises(OSError, match="File too large"):
        store.download(info, tmp_path / "file")
    assert len(proxy.asked) == 1
    assert list(tmp_path.iterdir()) == []


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Let this process write no larger files: what a full disk is to it."""
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_forked_process_makes_its_own_connections(moto_s3: Bucket) -> None:
    store, home = ObjectStore.from_environment(), Address(moto_s3.name)
    contents = [bytes([number]) * 50_000 for number in range(6)]
    for number, content in enumerate(contents):
        store.create(home / str(number), content, sha256(content))
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            right = all(store.read(home / str(n % 6), at_most=1 << 20) == contents[n % 6] for n in range(30))
            os._exit(0 if right and os.getpid() in store._clients else 1)
        children.append(child)
    for number in range(30):
        assert store.read(home / str(number % 6), at_most=1 << 20) == contents[number % 6]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("AWS_ACCESS_KEY_ID", None, "AWS_ACCESS_KEY_ID must be set"),
        ("AWS_SECRET_ACCESS_KEY", None, "AWS_SECRET_ACCESS_KEY must be set"),
        ("LENS_PIPELINE_S3_ALLOW_HTTP", None, "LENS_PIPELINE_S3_ALLOW_HTTP=1"),
        ("LENS_PIPELINE_S3_ALLOW_HTTP", "yes", "LENS_PIPELINE_S3_ALLOW_HTTP=1"),
        ("AWS_ENDPOINT_URL_S3", "s3.example.org", "must be a URL"),
        ("AWS_ENDPOINT_URL_S3", "ftp://s3.example.org", "must be a URL"),
        ("AWS_ENDPOINT_URL_S3", "https://[broken", "must be a URL"),
        ("AWS_ENDPOINT_URL_S3", "https://me:canary@s3.example.org", "holds a user name or password"),
    ],
)
def test_what_the_environment_lacks_is_named(
    setting: str, value: str | None, says: str, moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(setting) if value is None else monkeypatch.setenv(setting, value)
    with pytest.raises(ConfigError, match=says) as caught:
        ObjectStore.from_environment()
    assert "canary" not in str(caught.value)


def test_credentials_and_settings_in_files_are_not_looked_at(
    moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(
        "[default]\nregion = nowhere\nendpoint_url = http://127.0.0.1:1\nca_bundle = /none\n"
    )
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = stored\naws_secret_access_key = stored\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    at = Address(moto_s3.name, "it")
    assert ObjectStore.from_environment().create(at, b"it", sha256(b"it"))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigError, match=r"nothing is read from ~/\.aws"):
        ObjectStore.from_environment()


def test_no_secret_is_logged_printed_or_put_into_an_error(
    proxy: FaultProxy,
    moto_s3: Bucket,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    canaries = {"AWS_SECRET_ACCESS_KEY": "CanarySecret/+=0123", "AWS_SESSION_TOKEN": "CanaryToken/+=4567"}
    for name, value in canaries.items():
        monkeypatch.setenv(name, value)
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "boto3", "urllib3", "botocore.auth", "botocore.endpoint"):
        caplog.set_level(logging.DEBUG, logger=name)
    store, at = ObjectStore.from_environment(HASTY), Address(moto_s3.name, "it")
    said = [repr(store), repr(vars(store)), repr(store.__getstate__())]
    store.create(at, b"it", sha256(b"it"))
    for fault in (None, "status_403_AccessDenied", "status_500_InternalError", "reset_before_answer", "no_http"):
        proxy.begin(lambda asked, fault=fault: fault)
        try:
            store.read(at, at_most=10)
        except S3Error as error:
            chain: list[BaseException | None] = [
                error,
                error.__cause__,
                None if error.__suppress_context__ else error.__context__,
            ]
            said += [f"{link!r} {link}" for link in chain]
    said += [record.getMessage() + str(record.exc_info) for record in caplog.records] + list(capfd.readouterr())
    assert any("urllib3" in record.name for record in caplog.records)
    everything = "\n".join(said)
    for value in canaries.values():
        forms = [value, quote(value, safe=""), base64.b64encode(value.encode()).decode(), value.encode().hex()]
        assert [form for form in forms if form in everything] == []


def test_a_certificate_that_nobody_vouches_for_is_refused_at_once(
    moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    at = Address(moto_s3.name, "it")
    with fault_proxy(moto_s3.environment["AWS_ENDPOINT_URL_S3"], certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.address)
        monkeypatch.delenv("LENS_PIPELINE_S3_ALLOW_HTTP")
        monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
        store = ObjectStore.from_environment(HASTY)
        with pytest.raises(S3Error, match="certificate can't be verified"):
            store.create(at, b"it", sha256(b"it"))
        assert store.requests == 1
        assert proxy.asked == []
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        store = ObjectStore.from_environment(HASTY)
        assert store.create(at, b"it", sha256(b"it"))
        proxy.begin(first("dripping_body"))
        assert store.read(at, at_most=10) == b"it"


def self_signed(folder: Path) -> Path:
    path = folder / "certificate.pem"
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, *name, "-keyout", f"{path}.key", "-out", str(path)], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.key").read_bytes())
    return path


@pytest.mark.parametrize("text", ["s3://bucket/some/key", "s3://bucket/ünï+%20/a b"])
def test_an_address_reads_as_it_is_written(text: str) -> None:
    assert str(Address.parse(text)) == text
    assert Address.parse(text + "/") == Address.parse(text)
    assert str(Address.parse(text) / "more/parts") == text + "/more/parts"


@pytest.mark.parametrize(
    "text",
    [
        *("/local/path", "s3:/b/k", "s3://", "s3:///key", "s3://b ucket/k", "s3://buc..ket/k", "s3://bucket/../k"),
        *("s3://bucket/a//b", "s3://bucket/./a", "s3://bucket/a\nb", "s3://bucket/a\x00", "s3://bucket/\ud800"),
        "s3://bucket/" + "k" * 1025,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["S3://Bucket/Some/Key", "S3://Bucket/Some/Key/"])
def test_a_scheme_in_capitals_is_a_scheme_and_the_rest_keeps_its_case(text: str) -> None:
    assert is_address(text)
    assert str(Address.parse(text)) == "s3://Bucket/Some/Key"
    assert not is_own(text)


def test_a_part_cannot_lead_out_of_its_address() -> None:
    for part in ("..", "../other", "", "/root", "a/../../b"):
        with pytest.raises(PipelineError):
            Address.parse("s3://bucket/home") / part


def test_importing_the_client_does_not_import_boto() -> None:
    script = "import sys, lens_pipeline.storage.cache; print(sorted({'boto3', 'botocore'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_transfer_shows_a_bar_on_a_terminal_and_nothing_elsewhere(
    moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for module in (s3_reading, s3_writing):
        monkeypatch.setattr(module, "WORTH_A_BAR", 1000)
    store, path, content = ObjectStore.from_environment(), tmp_path / "file", bytes(5000)
    path.write_bytes(content)
    shown = {}
    for where in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", where)
        at = Address(moto_s3.name, f"it-{where.isatty()}")
        store.create(at, path, sha256(content))
        assert store.read(at, at_most=9999) == content
        shown[where.isatty()] = where.getvalue()
    assert shown[False] == ""
    assert "writing it-True" in shown[True]
    assert "reading it-True" in shown[True]
