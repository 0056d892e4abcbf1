"""The S3 client against a real server on this machine."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.s3 import Address, ObjectInfo, ObjectStore


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(moto_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObjectStore:
    for name, value in {
        "AWS_ENDPOINT_URL_S3": moto_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "LENS_PIPELINE_S3_ALLOW_HTTP": "1",
    }.items():
        monkeypatch.setenv(name, value)
    store = ObjectStore.from_environment()
    store._client().create_bucket(Bucket=_bucket(request))
    return store


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Address:
    return Address(_bucket(request), "some/prefix")


def _bucket(request: pytest.FixtureRequest) -> str:
    return "t-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]


def test_what_was_created_is_listed_and_read_back(store: ObjectStore, home: Address, tmp_path: Path) -> None:
    contents = {f"part-{number}.bin": bytes([number]) * (number * 70_000) for number in range(4)}
    for name, content in contents.items():
        assert store.create(home / name, content, sha256(content))
    infos = store.list(home)
    assert [(info.address.name, info.size) for info in infos] == [(n, len(c)) for n, c in contents.items()]
    for info in infos:
        path = tmp_path / info.address.name
        assert store.download(info, path) == sha256(contents[info.address.name])
        assert path.read_bytes() == contents[info.address.name]
        assert store.read(info.address, at_most=1 << 20) == contents[info.address.name]
        assert store.head(info.address) == info
    assert store.head(home / "nothing") is None
    assert store.read(home / "nothing", at_most=10) is None
    assert store.list(home / "nothing") == []


def test_nothing_that_was_written_is_written_again(store: ObjectStore, home: Address, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"first")
    assert store.create(home / "it", path, sha256(b"first"))
    assert not store.create(home / "it", b"first", sha256(b"first"))
    with pytest.raises(StorageError, match="other bytes are there"):
        store.create(home / "it", b"second", sha256(b"second"))
    assert store.read(home / "it", at_most=10) == b"first"


def test_a_replaced_or_removed_object_is_not_what_was_listed(store: ObjectStore, home: Address, tmp_path: Path) -> None:
    store.create(home / "it", b"first", sha256(b"first"))
    [info] = store.list(home)
    store._client().put_object(Bucket=home.bucket, Key=info.address.key, Body=b"other")
    for at in (info, ObjectInfo(home / "gone", 5, info.etag)):
        with pytest.raises(StorageError, match=r"replaced|gone"):
            store.download(at, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
