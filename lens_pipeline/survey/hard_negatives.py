"""Rings, spirals and mergers: light around a galaxy that looks like lensing and is none.

Belongs here: their surface brightness. What is drawn for them is in `features.py`.
"""

from typing import Protocol

import numpy as np

from lens_pipeline.survey.conditions import BANDS, flux_of_mag, transmission
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light
from lens_pipeline.survey.optics import OVERSAMPLING, Image, crop, observe, transform
from lens_pipeline.survey.render import Arc, Row, Scene, make_arc
from lens_pipeline.survey.roles import MERGER, RING, SPIRAL

_MARGIN = 1
_SCALE_OVER_RADIUS, _TAIL_SHARE = 0.35, 0.25


class Placed(Protocol):
    """Cells, and where the host stands on them."""

    @property
    def grid(self) -> Grid:
        """The cells."""

    @property
    def x_arcsec(self) -> float:
        """Place along columns, from the middle."""

    @property
    def y_arcsec(self) -> float:
        """Place along rows."""


def make_hard_negative(scene: Scene, row: Row) -> Arc:
    """Render a ring, arms or a companion around the host; it has no arc, so its measures are None.

    Parameters
    ----------
    row : mapping
        A row of the injection manifest with a feature.
    """
    feature = row["feature"]
    spectrum = transform(feature_cells(scene, row))
    fluxes = [flux_of_mag(feature[f"mag_{band}"]) * transmission(band, scene.ebv) for band in BANDS]
    size = scene.grid.stamp_size
    images = [flux * crop(observe(spectrum, k), size, _MARGIN) for k, flux in zip(scene.kernels, fluxes, strict=True)]
    return Arc(scene.seen(np.maximum(np.stack(images), 0)), dict.fromkeys(make_arc(scene, row).measures))


def feature_cells(scene: Placed, row: Row) -> Image:
    """Return a feature's light, of flux 1, as nanomaggy per pixel on each cell."""
    cells = _SHAPES[row["role"]](scene, row["feature"])
    return np.asarray(cells * (OVERSAMPLING**2 / cells.sum()))


def ring_light(scene: Placed, feature: Row) -> Image:
    """Light of a ring: a Gaussian in radius, inclined."""
    r, _ = _polar(scene, feature)
    radius = feature["radius_arcsec"]
    return np.asarray(np.exp(-0.5 * ((r - radius) / (feature["width"] * radius)) ** 2))


def spiral_light(scene: Placed, feature: Row) -> Image:
    """Light of two logarithmic arms, r = r0 exp(angle tan(pitch)), in an exponential disk with a hole, inclined."""
    r, angle = _polar(scene, feature)
    winding = np.log(np.maximum(r, scene.grid.step)) / np.tan(np.radians(feature["width"]))
    arms = (0.5 + 0.5 * np.cos(2 * (angle - winding))) ** 4
    reduced = r / (_SCALE_OVER_RADIUS * feature["radius_arcsec"])
    return np.asarray(arms * np.exp(-reduced) * reduced**2)


def merger_light(scene: Placed, feature: Row) -> Image:
    """Light of a companion and of a tail from it half way round the host, wider and fainter as it goes."""
    radius, phi = feature["radius_arcsec"], feature["phi_rad"]
    x, y = scene.x_arcsec + radius * np.cos(phi), scene.y_arcsec + radius * np.sin(phi)
    e = (1 - feature["q"]) / (1 + feature["q"])
    light, patch = galaxy_light(scene.grid, Sersic(1.0, feature["width"], 4.0, e, phi, float(x), float(y)))
    companion = np.zeros_like(scene.grid.x)
    companion[patch] = light
    r, angle = _polar(scene, {"q": 1.0, "phi_rad": phi})
    along = np.mod(angle, 2 * np.pi)
    track, spread = radius * (1 + 0.15 * along), 0.15 * radius * (1 + 0.5 * along)
    tail = np.exp(-0.5 * ((r - track) / spread) ** 2 - along) * (along < np.pi)
    return np.asarray(companion / companion.sum() * (1 - _TAIL_SHARE) + tail / tail.sum() * _TAIL_SHARE)


_SHAPES = {RING: ring_light, SPIRAL: spiral_light, MERGER: merger_light}


def _polar(scene: Placed, feature: Row) -> tuple[Image, Image]:
    """Radius and angle in the plane of the host's disk, seen inclined."""
    cos, sin = np.cos(feature["phi_rad"]), np.sin(feature["phi_rad"])
    dx, dy = scene.grid.x - scene.x_arcsec, scene.grid.y - scene.y_arcsec
    major, minor = dx * cos + dy * sin, (dy * cos - dx * sin) / feature["q"]
    return np.hypot(major, minor), np.arctan2(minor, major)
