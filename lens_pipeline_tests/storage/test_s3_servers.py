"""The servers that the S3 tests stand on are real ones: what they refuse is what a tested guard relies on."""

import base64
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError

from lens_pipeline_tests.s3_servers import Bucket, S3Server

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=["swift_s3", "moto_s3"])
def bucket(request: pytest.FixtureRequest) -> Bucket:
    found: Bucket = request.getfixturevalue(request.param)
    return found


def _code(call: Callable[[], object]) -> int:
    with pytest.raises(ClientError) as caught:
        call()
    return int(caught.value.response["ResponseMetadata"]["HTTPStatusCode"])


def test_an_object_is_made_once_listed_and_read_back(bucket: Bucket) -> None:
    client = bucket.client()
    client.put_object(Bucket=bucket.name, Key="a/b", Body=b"pixels", IfNoneMatch="*")
    assert bucket.keys() == ["a/b"]
    assert client.get_object(Bucket=bucket.name, Key="a/b")["Body"].read() == b"pixels"
    assert _code(lambda: client.put_object(Bucket=bucket.name, Key="a/b", Body=b"other", IfNoneMatch="*")) == 412


def test_swift_refuses_a_body_that_is_not_what_its_checksum_says(swift_s3: Bucket) -> None:
    wrong = base64.b64encode(hashlib.md5(b"other").digest()).decode()
    client = swift_s3.client()
    assert _code(lambda: client.put_object(Bucket=swift_s3.name, Key="k", Body=b"this", ContentMD5=wrong)) == 400
    assert swift_s3.keys() == []


def test_swift_refuses_a_wrong_secret(swift_s3: Bucket) -> None:
    stranger = Bucket(swift_s3.name, {**swift_s3.environment, "AWS_SECRET_ACCESS_KEY": "guessed"}).client()
    assert _code(lambda: stranger.list_objects_v2(Bucket=swift_s3.name)) == 403


def test_each_test_has_a_bucket_of_its_own(swift_server: S3Server) -> None:
    assert swift_server.fresh_bucket().name != swift_server.fresh_bucket().name


@pytest.mark.parametrize("which", ["swift_server", "moto_server"])
def test_no_server_outlives_the_tests_that_are_killed(which: str, tmp_path: Path) -> None:
    # The tests' own process is played by another, which starts the server by the same fixture and is killed.
    script = """
        import sys, time
        from lens_pipeline_tests import s3_servers
        server = getattr(s3_servers, sys.argv[1]).__wrapped__()
        print(next(server).port, flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), which],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) == (5 if which == "swift_server" else 1)
    assert all(found.laddr.ip == "127.0.0.1" for one in family for found in one.net_connections())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
