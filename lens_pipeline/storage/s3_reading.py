"""One object read whole, again until its bytes are proven: nothing that came over the wire is believed unheard.

What proves them, the strongest first: a SHA-256 known beforehand; the ETag, where it is the MD5 of the content; two reads that
agree, where the server says nothing of the content (an object uploaded in parts, or encrypted with a key of the bucket's owner).
"""

import contextlib
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from lens_pipeline.storage.progress import WORTH_A_BAR, progress
from lens_pipeline.storage.s3_address import Address, ObjectInfo
from lens_pipeline.storage.s3_attempts import Attempts, DamagedError, ObjectChangedError

PIECE = 1 << 20
_MD5_ETAG = re.compile(r"[0-9a-f]{32}")
_OWN_KEYS = ("aws:kms", "aws:kms:dsse")


@dataclass(frozen=True)
class Expected:
    """What is known of an object before it is read.

    Attributes
    ----------
    info : ObjectInfo, optional
        What a listing said; another size or ETag is another object.
    sha256 : str, optional
        Of its bytes.
    at_most : int, optional
        Bytes; a larger object is refused unread.
    """

    info: ObjectInfo | None = None
    sha256: str | None = None
    at_most: int | None = None


@dataclass(frozen=True)
class Got:
    """What one read brought; `vouched` says that the ETag is of a kind that is the MD5 of the bytes.

    The MD5 is that of no bytes where a SHA-256 was expected.
    """

    size: int
    etag: str
    sha256: str
    md5: str
    vouched: bool


def read_verified(
    client: Any, attempts: Attempts, into: BinaryIO | None, expected: Expected, n_bytes: int
) -> Got | None:
    """Read an object until its bytes are proven, or proven wrong: the same wrong ones twice are no accident of the way.

    Parameters
    ----------
    into : binary file, optional
        Holds exactly the proven bytes at the end. Without it they are only hashed.
    n_bytes : int
        About how many are coming; sets how long a request may take.

    Returns
    -------
    Got or None
        None if there is no such object.

    Raises
    ------
    ObjectChangedError
        If it isn't the object that was expected.
    S3Error
        If it is too large, or the requests are used up.
    """
    before: str | None = None

    def send() -> Got | None:
        nonlocal before
        got = _get(client, attempts, into, expected)
        if got is None:
            return None
        problem = _what_is_wrong(got, expected)
        if problem is None and (got.vouched or expected.sha256 is not None or got.sha256 == before):
            return got
        if problem is not None and got.sha256 == before:
            raise attempts.error(
                f"{problem}, twice the same", "The object itself is damaged or was changed", ObjectChangedError
            )
        before = got.sha256
        raise DamagedError(problem or "two reads of it have yet to agree")

    return attempts.ask(send, n_bytes=n_bytes)


def present(call: Callable[..., dict[str, Any]], address: Address) -> dict[str, Any] | None:
    """Ask for one object; None if the server says that there is none."""
    from botocore.exceptions import ClientError

    try:
        return call(Bucket=address.bucket, Key=address.key)
    except ClientError as error:
        if status_of(error) == 404 and error.response.get("Error", {}).get("Code") != "NoSuchBucket":
            return None
        raise


def status_of(error: Any) -> int:
    """HTTP status of a refusal."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def etag_of(answer: dict[str, Any]) -> str:
    """ETag without its quotes; empty if none was given."""
    return str(answer.get("ETag") or "").strip('"')


def _get(client: Any, attempts: Attempts, into: BinaryIO | None, expected: Expected) -> Got | None:
    answer = present(client.get_object, attempts.address)
    if answer is None:
        return None
    size, etag, body, info = answer.get("ContentLength"), etag_of(answer), answer["Body"], expected.info
    with contextlib.closing(body):
        if size is None or not etag:
            raise DamagedError("an answer without length or ETag")
        if info is not None and etag != info.etag:
            raise attempts.error("it was replaced since it was listed", "List its folder again", ObjectChangedError)
        if info is not None and size > info.size:
            # Not a byte more than was reserved for it is ever written.
            raise DamagedError(f"it has {size:,} bytes, {info.size:,} were listed")
        if expected.at_most is not None and size > expected.at_most:
            raise attempts.error(
                f"it has {size:,} bytes, {expected.at_most:,} are the most", "Is this the object that was meant?"
            )
        sha256, md5, n_read = _copy(
            body, into, f"reading {attempts.address.name}", size, with_md5=expected.sha256 is None
        )
    if n_read != size:
        raise DamagedError(f"{n_read:,} of {size:,} bytes came")
    return Got(n_read, etag, sha256, md5, _vouches(answer, etag))


def _copy(body: Any, into: BinaryIO | None, what: str, size: int, *, with_md5: bool) -> tuple[str, str, int]:
    sha256, md5, n_read = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    if into is not None:
        into.seek(0)
        into.truncate()
    with progress(what, size, is_bytes=True, at_least=WORTH_A_BAR) as bar:
        while piece := body.read(PIECE):
            sha256.update(piece)
            if with_md5:
                md5.update(piece)
            n_read += len(piece)
            if into is not None:
                into.write(piece)
            bar.reach(n_read)
    return sha256.hexdigest(), md5.hexdigest(), n_read


def _what_is_wrong(got: Got, expected: Expected) -> str | None:
    if expected.info is not None and got.size != expected.info.size:
        return f"it has {got.size:,} bytes, {expected.info.size:,} were listed"
    if expected.sha256 is not None:
        if got.sha256 == expected.sha256:
            return None
        return f"its SHA-256 starts with {got.sha256[:12]}, expected was {expected.sha256[:12]}"
    return "its MD5 isn't its ETag" if got.vouched and got.md5 != got.etag else None


def _vouches(answer: dict[str, Any], etag: str) -> bool:
    encrypted = answer.get("ServerSideEncryption") in _OWN_KEYS or "SSECustomerAlgorithm" in answer
    return _MD5_ETAG.fullmatch(etag) is not None and not encrypted
