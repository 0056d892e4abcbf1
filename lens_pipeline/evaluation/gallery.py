"""Stamps worth looking at: the lenses missed and the controls mistaken, in colour, with what is known of each."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl
from astropy.visualization import make_lupton_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from lens_pipeline.evaluation.plots import DPI, figure_png

_MAD_TO_SIGMA = 1.4826
_STRETCH_SIGMA, _Q = 6.0, 8.0


class Pixels(Protocol):
    """Decoded stamps: `pixels` (n, band, y, x) in nanomaggy, `median` and `mad` (n, band) in nanomaggy."""

    @property
    def pixels(self) -> npt.NDArray[np.float16]: ...  # noqa: D102

    @property
    def median(self) -> npt.NDArray[np.float32]: ...  # noqa: D102

    @property
    def mad(self) -> npt.NDArray[np.float32]: ...  # noqa: D102


class PixelSource(Protocol):
    """What a gallery asks of a store: rows by logical number (stamps.store.StampStore)."""

    def take(self, logical: npt.NDArray[np.int64]) -> Pixels:
        """Read rows in the order asked for."""
        ...


@dataclass(frozen=True)
class Picture:
    """One stamp and its caption."""

    png: bytes
    task_id: str
    facts: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under one title; `note` says how they were chosen, and what it means if there are none."""

    title: str
    note: str
    pictures: list[Picture]


def galleries(rows: pl.DataFrame, threshold: float, words: str, pixels: PixelSource, n: int) -> list[Gallery]:
    """Pick the most confident misses, the brightest arcs missed and the highest-scoring controls.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, joined to the store.
    threshold : float
        Logit; `words` says which operating point it is.
    n : int
        Most pictures a gallery.
    """
    missed = rows.filter(pl.col("is_lens") & (pl.col("logit") <= threshold))
    controls = rows.filter(~pl.col("is_lens"))
    above = controls.filter(pl.col("logit") > threshold).height
    n_lenses = rows.height - controls.height
    chosen = [
        (
            "Most confident misses",
            f"Injected lenses with the lowest scores, of {missed.height:,} missed among {n_lenses:,} at the threshold {words}.",
            missed.sort("logit", "task_id"),
        ),
        (
            "Brightest arcs missed",
            f"Of the same {missed.height:,} misses, those whose arc has the highest signal-to-noise.",
            missed.drop_nulls("arc_snr").sort("arc_snr", "task_id", descending=[True, False]),
        ),
        (
            "Most confident false alarms",
            f"Controls with the highest scores; {above:,} of {controls.height:,} lie above the threshold {words}. "
            "Look at them: a real lens that nobody has found yet would stand here.",
            controls.sort("logit", "task_id", descending=[True, False]),
        ),
    ]
    return [Gallery(title, note, pictures(part.head(n), pixels)) for title, note, part in chosen]


def pictures(rows: pl.DataFrame, source: PixelSource) -> list[Picture]:
    """Draw stamps with one stretch for all, so that they can be compared."""
    if rows.is_empty():
        return []
    taken = source.take(rows["logical"].to_numpy().astype(np.int64))
    flux = taken.pixels.astype(np.float32) - taken.median[:, :, None, None]
    noise = np.median(taken.mad, axis=0) * _MAD_TO_SIGMA
    scaled = flux / np.where(noise > 0, noise, 1)[None, :, None, None]
    drawn = [lupton_png(stamp) for stamp in scaled]
    return [
        Picture(png, str(row["task_id"]), _facts(row))
        for png, row in zip(drawn, rows.iter_rows(named=True), strict=True)
    ]


def lupton_png(stamp: npt.NDArray[np.float32]) -> bytes:
    """Draw one stamp in colour (Lupton et al. 2004), the reddest band as red, y upwards.

    Parameters
    ----------
    stamp : array of float32, shape (band, y, x)
        Sky-subtracted, in units of the noise; bands from blue to red. One band gives grey.
    """
    n_bands = stamp.shape[0]
    red, green, blue = stamp[n_bands - 1], stamp[n_bands // 2], stamp[0]
    image = make_lupton_rgb(red, green, blue, minimum=-1.0, stretch=_STRETCH_SIGMA, Q=_Q)
    buffer = io.BytesIO()
    imsave(buffer, image, format="png", origin="lower")
    return buffer.getvalue()


def scored_png(stamps: Sequence[tuple[npt.NDArray[np.float32] | None, tuple[str, str]]]) -> bytes:
    """Draw stamps in colour in rows of four, each with two lines of words beneath it.

    Parameters
    ----------
    stamps : sequence of (pixels, (name, verdict))
        Pixels (band, y, x), sky-subtracted, in the image's own orientation, 0 where nothing was measured; or None: then the words
        stand alone.
    """
    columns = min(len(stamps), 4)
    rows = -(-len(stamps) // columns)
    figure = Figure(figsize=(2.6 * columns, 3.0 * rows), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, (pixels, (name, verdict)) in zip(panels, stamps, strict=False):
        if pixels is not None:
            noise = np.array([_noise(plane) for plane in pixels], np.float32)
            png = lupton_png(pixels / noise[:, None, None])
            panel.imshow(imread(io.BytesIO(png), format="png"), interpolation="nearest")
        panel.set_title(f"{name}\n{verdict}", fontsize=9)
    return figure_png(figure)


def _noise(plane: npt.NDArray[np.float32]) -> float:
    """Sigma of a pixel from differences of neighbours, so that a galaxy that fills the stamp isn't taken for noise."""
    steps = np.diff(plane, axis=1)[(plane[:, 1:] != 0) & (plane[:, :-1] != 0)]
    found = float(np.median(np.abs(steps))) * _MAD_TO_SIGMA / np.sqrt(2) if steps.size else 0.0
    return found or 1.0


def _facts(row: dict[str, Any]) -> str:
    facts = [f"logit {row['logit']:.2f}"]
    if row["is_lens"]:
        if row["theta_e_arcsec"] is not None:
            facts.append(f"θ_E {row['theta_e_arcsec']:.2f}″")
        if row["arc_snr"] is not None:
            facts.append(f"arc S/N {row['arc_snr']:.2g}")
        facts.append(str(row["lens_model"]))
    return ", ".join(facts)
