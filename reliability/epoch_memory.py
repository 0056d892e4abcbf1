"""Memory of reading: opening a store and one epoch over it take no more at 10.6 million rows than at 10 thousand.

Each size is a process of its own. The index is synthetic, has every column of the store's contract and is read as any other;
the segments are sparse files of the right size, so that 260 GB of pixels take no room. The whole epoch is sampled; pixels
are read in the first 100 of its steps, by two threads: the buffers are reused, so what follows takes nothing more.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.synthetic import CONTRACT, store_attributes, write_store
from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.loader import Loader
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.segments import SegmentLayout
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.manifest import FileEntry, Manifest
from lens_pipeline.storage.publication import MANIFEST_NAME, Publication
from reliability.subject import Case, Subject

SIZES = (10_000, 100_000, 1_300_000, 10_600_000)
_BATCH, _STEPS_READ = 256, 100


def case(number: int) -> Case:
    n = SIZES[number % len(SIZES)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _publish(folder, n)
        grown = json.loads(_measured(folder))
    # An epoch may grow by nothing after the one that warmed up; but not unseen.
    return Case(
        problem=None if grown["looks"] else "memory was never looked at while the epoch ran",
        n=1,
        largest={"grown_mb": grown["mb"], f"grown_mb_at_{n}_rows": grown["mb"]},
        counts={"rows": grown["rows"]},
    )


def _measured(folder: Path) -> str:
    command = [sys.executable, "-m", "reliability.epoch_memory", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _publish(folder: Path, n: int) -> None:
    layout = SegmentLayout.of(CONTRACT, 4 << 30)
    n_segments = layout.n_segments(n)
    write_store(folder, n, n_segments, sparse=True)
    index = folder / "stamp_store.parquet"
    files = {path.name: FileEntry("not hashed: sparse", path.stat().st_size) for path in folder.iterdir()}
    files[index.name] = FileEntry(
        sha256_of(index), index.stat().st_size, n, {"logical": "int64", "segment": "int32", "segment_row": "int64"}
    )
    manifest = Manifest("synthetic", "stamp_store", "shared", files, {}, store_attributes(n, n_segments))
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())


class _Watch(threading.Thread):
    """Keeps the largest RssAnon of this process, looked at every ten milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.first = self.largest = _anonymous_mb()
        self.looks = 0
        self._ended = threading.Event()

    def run(self) -> None:
        """Look until it is told to end."""
        while not self._ended.wait(0.01):
            self.largest = max(self.largest, _anonymous_mb())
            self.looks += 1

    def end(self) -> float:
        """Stop, and return by how much it grew at most, in MB."""
        self._ended.set()
        self.join()
        return self.largest - self.first


def _anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this kernel doesn't count RssAnon")


def _epoch(store: StampStore) -> int:
    sampler = GlobalSampler(np.arange(store.n_rows, dtype=np.int32), seed=1, global_batch=_BATCH)
    sampled = sum(len(sampler.step(0, step)) for step in range(sampler.steps_per_epoch))
    loader = Loader(store, threads=2)
    batches = loader.training_batches(sampler, DihedralAugmentation(1), epoch=0, rank=0, world=1)
    for _ in zip(range(_STEPS_READ), batches, strict=False):
        pass
    return sampled


def main(folder: Path) -> None:
    """Measure in this process, after everything is imported and compiled, and print what was found as JSON."""
    with tempfile.TemporaryDirectory() as name:
        _publish(Path(name), 1_000)
        _epoch(StampStore.open(Publication.open(Path(name))))
    watch = _Watch()
    watch.start()
    rows = _epoch(StampStore.open(Publication.open(folder)))
    print(json.dumps({"mb": watch.end(), "rows": rows, "looks": watch.looks}))


SUBJECT = Subject(
    name="epoch_memory",
    question="opening a store and one epoch over it take at most 200 MB of anonymous memory, from 10 thousand to 10.6 million "
    "rows (synthetic index, sparse segments of the right size; all steps sampled, the first 100 read)",
    unit="store sizes",
    goal=len(SIZES),
    case=case,
    n_cases=len(SIZES),
    bounds={"grown_mb": 200.0},
)

if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(Path(sys.argv[1]))
