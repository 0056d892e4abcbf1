"""S3 under faults: a proxy of ours does to a client's requests what networks and servers do.

A case is one fault and one seed over one small job: list a source, read its objects, publish some. Mostly a tenth of the requests
that the fault can hit are hit, and one for certain; in every tenth case all requests of one kind are. In every second case the
server checks what it is sent (as Amazon's and Swift do), in the others it doesn't (as moto).
"""

import atexit
import hashlib
import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lens_pipeline.storage.s3 import Address, ObjectStore, Patience, S3Error
from lens_pipeline.storage.s3_client import Server
from lens_pipeline_tests.storage.fault_proxy import FAULTS, REPLACEMENT, Asked, FaultProxy, Plan, fault_proxy
from reliability.subject import Case, Subject

SEEDS = 50
RATE = 0.1
ANYTHING = "anything"
NAMES = (*sorted(FAULTS), ANYTHING)
BUCKET = "faults"
# How many requests of each kind a job makes before the first fault, at the least.
_AT_LEAST = {"LIST": 4, "GET": 5, "HEAD": 1, "PUT": 3}
PATIENCE = Patience(connect_s=1.0, read_s=0.25, request_s=0.5, backoff_s=0.001, longest_backoff_s=0.01)
_REQUESTS_AN_OBJECT = "requests for one object"
_TIMES_FAULT_FREE = "times the requests without faults"


@dataclass(frozen=True)
class Bench:
    """A server, a proxy before it, and a client on either side of the proxy; `direct` is boto3's own."""

    proxy: FaultProxy
    store: ObjectStore
    direct: Any


@cache
def bench() -> Bench:
    """Start them once a process."""
    from moto.server import ThreadedMotoServer

    stack = ExitStack()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    stack.callback(server.stop)
    host, port = server.get_host_and_port()
    upstream = f"http://{host}:{port}"
    proxy = stack.enter_context(fault_proxy(upstream, pages=333))
    atexit.register(stack.close)
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "anybody")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "anything")
    direct = ObjectStore(Server(upstream, "us-east-1"))._client()
    direct.create_bucket(Bucket=BUCKET)
    return Bench(proxy, ObjectStore(Server(proxy.address, "us-east-1"), PATIENCE), direct)


def plan_of(name: str, seed: int, rate: float = RATE) -> Plan:
    """Which requests suffer a fault: a pure function of the fault, the seed and what was asked before."""
    rng = random.Random(f"{name}:{seed}")
    kinds = _kinds(name)
    always = seed % 10 == 9 and name != ANYTHING
    if always:
        # One kind after the other: where listings always fail, nothing is ever read.
        kinds = frozenset({sorted(kinds)[seed // 10 % len(kinds)]})
    certain = rng.randrange(sum(_AT_LEAST[kind] for kind in kinds))
    hit = itertools.count()

    def plan(asked: Asked) -> str | None:
        if asked.kind not in kinds or not (next(hit) == certain or rng.random() < rate or always):
            return None
        fitting = [fault for fault in NAMES[:-1] if asked.kind in FAULTS[fault].kinds] if name == ANYTHING else [name]
        return rng.choice(fitting)

    return plan


def _kinds(name: str) -> frozenset[str]:
    return frozenset(_AT_LEAST) if name == ANYTHING else FAULTS[name].kinds


def case(number: int) -> Case:
    """Do the job under one fault and one seed, and look what is left of it."""
    return tried(NAMES[number % len(NAMES)], number // len(NAMES))


def tried(name: str, seed: int, rate: float = RATE) -> Case:
    """Do the job under a fault, once for certain and else at a rate."""
    outcome = _Job(f"{name}-{seed}-{rate}").run(plan_of(name, seed, rate), f"{name}:{seed}", strict=seed % 2 == 0)
    counts = {"byte-identical": int(outcome.error is None), "typed errors": int(outcome.error is not None)}
    counts["faults done"] = outcome.n_faults
    largest = {_REQUESTS_AN_OBJECT: float(outcome.most_requests)}
    if seed % 10 != 9:
        largest[_TIMES_FAULT_FREE] = outcome.n_requests / _fault_free_requests()
    problem = outcome.problem or (None if outcome.n_faults else "no request was hit")
    return Case(problem and f"{name}, seed {seed}: {problem}", largest=largest, counts=counts)


@cache
def _fault_free_requests() -> int:
    outcome = _Job("fault-free").run(lambda asked: None, 0)
    if outcome.problem or outcome.error:
        raise AssertionError(f"without any fault: {outcome.problem or outcome.error}")
    return outcome.n_requests


@dataclass
class _Outcome:
    problem: str | None
    error: S3Error | None
    n_requests: int
    n_faults: int
    most_requests: int


class _Job:
    """List a source, read it, publish: the steps that touch a server in a run of the pipeline."""

    def __init__(self, name: str) -> None:
        self.bench = bench()
        self.root = Address(BUCKET, name)
        rng = random.Random(name)
        self.source = {f"part-{n}": rng.randbytes(size) for n, size in enumerate((0, 1, 3_000, 150_000, 40_000))}
        self.made = {f"segment-{n}": rng.randbytes(size) for n, size in enumerate((20_000, 5_000))}
        self.made["manifest"] = rng.randbytes(300)
        self.etags: dict[str, bytes] = {_md5(REPLACEMENT): REPLACEMENT}
        self.most_requests = 0

    def run(self, plan: Plan, seed: object, *, strict: bool = True) -> _Outcome:
        self._lay_out_source()
        folder = Path(tempfile.mkdtemp(prefix="s3-faults-"))
        error, problem = None, None
        self.bench.proxy.begin(plan, seed, strict=strict)
        try:
            problem = self._work(folder)
        except S3Error as caught:
            error = caught
        finally:
            self.bench.proxy.plan = lambda asked: None
        asked = list(self.bench.proxy.asked)
        problem = problem or self._left(folder) or self._published(error is None)
        shutil.rmtree(folder)
        n_faults = sum(fault is not None for _, fault in asked)
        return _Outcome(problem, error, len(asked), n_faults, self.most_requests)

    def _lay_out_source(self) -> None:
        direct = self.bench.direct
        for name, content in self.source.items():
            key = f"{self.root.key}/source/{name}"
            if name == "part-4":
                upload = direct.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
                part = direct.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=content)
                parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
                etag = direct.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload=parts)[
                    "ETag"
                ]
            else:
                etag = direct.put_object(Bucket=BUCKET, Key=key, Body=content)["ETag"]
            self.etags[etag.strip('"')] = content

    def _work(self, folder: Path) -> str | None:
        """Do the job; return what came out wrong without an error."""
        store, source, shelf = self.bench.store, self.root / "source", self.root / "shelf"
        listed = store.list(source)
        if {info.address.name for info in listed} != self.source.keys():
            return f"the list had {[info.address.name for info in listed]}"
        for info in listed:
            path = folder / info.address.name
            self._within(lambda info=info, path=path: store.download(info, path))
            if path.read_bytes() != self.etags[info.etag]:
                return f"{info.address.name} was read as other bytes"
        info = self._within(lambda: store.head(source / "part-3"))
        if info is not None:
            path, expected = folder / "again", self.etags.get(info.etag, b"")
            self._within(lambda: store.download(info, path, sha256=_sha256(expected)))
            if path.read_bytes() != expected:
                return "the object asked for by its hash was read as other bytes"
        small = self._within(lambda: store.read(source / "part-2", at_most=10_000))
        if small not in (self.source["part-2"], REPLACEMENT, None) or (small is None and not self._was_deleted()):
            return "a small object was read as other bytes"
        for name, content in self.made.items():
            given: bytes | Path = content
            if name == "segment-0":
                given = folder / name
                given.write_bytes(content)
            self._within(
                lambda name=name, given=given, content=content: store.create(shelf / name, given, _sha256(content))
            )
        return None

    def _within(self, step: Callable[[], Any]) -> Any:
        before = self.bench.store.requests
        try:
            return step()
        finally:
            self.most_requests = max(self.most_requests, self.bench.store.requests - before)

    def _was_deleted(self) -> bool:
        return any(fault == "deleted_before_get" for _, fault in self.bench.proxy.asked)

    def _left(self, folder: Path) -> str | None:
        """Every file that is there must be whole and right; no file may be half of one."""
        whole = [*self.source.values(), *self.made.values(), REPLACEMENT]
        bad = [path.name for path in folder.iterdir() if path.read_bytes() not in whole or path.name.startswith(".")]
        return f"left behind: {bad}" if bad else None

    def _published(self, done: bool) -> str | None:
        """Look at what is there: a manifest only with everything that it speaks of."""
        listed = self.bench.direct.list_objects_v2(Bucket=BUCKET, Prefix=f"{self.root.key}/shelf/").get("Contents", [])
        there = {entry["Key"].rpartition("/")[2]: entry["Key"] for entry in listed}
        if "manifest" not in there:
            return "it said published, and there is no manifest" if done else None
        held = {
            name: self.bench.direct.get_object(Bucket=BUCKET, Key=key)["Body"].read() for name, key in there.items()
        }
        if not done and held["manifest"] != self.made["manifest"]:
            return None
        return None if held == self.made else "published, but not what was made"


def _md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


SUBJECT = Subject(
    name="s3_faults",
    question="Under any fault on the way to S3 a job ends byte-identical, or as a typed error with nothing published.",
    unit="jobs under faults",
    goal=1_200,
    case=case,
    n_cases=len(NAMES) * SEEDS,
    bounds={_REQUESTS_AN_OBJECT: 8.0, _TIMES_FAULT_FREE: 3.0},
)
