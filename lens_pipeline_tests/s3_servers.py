"""Two S3 servers to test against, each started at most once a test process, and a fresh bucket for each test.

`swift_s3` is a real server, OpenStack Swift; `moto_s3` starts faster and is the only one of the two with If-Match.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lens_pipeline_tests import serve_s3

SETTINGS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "LENS_PIPELINE_S3_ALLOW_HTTP",
)


@dataclass(frozen=True)
class Bucket:
    """An empty bucket that a test has for itself, and the environment with which a process finds it."""

    name: str
    environment: dict[str, str]

    @property
    def address(self) -> str:
        """``s3://NAME``."""
        return f"s3://{self.name}"

    def client(self) -> Any:
        """Return a plain boto3 client, for a test to look at or spoil what the pipeline has written."""
        return _client(self.environment)

    def keys(self) -> list[str]:
        """Keys of everything in the bucket, sorted."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(found["Key"] for page in pages for found in page.get("Contents", []))


@dataclass(frozen=True)
class S3Server:
    """A running server."""

    port: int
    environment: dict[str, str]

    def fresh_bucket(self) -> Bucket:
        """Make a bucket that nobody else has."""
        bucket = Bucket(f"test-{secrets.token_hex(8)}", self.environment)
        bucket.client().create_bucket(Bucket=bucket.name)
        return bucket


@pytest.fixture(scope="session")
def swift_server() -> Iterator[S3Server]:
    # Extended attributes are needed, which /tmp may lack where it is in memory; the project's own disk is tried then.
    with (
        tempfile.TemporaryDirectory(
            prefix="lens_pipeline-swift-", dir=_folder_with_attributes(), ignore_cleanup_errors=True
        ) as folder,
        _running("swift", folder) as port,
    ):
        yield S3Server(port, _environment(port, key=serve_s3.USER, secret=serve_s3.KEY))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    with _running("moto") as port:
        yield S3Server(port, _environment(port, key="anybody", secret="anything"))


@pytest.fixture
def swift_s3(swift_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket on Swift, named by the environment of the test."""
    return _bucket_in_environment(swift_server, monkeypatch)


@pytest.fixture
def moto_s3(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A fresh bucket on moto, named by the environment of the test."""
    return _bucket_in_environment(moto_server, monkeypatch)


def _bucket_in_environment(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server.fresh_bucket()


def _environment(port: int, *, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "LENS_PIPELINE_S3_ALLOW_HTTP": "1",
    }


@contextmanager
def _running(*arguments: str) -> Iterator[int]:
    command = [sys.executable, serve_s3.__file__, *arguments]
    with tempfile.TemporaryFile() as errors:
        # The thread that starts it must outlive it, for the server dies with that thread: fixtures run in the main one.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            word, _, port = process.stdout.readline().partition(" ")
            if word != "ready":
                process.wait()
                errors.seek(0)
                raise RuntimeError(f"{arguments[0]} did not start:\n{errors.read().decode(errors='replace')[-3000:]}")
            yield int(port)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _folder_with_attributes() -> str:
    tried = [tempfile.gettempdir(), str(Path(__file__).parent.parent)]
    for folder in tried:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            try:
                os.setxattr(file.name, "user.swift.metadata", b"x" * 1000)
            except OSError:
                continue
            return folder
    raise RuntimeError(
        f"Swift needs a filesystem with extended attributes; none of {tried} has them. Set TMPDIR to one."
    )


def _client(environment: dict[str, str]) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        config=Config(s3={"addressing_style": "path"}),
    )
