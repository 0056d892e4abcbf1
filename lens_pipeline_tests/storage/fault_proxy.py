"""A real HTTP server between a client and an S3 server, which does to chosen requests what networks and servers do.

Which request suffers which fault is said by a plan, a function of the request; so a seeded plan makes a run that can be repeated.
Belongs here: doing the faults. Which faults a client must survive, and what surviving means, is in reliability/s3_faults.py.
"""

import base64
import hashlib
import http.client
import os
import random
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

STALL_S = 2.0
DRIP_S = 0.05
LONGEST_DRIP_S = 20.0
REPLACEMENT = b"what another writer put there"


@dataclass(frozen=True)
class Asked:
    """A request as the proxy sees it: its number from 0, its method, ``LIST`` for a listing, and its path."""

    number: int
    kind: str
    path: str


@dataclass
class Answer:
    """What the server said; a fault may change any of it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def set(self, name: str, value: str | None) -> None:
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


Plan = Callable[[Asked], str | None]


@dataclass
class FaultProxy:
    """The proxy, running.

    Attributes
    ----------
    plan : callable
        Names the fault of a request (a key of `FAULTS`), or None. May be replaced at any time.
    pages : int, optional
        Divides the keys a page that the client asks for, so that a few objects make several pages. It changes the request, so its
        signature no longer holds: for servers that check none.
    strict : bool
        Refuse an upload whose Content-MD5 is wrong, as real servers do and moto doesn't.
    asked : list
        Every request so far with the fault that it met.
    n_cut : int
        Slow answers that the client did not wait for.
    """

    upstream: str
    plan: Plan = lambda asked: None
    pages: int | None = None
    strict: bool = False
    asked: list[tuple[Asked, str | None]] = field(default_factory=list)
    n_cut: int = 0
    address: str = ""
    rng: random.Random = field(default_factory=lambda: random.Random(0))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, plan: Plan, seed: object = 0, *, strict: bool = False) -> None:
        """Forget what was asked, and go on by another plan."""
        with self.lock:
            self.strict = strict
            self.plan, self.asked, self.rng = plan, [], random.Random(str(seed))

    def forward(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        """Ask the server itself."""
        md5 = dict(headers).get("Content-MD5")
        if self.strict and md5 is not None and md5 != base64.b64encode(hashlib.md5(body).digest()).decode():
            return _error(400, "BadDigest")
        target = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def put(self, path: str, content: bytes) -> None:
        """Replace an object behind the client's back (the server must check no signatures)."""
        self.forward("PUT", path, [("Host", "proxy"), ("Content-Length", str(len(content)))], content)

    def delete(self, path: str) -> None:
        """Remove an object behind the client's back (the server must check no signatures)."""
        self.forward("DELETE", path, [("Host", "proxy")], b"")


@contextmanager
def fault_proxy(
    upstream: str, plan: Plan = lambda asked: None, *, pages: int | None = None, certificate: Path | None = None
) -> Iterator[FaultProxy]:
    """Run a proxy in front of a server at ``http://127.0.0.1:port`` while the context lasts.

    With a certificate (and its key in the same file) the proxy itself is spoken to by https.
    """
    proxy = FaultProxy(upstream, plan, pages)
    handler = type("Handler", (_Handler,), {"proxy": proxy})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    proxy.address = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    proxy: FaultProxy

    def log_message(self, format: str, *arguments: object) -> None:
        return

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, query = self.path, dict(parse_qsl(urlsplit(self.path).query))
        kind = "LIST" if self.command == "GET" and "list-type" in query else self.command
        if kind == "LIST" and self.proxy.pages is not None:
            path = _with(path, **{"max-keys": str(int(query["max-keys"]) // self.proxy.pages)})
        with self.proxy.lock:
            asked = Asked(len(self.proxy.asked), kind, unquote(urlsplit(path).path))
            fault = self.proxy.plan(asked)
            self.proxy.asked.append((asked, fault))
        headers = [(name, value) for name, value in self.headers.items() if name.lower() != "expect"]
        FAULTS[fault].do(_Exchange(self, self.proxy, kind, path, headers, body)) if fault else self.answer(
            self.proxy.forward(self.command, path, headers, body)
        )

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = do_any  # noqa: N815 (names that http.server looks for)

    def answer(self, answer: Answer, *, sent: bytes | None = None, length: int | None = None) -> None:
        """Answer; `sent` of the body goes out, under the length that is claimed."""
        self.send_head(answer, length)
        if self.command != "HEAD":
            self.wfile.write(answer.body if sent is None else sent)
        self.wfile.flush()
        if sent is not None:
            self.close_connection = True

    def send_head(self, answer: Answer, length: int | None = None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        known = answer.header("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", known or str(len(answer.body) if length is None else length))
        self.end_headers()

    def reset(self) -> None:
        """Cut the connection with a reset, not with an orderly end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def hang_up(self) -> None:
        self.close_connection = True


@dataclass
class _Exchange:
    """One request in the hands of a fault."""

    handler: _Handler
    proxy: FaultProxy
    kind: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def forward(self, *, path: str | None = None, body: bytes | None = None) -> Answer:
        headers = self.headers
        if body is not None:
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers = [*headers, ("Content-Length", str(len(body)))]
        return self.proxy.forward(self.handler.command, path or self.path, headers, self.body if body is None else body)

    def somewhere(self, n: int) -> int:
        """Draw a place in n bytes, less than all of them."""
        return self.proxy.rng.randrange(n) if n else 0

    def pause(self, seconds: float) -> None:
        """Keep silent, but not longer than the client listens."""
        ends = time.monotonic() + seconds
        self.handler.connection.settimeout(0.05)
        while time.monotonic() < ends:
            try:
                if not self.handler.connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        self.handler.hang_up()


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong with requests of some kinds (``GET`` of an object, ``LIST``, ``HEAD``, ``PUT``)."""

    kinds: frozenset[str]
    do: Callable[[_Exchange], None]


FAULTS: dict[str, Fault] = {}
_ALL = "GET LIST HEAD PUT"


def _fault(kinds: str = _ALL) -> Callable[[Callable[[_Exchange], None]], Callable[[_Exchange], None]]:
    def register(do: Callable[[_Exchange], None]) -> Callable[[_Exchange], None]:
        FAULTS[do.__name__] = Fault(frozenset(kinds.split()), do)
        return do

    return register


def _refusal(status: int, code: str, kinds: str = _ALL, **headers: str) -> None:
    def do(exchange: _Exchange) -> None:
        exchange.handler.answer(_error(status, code, **headers))

    FAULTS[f"status_{status}_{code}"] = Fault(frozenset(kinds.split()), do)


def _error(status: int, code: str, **headers: str) -> Answer:
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    )
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Answer(status, [("Content-Type", "application/xml"), *named], body)


_refusal(500, "InternalError")
_refusal(502, "BadGateway")
_refusal(503, "SlowDown", Retry_After="0")
_refusal(429, "TooManyRequests", Retry_After="0")
_refusal(301, "PermanentRedirect")
_refusal(400, "AuthorizationHeaderMalformed")
_refusal(400, "ExpiredToken")
_refusal(403, "RequestTimeTooSkewed")
_refusal(403, "AccessDenied")
_refusal(400, "RequestTimeout")
_refusal(409, "ConditionalRequestConflict", "PUT")
_refusal(412, "PreconditionFailed", "PUT")
_refusal(400, "BadDigest", "PUT")


@_fault()
def reset_before_answer(exchange: _Exchange) -> None:
    exchange.handler.reset()


@_fault()
def closed_before_answer(exchange: _Exchange) -> None:
    exchange.handler.hang_up()


@_fault()
def no_http(exchange: _Exchange) -> None:
    exchange.handler.wfile.write(b"\x00\x01 this is no answer\r\n\r\n")
    exchange.handler.wfile.flush()
    exchange.handler.hang_up()


@_fault()
def stall_before_answer(exchange: _Exchange) -> None:
    exchange.pause(STALL_S)


@_fault()
def dripping_header(exchange: _Exchange) -> None:
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-Drop-%d: drip\r\n" % number for number in range(200))
    _drip(exchange, head)


@_fault("GET LIST")
def dripping_body(exchange: _Exchange) -> None:
    answer = exchange.forward()
    exchange.handler.send_head(answer)
    _drip(exchange, answer.body)


def _drip(exchange: _Exchange, content: bytes) -> None:
    ends = time.monotonic() + LONGEST_DRIP_S
    exchange.handler.hang_up()
    for place in range(len(content)):
        if time.monotonic() > ends:
            return
        try:
            exchange.handler.wfile.write(content[place : place + 1])
            exchange.handler.wfile.flush()
        except OSError:
            exchange.proxy.n_cut += 1
            raise
        time.sleep(DRIP_S)


@_fault("GET LIST")
def stall_in_body(exchange: _Exchange) -> None:
    answer = exchange.forward()
    exchange.handler.answer(answer, sent=answer.body[: exchange.somewhere(len(answer.body))], length=len(answer.body))
    exchange.pause(STALL_S)


@_fault("GET LIST")
def reset_in_body(exchange: _Exchange) -> None:
    answer = exchange.forward()
    exchange.handler.answer(answer, sent=answer.body[: exchange.somewhere(len(answer.body))], length=len(answer.body))
    exchange.handler.reset()


@_fault("GET LIST")
def truncated_body(exchange: _Exchange) -> None:
    answer = exchange.forward()
    exchange.handler.answer(answer, sent=answer.body[: exchange.somewhere(len(answer.body))], length=len(answer.body))


@_fault("GET LIST")
def short_body_of_consistent_length(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = answer.body[: exchange.somewhere(len(answer.body))]
    exchange.handler.answer(answer)


@_fault("GET")
def long_body_of_consistent_length(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body += b"more"
    exchange.handler.answer(answer)


@_fault("GET")
def flipped_bit(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = _flipped(answer.body, exchange.somewhere(8 * len(answer.body)))
    exchange.handler.answer(answer)


@_fault("GET")
def wrong_bytes(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = exchange.proxy.rng.randbytes(len(answer.body))
    exchange.handler.answer(answer)


@_fault("GET")
def wrong_range(exchange: _Exchange) -> None:
    answer = exchange.forward()
    place = exchange.somewhere(len(answer.body))
    answer.body = answer.body[place:] + answer.body[:place]
    exchange.handler.answer(answer)


@_fault("GET")
def range_instead_of_whole(exchange: _Exchange) -> None:
    answer = exchange.forward()
    whole, place = len(answer.body), exchange.somewhere(len(answer.body))
    answer.status, answer.body = 206, answer.body[place:]
    answer.set("Content-Range", f"bytes {place}-{whole - 1}/{whole}")
    exchange.handler.answer(answer)


@_fault("GET HEAD LIST")
def error_body_with_status_200(exchange: _Exchange) -> None:
    exchange.handler.answer(_error(200, "InternalError"))


@_fault("GET HEAD LIST PUT")
def empty_answer_with_status_200(exchange: _Exchange) -> None:
    exchange.handler.answer(Answer(200, [], b""))


@_fault("GET")
def replaced_before_get(exchange: _Exchange) -> None:
    exchange.proxy.put(exchange.path, REPLACEMENT)
    exchange.handler.answer(exchange.forward())


@_fault("GET")
def replaced_while_read(exchange: _Exchange) -> None:
    answer = exchange.forward()
    exchange.proxy.put(exchange.path, REPLACEMENT)
    half = len(answer.body) // 2
    answer.body = (
        answer.body[:half] + (REPLACEMENT * (1 + len(answer.body) // len(REPLACEMENT)))[: len(answer.body) - half]
    )
    exchange.handler.answer(answer)


@_fault("GET")
def deleted_before_get(exchange: _Exchange) -> None:
    exchange.proxy.delete(exchange.path)
    exchange.handler.answer(exchange.forward())


@_fault("GET")
def etag_of_another_version(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.set("ETag", f'"{hashlib.md5(REPLACEMENT).hexdigest()}"')
    exchange.handler.answer(answer)


@_fault("HEAD")
def wrong_size_in_head(exchange: _Exchange) -> None:
    answer = exchange.forward()
    if answer.status == 200:
        answer.set("Content-Length", str(int(answer.header("Content-Length") or 0) + 1))
    exchange.handler.answer(answer)


@_fault("HEAD")
def stale_etag_in_head(exchange: _Exchange) -> None:
    answer = exchange.forward()
    if answer.status == 200:
        answer.set("ETag", f'"{hashlib.md5(REPLACEMENT).hexdigest()}"')
    exchange.handler.answer(answer)


@_fault("LIST")
def missing_page(exchange: _Exchange) -> None:
    answer = exchange.forward()
    token = re.search(rb"<NextContinuationToken>(.*?)</NextContinuationToken>", answer.body)
    if token is not None:
        answer = exchange.forward(path=_with(exchange.path, **{"continuation-token": token[1].decode()}))
    exchange.handler.answer(answer)


@_fault("LIST")
def repeated_page(exchange: _Exchange) -> None:
    answer = exchange.forward(path=_with(exchange.path, **{"continuation-token": None}))
    new = exchange.forward()
    for name in (b"NextContinuationToken", b"IsTruncated"):
        answer.body = _tag(answer.body, name, _read_tag(new.body, name))
    exchange.handler.answer(answer)


@_fault("LIST")
def page_without_its_end(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = _tag(_tag(answer.body, b"IsTruncated", b"false"), b"NextContinuationToken", None)
    exchange.handler.answer(answer)


@_fault("LIST")
def page_that_lost_an_entry(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = re.sub(rb"<Contents>.*?</Contents>", b"", answer.body, count=1, flags=re.DOTALL)
    exchange.handler.answer(answer)


@_fault("LIST")
def page_that_leads_in_a_circle(exchange: _Exchange) -> None:
    answer = exchange.forward()
    token = dict(parse_qsl(urlsplit(exchange.path).query)).get("continuation-token", "round")
    answer.body = _tag(_tag(answer.body, b"IsTruncated", b"true"), b"NextContinuationToken", token.encode())
    exchange.handler.answer(answer)


@_fault("LIST")
def wrong_size_in_list(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.body = re.sub(rb"<Size>(\d+)</Size>", lambda found: b"<Size>1%s</Size>" % found[1], answer.body)
    exchange.handler.answer(answer)


@_fault("PUT")
def answer_lost_after_success(exchange: _Exchange) -> None:
    exchange.forward()
    exchange.handler.reset()


@_fault("PUT")
def answer_stalls_after_success(exchange: _Exchange) -> None:
    exchange.forward()
    exchange.pause(STALL_S)


@_fault("PUT")
def status_500_after_success(exchange: _Exchange) -> None:
    exchange.forward()
    exchange.handler.answer(_error(500, "InternalError"))


@_fault("PUT")
def error_body_with_status_200_and_nothing_stored(exchange: _Exchange) -> None:
    exchange.handler.answer(_error(200, "InternalError"))


@_fault("PUT")
def wrong_etag_after_success(exchange: _Exchange) -> None:
    answer = exchange.forward()
    answer.set("ETag", f'"{hashlib.md5(REPLACEMENT).hexdigest()}"')
    exchange.handler.answer(answer)


@_fault("PUT")
def truncated_upload(exchange: _Exchange) -> None:
    exchange.handler.answer(exchange.forward(body=exchange.body[: exchange.somewhere(len(exchange.body))]))


@_fault("PUT")
def flipped_bit_in_upload(exchange: _Exchange) -> None:
    exchange.handler.answer(exchange.forward(body=_flipped(exchange.body, exchange.somewhere(8 * len(exchange.body)))))


@_fault("PUT")
def another_writer_was_first(exchange: _Exchange) -> None:
    exchange.proxy.put(exchange.path, REPLACEMENT)
    exchange.handler.answer(exchange.forward())


@_fault("PUT")
def another_writer_was_first_with_the_same(exchange: _Exchange) -> None:
    exchange.proxy.put(exchange.path, exchange.body)
    exchange.handler.answer(exchange.forward())


def _flipped(content: bytes, bit: int) -> bytes:
    if not content:
        return content
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _with(path: str, **query: str | None) -> str:
    parts = urlsplit(path)
    old = dict(parse_qsl(parts.query, keep_blank_values=True))
    new = {name: value for name, value in {**old, **query}.items() if value is not None}
    return f"{parts.path}?{urlencode(new)}"


def _read_tag(body: bytes, name: bytes) -> bytes | None:
    found = re.search(rb"<%s>(.*?)</%s>" % (name, name), body)
    return found[1] if found else None


def _tag(body: bytes, name: bytes, value: bytes | None) -> bytes:
    body = re.sub(rb"<%s>.*?</%s>" % (name, name), b"", body)
    return body if value is None else body.replace(b"<Contents>", b"<%s>%s</%s><Contents>" % (name, value, name), 1)
