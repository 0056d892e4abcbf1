"""Stamps worth looking at, in colour, with what is known of each: lenses found and missed, controls mistaken, contradictions."""

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

from lens_pipeline.evaluation.figures import DPI, figure_png
from lens_pipeline.evaluation.pairs import CONTROL_LOGICAL, CONTROL_LOGIT
from lens_pipeline.evaluation.wording import plain, signed

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
class Panel:
    """One image of a card: PNG, and what it shows."""

    png: bytes
    shows: str


@dataclass(frozen=True)
class Picture:
    """One stamp and its caption; of an injection whose galaxy has a control also the control, and what the injection adds."""

    panels: tuple[Panel, ...]
    task_id: str
    facts: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under one title; `note` says how they were chosen, and what it means if there are none."""

    title: str
    note: str
    pictures: list[Picture]

    @property
    def has_pairs(self) -> bool:
        """Whether cards hold more than the stamp."""
        return any(len(picture.panels) > 1 for picture in self.pictures)


def galleries(
    rows: pl.DataFrame, pairs: pl.DataFrame, threshold: float, words: str, pixels: PixelSource, n: int
) -> list[Gallery]:
    """Pick the best, the most confident misses, the brightest arcs missed, contradictory pairs and the highest controls.

    Parameters
    ----------
    rows : polars.DataFrame
        Scored rows of test, joined to the store.
    pairs : polars.DataFrame
        Its injections beside their controls (`pairs.beside_controls`).
    threshold : float
        Logit; `words` says which operating point it is.
    n : int
        Most pictures a gallery.
    """
    control = pairs.select("task_id", CONTROL_LOGIT, CONTROL_LOGICAL)
    lenses = rows.filter(pl.col("is_lens")).join(
        control, on="task_id", how="left", validate="1:1", maintain_order="left"
    )
    controls = rows.filter(~pl.col("is_lens")).with_columns(
        pl.lit(None, pl.Float64).alias(CONTROL_LOGIT), pl.lit(None, pl.Int64).alias(CONTROL_LOGICAL)
    )
    missed = lenses.filter(pl.col("logit") <= threshold)
    gain = pl.col("logit") - pl.col(CONTROL_LOGIT)
    chosen = [
        (
            "Best: most confident finds",
            "Injected lenses with the highest scores.",
            lenses.filter(pl.col("logit") > threshold).sort("logit", "task_id", descending=[True, False]),
        ),
        (
            "Worst: most confident misses",
            f"Injected lenses with the lowest scores, all missed at the threshold {words}.",
            missed.sort("logit", "task_id"),
        ),
        (
            "Brightest arcs missed",
            "Of the same misses those whose arc has the highest signal-to-noise.",
            missed.drop_nulls("arc_snr").sort("arc_snr", "task_id", descending=[True, False]),
        ),
        (
            "Most contradictory pairs",
            "Injections that score below the control of their own galaxy, those that score furthest below first.",
            lenses.filter(gain < 0).sort(gain, "task_id"),
        ),
        (
            "Most confident false alarms",
            "Controls with the highest scores, whether or not they lie above the threshold. "
            "Look at them: a real lens that nobody has found yet would stand here.",
            controls.sort("logit", "task_id", descending=[True, False]),
        ),
    ]
    return [Gallery(title, note, pictures(part.head(n), pixels)) for title, note, part in chosen]


def pictures(rows: pl.DataFrame, source: PixelSource) -> list[Picture]:
    """Draw stamps with one stretch for all, so that they can be compared.

    Parameters
    ----------
    rows : polars.DataFrame
        With `control_logit` and `control_logical`, null where there is no control.
    """
    if rows.is_empty():
        return []
    taken = source.take(rows["logical"].to_numpy().astype(np.int64))
    noise = np.median(taken.mad, axis=0) * _MAD_TO_SIGMA
    unit = np.where(noise > 0, noise, 1)[:, None, None]
    own = taken.pixels.astype(np.float32)
    has_control = rows[CONTROL_LOGICAL].is_not_null().to_numpy()
    controls = {}
    if has_control.any():
        partner = source.take(rows[CONTROL_LOGICAL].drop_nulls().to_numpy().astype(np.int64))
        places = np.flatnonzero(has_control).tolist()
        controls = dict(zip(places, zip(partner.pixels.astype(np.float32), partner.median, strict=True), strict=True))
    drawn = []
    for place, row in enumerate(rows.iter_rows(named=True)):
        panels = [Panel(lupton_png((own[place] - taken.median[place, :, None, None]) / unit), "stamp")]
        if place in controls:
            other, sky = controls[place]
            panels.append(Panel(lupton_png((other - sky[:, None, None]) / unit), "control"))
            panels.append(Panel(lupton_png((own[place] - other) / unit), "difference"))
        drawn.append(Picture(tuple(panels), str(row["task_id"]), _facts(row)))
    return drawn


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
    facts = [f"logit {signed(row['logit'])}"]
    if row[CONTROL_LOGIT] is not None:
        facts.append(f"its control {signed(row[CONTROL_LOGIT])}")
    if row["is_lens"]:
        if row["theta_e_arcsec"] is not None:
            facts.append(f"θ_E {row['theta_e_arcsec']:.2f}″")
        if row["arc_snr"] is not None:
            facts.append(f"arc S/N {plain(row['arc_snr'])}")
        facts.append(str(row["lens_model"]))
    return ", ".join(facts)
