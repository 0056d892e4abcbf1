"""Other readers of the same stamps, each in its own format and as its documentation has it, behind one small interface.

Runs in an interpreter that has the reader and need not have this pipeline: ``python -m benchmarks.peers NAME FOLDER WORKERS``
writes FOLDER/stamps.npy in the reader's format if that isn't there, then answers each number on standard input, an epoch,
with a line of JSON: rows, seconds and a sum over the rows that tells whether each came once. An epoch is shuffled, in batches
of 256 float16 (row, band, y, x). Every import of a reader is inside its two functions.
"""

import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCH = 256
SHARDS = 8

Pixels = Any  # An array or a tensor: each reader has its own.
Epoch = Callable[[int], Iterable[Pixels]]


class Reader(NamedTuple):
    """A reader: its package, how it writes stamps, and how it opens them with a number of workers."""

    package: str
    write: Callable[[Any, Path], None]
    open: Callable[[Path, int], Epoch]


def _shape(folder: Path) -> tuple[int, ...]:
    return np.load(folder.parent / "stamps.npy", mmap_mode="r").shape


def _as_pixels(rows: list[bytes], shape: tuple[int, ...]) -> Pixels:
    return np.frombuffer(b"".join(rows), np.float16).reshape(-1, *shape[1:])


def _loader(dataset: Any, workers: int, **options: Any) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0, **options)


# ---- one memory map behind torch's loader ----


class _Map:
    """Takes a whole batch at once, which is the fastest that a map-style dataset can do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pixels: Any = None

    def __len__(self) -> int:
        return len(np.load(self._path, mmap_mode="r"))

    def __getitems__(self, rows: list[int]) -> Pixels:
        import torch

        if self._pixels is None:
            self._pixels = np.asarray(np.load(self._path, mmap_mode="r"))
        return torch.from_numpy(self._pixels[rows])


def _same(batch: Pixels) -> Pixels:
    return batch


def _open_map(folder: Path, workers: int) -> Epoch:
    loader = _loader(_Map(folder.parent / "stamps.npy"), workers, shuffle=True, collate_fn=_same)
    return lambda epoch: loader


# ---- Hugging Face datasets ----


def _write_datasets(pixels: Any, folder: Path) -> None:
    from datasets import Array3D, Dataset, Features

    features = Features({"pixels": Array3D(pixels.shape[1:], "float16")})
    Dataset.from_dict({"pixels": list(np.asarray(pixels))}, features=features).save_to_disk(str(folder))


def _open_datasets(folder: Path, workers: int) -> Epoch:
    from datasets import load_from_disk

    loader = _loader(load_from_disk(str(folder)).with_format("torch"), workers, shuffle=True)
    return lambda epoch: (batch["pixels"] for batch in loader)


# ---- webdataset, and DALI on the same tar files ----


def _write_tars(pixels: Any, folder: Path, suffix: str, encode: Callable[[Any], bytes]) -> None:
    for shard, rows in enumerate(np.array_split(np.arange(len(pixels)), SHARDS)):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for row in rows.tolist():
                content = encode(pixels[row])
                member = tarfile.TarInfo(f"{row:08d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def _as_npy(stamp: Any) -> bytes:
    file = BytesIO()
    np.save(file, stamp)
    return file.getvalue()


def _write_webdataset(pixels: Any, folder: Path) -> None:
    _write_tars(pixels, folder, "npy", _as_npy)


def _open_webdataset(folder: Path, workers: int) -> Epoch:
    import webdataset

    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=len(shards), nodesplitter=None)
        .shuffle(1000)
        .decode()
        .to_tuple("npy")
        .map(_first)
        .batched(BATCH, collation_fn=_stacked)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda epoch: loader


def _first(sample: tuple[Any, ...]) -> Any:
    return sample[0]


def _stacked(samples: list[Any]) -> Any:
    return np.stack(samples)


def _write_dali(pixels: Any, folder: Path) -> None:
    _write_tars(pixels, folder, "bin", lambda stamp: stamp.tobytes())


def _open_dali(folder: Path, workers: int) -> Epoch:
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    shape = _shape(folder)

    @pipeline_def(batch_size=BATCH, num_threads=max(workers, 1), device_id=None)
    def pipeline() -> Any:
        read = fn.readers.webdataset(
            paths=[str(path) for path in sorted(folder.glob("*.tar"))], ext=["bin"], random_shuffle=True,
            initial_fill=1024, dont_use_mmap=False, name="reader", missing_component_behavior="error",
        )  # fmt: skip
        return fn.reinterpret(read, dtype=types.FLOAT16, shape=list(shape[1:]))

    made = pipeline()
    made.build()
    iterator = DALIGenericIterator(
        [made], ["pixels"], reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL, auto_reset=True
    )
    return lambda epoch: (batch[0]["pixels"] for batch in iterator)


# ---- MosaicML streaming ----


def _write_mds(pixels: Any, folder: Path) -> None:
    from streaming import MDSWriter

    shape = ",".join(str(side) for side in pixels.shape[1:])
    with MDSWriter(out=str(folder), columns={"pixels": f"ndarray:float16:{shape}"}) as writer:
        for stamp in pixels:
            writer.write({"pixels": np.asarray(stamp)})


def _open_mds(folder: Path, workers: int) -> Epoch:
    from streaming import StreamingDataset

    dataset = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
    loader = _loader(dataset, workers)
    return lambda epoch: (batch["pixels"] for batch in loader)


# ---- litdata ----


def _write_litdata(pixels: Any, folder: Path) -> None:
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_bytes="64MB")
    for row, stamp in enumerate(pixels):
        writer.add_item(row, np.asarray(stamp).tobytes())
    writer.done()
    writer.merge()


def _open_litdata(folder: Path, workers: int) -> Epoch:
    from litdata import StreamingDataLoader, StreamingDataset

    shape = _shape(folder)
    dataset = StreamingDataset(str(folder), shuffle=True, drop_last=False)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=_Joined(shape))
    return lambda epoch: loader


class _Joined:
    """A collate that joins raw rows; a class, so that worker processes can be given it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def __call__(self, rows: list[bytes]) -> Pixels:
        return _as_pixels(rows, self._shape)


# ---- Lance ----


def _write_lance(pixels: Any, folder: Path) -> None:
    import lance
    import pyarrow as pa

    flat = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    column = pa.Array.from_buffers(pa.binary(2 * flat.shape[1]), len(flat), [None, pa.py_buffer(flat.tobytes())])
    lance.write_dataset(pa.table({"pixels": column}), str(folder), mode="overwrite")


class _Lance:
    """Takes a whole batch at once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._shape = folder, _shape(folder)
        self._dataset: Any = None

    def __len__(self) -> int:
        return self._shape[0]

    def __getitems__(self, rows: list[int]) -> Pixels:
        import lance

        if self._dataset is None:
            self._dataset = lance.dataset(str(self._folder))
        column = self._dataset.take(rows, columns=["pixels"])["pixels"].combine_chunks()
        taken = np.frombuffer(column.buffers()[1], np.float16, offset=0)
        n = int(np.prod(self._shape[1:]))
        return taken[column.offset * n :][: len(rows) * n].reshape(-1, *self._shape[1:])


def _open_lance(folder: Path, workers: int) -> Epoch:
    options = {"multiprocessing_context": "spawn"} if workers else {}
    loader = _loader(_Lance(folder), workers, shuffle=True, collate_fn=_same, **options)
    return lambda epoch: loader


# ---- tensorstore ----


def _write_tensorstore(pixels: Any, folder: Path) -> None:
    import tensorstore

    store = tensorstore.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder)},
         "metadata": {"compressor": None, "dtype": "<f2", "shape": pixels.shape, "chunks": [32, *pixels.shape[1:]]}},
        create=True,
    ).result()  # fmt: skip
    store.write(np.asarray(pixels)).result()


def _open_tensorstore(folder: Path, workers: int) -> Epoch:
    import tensorstore

    store = tensorstore.open(
        {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder)}},
        context=tensorstore.Context(
            {"cache_pool": {"total_bytes_limit": 1 << 32}, "data_copy_concurrency": {"limit": max(workers, 1)}}
        ),
    ).result()

    def epoch(number: int) -> Iterable[Pixels]:
        order = np.random.default_rng(number).permutation(store.shape[0])
        for start in range(0, len(order), BATCH):
            yield store[order[start : start + BATCH]].read().result()

    return epoch


# ---- FFCV ----


def _write_ffcv(pixels: Any, folder: Path) -> None:
    from ffcv.fields import NDArrayField
    from ffcv.writer import DatasetWriter

    # It has no float16: the same bytes under another type.
    rows = [(np.ascontiguousarray(stamp).view(np.int16),) for stamp in pixels]
    field = NDArrayField(np.dtype("int16"), tuple(pixels.shape[1:]))
    DatasetWriter(str(folder / "stamps.beton"), {"pixels": field}).from_indexed_dataset(rows)


def _open_ffcv(folder: Path, workers: int) -> Epoch:
    from ffcv.fields.decoders import NDArrayDecoder
    from ffcv.loader import Loader, OrderOption

    loader = Loader(
        str(folder / "stamps.beton"), batch_size=BATCH, num_workers=max(workers, 1), order=OrderOption.RANDOM,
        pipelines={"pixels": [NDArrayDecoder()]},
    )  # fmt: skip
    return lambda epoch: (batch[0].view(np.float16) for batch in loader)


READERS = {
    "dataloader": Reader("torch", lambda pixels, folder: None, _open_map),
    "hf_datasets": Reader("datasets", _write_datasets, _open_datasets),
    "webdataset": Reader("webdataset", _write_webdataset, _open_webdataset),
    "mds": Reader("mosaicml-streaming", _write_mds, _open_mds),
    "litdata": Reader("litdata", _write_litdata, _open_litdata),
    "lance": Reader("pylance", _write_lance, _open_lance),
    "tensorstore": Reader("tensorstore", _write_tensorstore, _open_tensorstore),
    "dali": Reader("nvidia-dali-cuda120", _write_dali, _open_dali),
    "ffcv": Reader("ffcv", _write_ffcv, _open_ffcv),
}


def serve(name_and_version: str, epoch: Epoch) -> None:
    """Announce a reader, then run an epoch for every number that comes in."""
    print(json.dumps({"reader": name_and_version}), flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        n, total = 0, 0.0
        for pixels in epoch(int(line)):
            n += len(pixels)
            total += float(pixels[:, 0, 0, 0].sum(dtype=_double(pixels)))
        print(json.dumps({"rows": n, "sum": total, "seconds": time.perf_counter() - began}), flush=True)


def _double(pixels: Pixels) -> Any:
    if isinstance(pixels, np.ndarray):
        return np.float64
    import torch

    return torch.float64


def main() -> None:
    """Write if need be, open, serve."""
    name, folder, workers = sys.argv[1], Path(sys.argv[2]) / sys.argv[1], int(sys.argv[3])
    reader = READERS[name]
    said = f"{reader.package} {version(reader.package)}"
    if not folder.exists():
        folder.mkdir()
        reader.write(np.load(folder.parent / "stamps.npy", mmap_mode="r"), folder)
    serve(said, reader.open(folder, workers))


if __name__ == "__main__":
    main()
