"""The connection to an S3 server: from the environment alone, every request counted, and none longer than its deadline.

boto3 is imported here when the first client is made, not when this module is: loading the definitions stays fast.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from lens_pipeline.contracts.errors import ConfigError

_ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")
_KEY, _SECRET, _TOKEN = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
_ALLOW_HTTP = "LENS_PIPELINE_S3_ALLOW_HTTP"
_DEFAULT_REGION = "us-east-1"
_CONNECTIONS = 32


@dataclass(frozen=True)
class Server:
    """Which server is asked. It holds no secret, and may be printed and pickled.

    Attributes
    ----------
    endpoint : str or None
        None is Amazon's own.
    region : str
        Goes into the signatures; servers of other makers mostly ignore it.
    """

    endpoint: str | None
    region: str

    @classmethod
    def from_environment(cls) -> "Server":
        """Server that the environment names.

        Raises
        ------
        ConfigError
            If the endpoint isn't a URL, or is plain http without LENS_PIPELINE_S3_ALLOW_HTTP=1, or no credentials are set.
        """
        endpoint = _first(_ENDPOINT)
        if endpoint is not None:
            _refuse_unsafe(endpoint)
        _credentials()
        return cls(endpoint, _first(_REGION) or _DEFAULT_REGION)


def connect(server: Server, *, connect_s: float, read_s: float, count: Callable[[], None]) -> Any:
    """Make a boto3 client that never retries by itself, reads no file for its settings, and verifies TLS.

    Parameters
    ----------
    connect_s, read_s : float
        Seconds after which a silent connection is given up.
    count : callable
        Called for every request that is sent.
    """
    import botocore.session
    from botocore.config import Config

    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    settings = session.get_component("config_store")
    for name, value in (("config_file", os.devnull), ("credentials_file", os.devnull), ("profile", None)):
        settings.set_config_variable(name, value)
    key, secret, token = _credentials()
    client = session.create_client(
        "s3",
        region_name=server.region,
        endpoint_url=server.endpoint,
        verify=os.environ.get("AWS_CA_BUNDLE") or True,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=connect_s,
            read_timeout=read_s,
            max_pool_connections=_CONNECTIONS,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3={"addressing_style": "path"},
        ),
    )

    def before_send(request: Any, **_: Any) -> None:
        # Waiting for "100 Continue" on a connection that is cut just then would loop in botocore for ever.
        request.headers.pop("Expect", None)
        count()

    def before_call(params: dict[str, Any], **_: Any) -> None:
        # botocore follows a redirect to another region by asking for the region, which a server that redirects everything
        # redirects: one GET became 500 requests. It doesn't where it believes to have done so.
        params["context"].setdefault("s3_redirect", {})["redirected"] = True

    client.meta.events.register("before-send.s3", before_send)
    client.meta.events.register("before-call.s3", before_call)
    # botocore has no total time of a request, and a server that sends a byte now and then outlives any read timeout.
    pools = client._endpoint.http_session._pool_classes_by_scheme
    for scheme, pool in list(pools.items()):
        connection = type(f"Watched{pool.ConnectionCls.__name__}", (_Watched, pool.ConnectionCls), {})
        pools[scheme] = type(f"Watched{pool.__name__}", (pool,), {"ConnectionCls": connection})
    _silence_debug()
    return client


@cache
def _descriptions() -> Any:
    """Botocore's descriptions of what a server understands; reading them anew for each client takes longer than all else."""
    from botocore.loaders import create_loader

    return create_loader()


class Deadline:
    """The most time that one request may take, as a context manager: after it, the request's connection is cut."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.expired = False
        self._socket: socket.socket | None = None
        self._ended = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._token = _DEADLINE.set(self)
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._ended = True
        self._timer.cancel()
        _DEADLINE.reset(self._token)

    def watch(self, connection: socket.socket | None) -> None:
        """Name the connection that is to be cut."""
        with self._lock:
            self._socket = connection
            if self.expired:
                _cut(connection)

    def _expire(self) -> None:
        with self._lock:
            if not self._ended:
                self.expired = True
                _cut(self._socket)


_DEADLINE: ContextVar[Deadline | None] = ContextVar("_DEADLINE", default=None)


class _Watched:
    """A connection that tells the deadline of the request in hand which socket it uses."""

    sock: socket.socket | None

    def request(self, *arguments: Any, **options: Any) -> Any:
        self._watch()
        return super().request(*arguments, **options)  # type: ignore[misc]

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self._watch()

    def _watch(self) -> None:
        deadline = _DEADLINE.get()
        if deadline is not None:
            deadline.watch(self.sock)


def _cut(connection: socket.socket | None) -> None:
    if connection is not None:
        try:
            # Of the plain socket: that of a TLS socket would pull the session from under the thread that reads it.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)
        except OSError:
            return


def _silence_debug() -> None:
    """Keep botocore's debug records out of every log: they hold session tokens and signatures, whatever the level set."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] in ("botocore", "boto3") and isinstance(logger, logging.Logger):
            logger.addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO


def _credentials() -> tuple[str, str, str | None]:
    key, secret = os.environ.get(_KEY), os.environ.get(_SECRET)
    if not key or not secret:
        missing = " and ".join(name for name, value in ((_KEY, key), (_SECRET, secret)) if not value)
        raise ConfigError(
            f"{missing} must be set in the environment to read or write s3:// addresses (with {_TOKEN} for credentials that "
            "expire); nothing is read from ~/.aws or from the machine."
        )
    return key, secret, os.environ.get(_TOKEN) or None


def _first(names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


def _refuse_unsafe(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise ConfigError(
            f"{' or '.join(_ENDPOINT)} must be a URL such as https://s3.example.org, with nothing after it."
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"{' or '.join(_ENDPOINT)} holds a user name or password: credentials go into {_KEY} and {_SECRET}."
        )
    if parts.scheme == "http" and os.environ.get(_ALLOW_HTTP) != "1":
        raise ConfigError(
            f"{endpoint} is plain http: everybody on the way can read and change what is sent. Use https, or set "
            f"{_ALLOW_HTTP}=1 if the server is on this machine or on a network that is yours alone."
        )
