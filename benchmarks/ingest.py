"""Parquet to store, per CPU-second, against the naive way: np.load and np.median row by row."""

import io
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.harness import Result, compare
from benchmarks.synthetic import CONTRACT, publish
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.home import Home


def run(quick: bool) -> list[Result]:
    n, rounds = (512, 3) if quick else (2048, 7)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as staged:
        home = Home(Path(folder))
        stamps = publish(home, n)
        config = StoreConfig.model_validate({"workers": 1})

        def ours() -> None:
            build_store(config, stamps, staged.enter_context(home.stage("bench", "stamp_store", inputs=[stamps])))

        def naive() -> None:
            with (
                open(Path(folder) / "naive.f16", "wb") as pixels_file,
                open(Path(folder) / "naive.f32", "wb") as stats_file,
            ):
                for fragment in stamps.attributes["fragments"]:
                    for row in pq.read_table(stamps.folder / fragment["file"]).to_pylist():
                        with np.load(io.BytesIO(row["stamp_npz"])) as archive:
                            pixels = np.stack([archive[name] for name in CONTRACT.members])
                        median = np.array([np.median(band) for band in pixels])
                        mad = np.array([np.median(np.abs(band - m)) for band, m in zip(pixels, median, strict=True)])
                        pixels.astype(np.float16).tofile(pixels_file)
                        np.stack([median, mad], axis=1).astype(np.float32).tofile(stats_file)

        def tidy() -> None:
            # Whoever ingests keeps what was made. Here the next round must not go on with it, nor write over it.
            staged.close()
            shutil.rmtree(home.shelf("bench", "stamp_store") / ".work", ignore_errors=True)
            for made in Path(folder).glob("naive.*"):
                made.unlink()

        against = "np.load + np.median per row"
        return [compare("ingest", ours, naive, against=against, goal=3.5, n=n, rounds=rounds, tidy=tidy)]
