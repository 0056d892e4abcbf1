"""Asking a server again, within bounds: which answers are worth it, how long to wait, and when to give up."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.s3_address import Address
from lens_pipeline.storage.s3_client import Deadline

_T = TypeVar("_T")

_AGAIN_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# Answers with another status that say the transfer was damaged or cut, or that the server is busy.
_AGAIN_CODES = frozenset(
    {"RequestTimeout", "BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "SlowDown", "InternalError"}
    | {"ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "InvalidDigest"}
)
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_REGION_CODES = frozenset({"AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_DENIED_CODES = frozenset(
    {
        "AccessDenied",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "InvalidToken",
        "AccountProblem",
        "AllAccessDisabled",
    }
)


class S3Error(StorageError):
    """A server's answer, or its silence, that ends an operation. Nothing of it was published or left behind."""


class ObjectChangedError(S3Error):
    """An object is gone, or isn't the one that was listed."""


class ListingChangedError(S3Error):
    """Objects appear or go while they are listed: no two listings in a row agreed."""


class AccessError(S3Error):
    """The server refuses the credentials: wrong, expired, without the right, or dated by a clock that is off."""


class DamagedError(Exception):
    """An answer that arrived, but can't be what the server holds: it is asked again."""


@dataclass(frozen=True)
class Patience:
    """How long and how often a server is asked.

    Attributes
    ----------
    requests : int
        Most requests for one operation on one object, all reasons together.
    connect_s, read_s : float
        Seconds of silence after which a connection is given up.
    request_s, bytes_per_s : float
        One request may take `request_s` plus its bytes at this slowest rate, however alive its connection looks.
    backoff_s, longest_backoff_s : float
        Wait before asking again: up to backoff_s x 2^n, drawn at random, or what the server asks for; never longer than this.
    """

    requests: int = 8
    connect_s: float = 10.0
    read_s: float = 30.0
    request_s: float = 60.0
    bytes_per_s: float = 500_000.0
    backoff_s: float = 0.5
    longest_backoff_s: float = 20.0

    def deadline(self, n_bytes: int) -> Deadline:
        """Longest time of a request that moves so many bytes."""
        return Deadline(self.request_s + n_bytes / self.bytes_per_s)


class Attempts:
    """What one operation on one object may still ask for; the operation's requests all go through it.

    Parameters
    ----------
    what : str
        The operation, for the message (``"reading"``).
    """

    def __init__(self, what: str, address: Address, patience: Patience) -> None:
        self.what, self.address, self.patience = what, address, patience
        self.made = 0
        self._last = "nothing was answered"

    def ask(self, send: Callable[[], _T], *, n_bytes: int = 0) -> _T:
        """Send a request until it is answered.

        Parameters
        ----------
        send : callable
            Sends one request and returns what came of it; `DamagedError` means that it is to be sent again.
        n_bytes : int
            What the request moves; sets how long it may take.

        Raises
        ------
        S3Error
            If the answer is final, or the requests are used up.
        """
        n_failed = 0
        while True:
            if self.made >= self.patience.requests:
                raise self.error(
                    f"gave up after {self.made} requests, the last: {self._last}", "Is the server well? Try again later"
                )
            self.made += 1
            deadline = self.patience.deadline(n_bytes)
            try:
                with deadline:
                    return send()
            except DamagedError as error:
                self._last, wait = str(error), None
            except Exception as error:
                self._last, wait = self._judge(error, deadline)
            self._sleep(n_failed, wait)
            n_failed += 1

    def error(self, why: str, what_next: str, kind: type[S3Error] = S3Error) -> S3Error:
        """Make the error that ends the operation."""
        return kind(f"{self.what} {self.address}: {why}. {what_next}.")

    def _judge(self, error: Exception, deadline: Deadline) -> tuple[str, float | None]:
        """Return what happened and the wait that the server asked for, if it is worth asking again; else raise."""
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        if isinstance(error, exceptions.ClientError):
            return self._judge_answer(error.response)
        if isinstance(error, exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            # Nothing of botocore's errors is passed on: they quote what was sent.
            raise self.error(
                "the server's certificate can't be verified",
                "Name your authority's certificates in AWS_CA_BUNDLE, or mend the endpoint's address",
            ) from None
        if deadline.expired:
            return f"cut after {deadline.seconds:.3g} s", None
        if not isinstance(error, (*_transport_errors(), HTTPError, ConnectionError, TimeoutError)):
            raise error
        return type(error).__name__, None

    def _judge_answer(self, response: dict[str, Any]) -> tuple[str, float | None]:
        about = response.get("ResponseMetadata", {})
        status, code = int(about.get("HTTPStatusCode", 0)), _plain(response.get("Error", {}).get("Code", ""))
        answer = f"status {status}" + (f" {code}" if code not in ("", str(status)) else "")
        if code in _CLOCK_CODES:
            raise self.error(
                answer, "This machine's clock and the server's differ: set the clock", AccessError
            ) from None
        if code in _EXPIRED_CODES:
            raise self.error(
                answer, "The credentials have expired: put fresh ones into the environment", AccessError
            ) from None
        if code in _AGAIN_CODES or status in _AGAIN_STATUS:
            return answer, _retry_after(about.get("HTTPHeaders", {}))
        if code in _DENIED_CODES or status in (401, 403):
            raise self.error(
                answer,
                "The server refuses these credentials: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, the "
                "rights of this key in the bucket, and the clock",
                AccessError,
            ) from None
        if code == "NoSuchBucket":
            raise self.error(answer, "Make the bucket, or mend the address or the endpoint") from None
        if code in _REGION_CODES or 300 <= status < 400:
            raise self.error(answer, "The bucket is in another region or at another endpoint: set AWS_REGION") from None
        if status == 501:
            raise self.error(
                answer, "The server lacks what is asked for (create-only writes need If-None-Match)"
            ) from None
        raise self.error(answer, "Asking again would be answered alike") from None

    def _sleep(self, n_failed: int, asked_for: float | None) -> None:
        if self.made < self.patience.requests:
            drawn = random.uniform(0.5, 1.0) * self.patience.backoff_s * 2**n_failed
            time.sleep(min(max(drawn, asked_for or 0.0), self.patience.longest_backoff_s))


def _transport_errors() -> tuple[type[Exception], ...]:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    return exceptions.HTTPClientError, exceptions.ConnectionError, exceptions.IncompleteReadError, ResponseParserError


def _plain(code: object) -> str:
    """Return an error code if it looks like one; what else a server writes there stays out of messages."""
    text = str(code)
    return text if len(text) <= 64 and text.isascii() and text.isalnum() else ""


def _retry_after(headers: dict[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
