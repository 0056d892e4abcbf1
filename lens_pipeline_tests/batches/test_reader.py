"""Every way of reading gives the same batches; the rule that chooses one says why, and refuses what can't be had."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lens_pipeline.batches.augment import DihedralAugmentation
from lens_pipeline.batches.device_rows import DeviceRows
from lens_pipeline.batches.loader import Batch, Loader
from lens_pipeline.batches.opening import open_rows
from lens_pipeline.batches.reader import Reader, available_memory, choose_reader
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.stamps.row_sources import FileRows, MemoryRows, RowSource
from lens_pipeline.stamps.sampler import GlobalSampler
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.stamps.scattered import scatter

CPU = torch.device("cpu")
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
PINS = [False, True] if torch.cuda.is_available() else [False]


def opened(store: StampStore, reader: str, rows: np.ndarray, device: str) -> RowSource | DeviceRows:
    if reader == "device":
        return DeviceRows(store, rows, torch.device(device))
    source, choice = open_rows(store, Reader(reader), rows=np.array_split(rows, 2), ranks=1, device=CPU)
    assert choice.reader.value == reader
    return source


def content(batches: Iterator[Batch]) -> list[tuple[object, ...]]:
    return [
        (
            batch.step,
            batch.n_global,
            batch.logical.tolist(),
            *(tensor.cpu().numpy().tobytes() for tensor in (batch.pixels, batch.median, batch.mad)),
            None if batch.elements is None else batch.elements.tolist(),
        )
        for batch in batches
    ]


@pytest.fixture(scope="module")
def scattered(store: StampStore, tmp_path_factory: pytest.TempPathFactory) -> StampStore:
    home = Home(Path(tmp_path_factory.mktemp("scattered")))
    return StampStore.open(scatter(home, store.publication, n_holes=9))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pin", PINS)
@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("reader", ["mapped", "pread", "memory", "device"])
def test_every_reader_gives_the_same_batches_bit_for_bit(
    store: StampStore, scattered: StampStore, reader: str, threads: int, world: int, pin: bool, device: str
) -> None:
    rows = np.arange(0, store.n_rows, 2)
    sampler, augmentation = GlobalSampler(rows, seed=1, global_batch=24), DihedralAugmentation(1)
    held = np.arange(store.n_rows)

    def epoch(source: RowSource | DeviceRows, threads: int, pin: bool) -> list[list[tuple[object, ...]]]:
        loader = Loader(source, threads=threads, pin=pin)
        trained = [
            loader.training_batches(sampler, augmentation, epoch=1, rank=rank, world=world) for rank in range(world)
        ]
        evaluated = [loader.evaluation_batches(held, batch_size=20, rank=rank, world=world) for rank in range(world)]
        return [content(batches) for batches in (*trained, *evaluated)]

    assert epoch(opened(scattered, reader, held, device), threads, pin) == epoch(store, 1, False)


GB = 10**9
NO_GPU, GPU = None, 80 * GB


@pytest.mark.parametrize(
    ("n_bytes", "available", "ranks", "free_on_device", "reader"),
    [
        (32 * GB, 64 * GB, 8, GPU, Reader.device),
        (33 * GB, 64 * GB, 8, GPU, Reader.mapped),
        (260 * GB, 64 * GB, 8, GPU, Reader.pread),
        (50 * GB, 64 * GB, 8, NO_GPU, Reader.mapped),
        (52 * GB, 64 * GB, 1, NO_GPU, Reader.pread),
        (1, 0, 1, NO_GPU, Reader.pread),
        (0, 0, 1, 0, Reader.device),
    ],
)
def test_what_fits_decides_and_the_reason_is_said(
    n_bytes: int, available: int, ranks: int, free_on_device: int | None, reader: Reader
) -> None:
    choice = choose_reader(
        Reader.auto, n_bytes=n_bytes, available=available, ranks=ranks, free_on_device=free_on_device
    )
    assert choice.reader is reader
    assert choice.why.startswith(f"{reader.value}: the rows take ")


def test_rows_that_are_read_once_are_not_put_on_the_gpu_by_the_rule() -> None:
    choice = choose_reader(Reader.auto, n_bytes=GB, available=9 * GB, free_on_device=GPU, once=True)
    assert choice.reader is Reader.mapped
    asked = choose_reader(Reader.device, n_bytes=GB, available=9 * GB, free_on_device=GPU, once=True)
    assert asked.reader is Reader.device


@pytest.mark.parametrize("asked", [Reader.mapped, Reader.pread, Reader.memory, Reader.device])
def test_a_reader_that_was_asked_for_is_used(asked: Reader) -> None:
    choice = choose_reader(asked, n_bytes=GB, available=9 * GB, ranks=7, free_on_device=GPU)
    assert choice.reader is asked
    assert "as it was set" in choice.why


@pytest.mark.parametrize(
    ("asked", "ranks", "free_on_device", "said"),
    [
        (Reader.device, 1, NO_GPU, "there is no GPU"),
        (Reader.device, 1, GB, "1 GB are free on the GPU"),
        (Reader.memory, 8, GPU, "in each of 8 ranks, and 9 GB of host memory are available"),
    ],
)
def test_a_reader_that_cant_be_had_is_refused_with_its_numbers(
    asked: Reader, ranks: int, free_on_device: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        choose_reader(asked, n_bytes=GB, available=9 * GB, ranks=ranks, free_on_device=free_on_device)


def test_the_source_is_the_one_that_was_chosen(store: StampStore) -> None:
    kinds = {Reader.auto: StampStore, Reader.mapped: StampStore, Reader.pread: FileRows, Reader.memory: MemoryRows}
    for asked, kind in kinds.items():
        source, choice = open_rows(store, asked, rows=[np.arange(9)], ranks=1, device=CPU)
        assert type(source) is kind
        assert choice.why
    with pytest.raises(ConfigError, match="no GPU"):
        open_rows(store, Reader.device, rows=[np.arange(9)], ranks=1, device=CPU)


def test_a_container_that_is_held_to_less_has_less_available(tmp_path: Path) -> None:
    machine = available_memory(tmp_path)
    assert machine > 2**20
    for name, text in (
        ("memory.max", "1000000\n"),
        ("memory.current", "700000\n"),
        ("memory.stat", "anon 4\nfile 200000\n"),
    ):
        (tmp_path / name).write_text(text)
    assert available_memory(tmp_path) == 500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) > 2**20
