"""Light that has the flux of an arc and is no lens: what tells a lens finder from a finder of extra flux.

Belongs here: rendering of fakes and of injections without flux. Each band's sum within the stamp, the PSF and the noise are
those of the injection that a fake imitates; only the shape differs. Which rows there are is in `manifest.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.hard_negatives import make_hard_negative
from lens_pipeline.survey.image_source import ImageSource
from lens_pipeline.survey.light import Sersic, galaxy_light, lensed_light
from lens_pipeline.survey.optics import Image, crop, observe, transform
from lens_pipeline.survey.real_sources import NO_PICTURES, Pictures, source_of
from lens_pipeline.survey.render import Arc, Scene, make_arc
from lens_pipeline.survey.roles import BLOB, FAKES, HARD_NEGATIVES, NULL_FLUX_PROBE, TURNED, UNLENSED

_MARGIN = 1
# A Sersic profile of index 0.5 is a Gaussian, whose half-light radius is this many of its sigmas.
_GAUSSIAN_N, _REFF_OVER_SIGMA = 0.5, 1.1774

Row = Mapping[str, Any]
Source = Sersic | ImageSource


def make_light(scene: Scene, row: Row, pictures: Pictures = NO_PICTURES) -> Arc:
    """Render what a manifest row adds to its host: an arc, a fake, a ring or the like, or nothing.

    Parameters
    ----------
    pictures : mapping
        The real galaxies that the manifest lenses.
    """
    if row.get("role") in FAKES:
        return make_fake(scene, row, pictures)
    if row.get("role") in HARD_NEGATIVES:
        return make_hard_negative(scene, row)
    if row.get("role") == NULL_FLUX_PROBE:
        return make_arc(scene, {**row, **{f"src_mag_{band}": np.inf for band in BANDS}}, pictures)
    return make_arc(scene, row, pictures)


def make_fake(scene: Scene, row: Row, pictures: Pictures = NO_PICTURES) -> Arc:
    """Render a fake: its shape by its role, its flux in each band that of its twin's arc within the stamp.

    Parameters
    ----------
    row : mapping
        A row of the injection manifest with a twin.

    Returns
    -------
    Arc
        Its measures are None: a fake has no arc.
    """
    twin = row["twin"]
    source = source_of(twin, pictures)
    # Matched as if nothing were hidden: what peeps out beside a mask would be blown up to the flux of all of it.
    arc = make_arc(replace(scene, hidden=None), twin, pictures)
    spectrum = transform(_SHAPES[row["role"]](scene, twin, source))
    size = scene.grid.stamp_size
    shape = np.stack([crop(observe(spectrum, kernel), size, _MARGIN) for kernel in scene.kernels])
    pixels = np.maximum(shape, 0)
    wanted, there = (crop(light, size).sum(axis=(1, 2)) for light in (arc.pixels, pixels))
    return Arc(scene.seen(pixels * (wanted / there)[:, None, None]), dict.fromkeys(arc.measures))


def turned_light(scene: Scene, twin: Row, source: Source) -> Image:
    """Turn an arc by 180 degrees about its own centroid, to the nearest cell: it bends away from the host."""
    cells = _arc_cells(scene, twin, source)
    x, y, _ = _moments(scene, cells)
    shift = [round(2 * place / scene.grid.step) for place in (y, x)]
    return np.roll(cells[::-1, ::-1], shift, axis=(0, 1))


def unlensed_light(scene: Scene, twin: Row, source: Source) -> Image:
    """Put the unlensed source at theta_E from the host, on the side where its brightest image is."""
    offset = float(np.hypot(source.x_arcsec, source.y_arcsec))
    along = twin["theta_e_arcsec"] / max(offset, 1e-9)
    x, y = scene.x_arcsec + along * source.x_arcsec, scene.y_arcsec + along * source.y_arcsec
    return _on_grid(scene, replace(source, x_arcsec=x, y_arcsec=y))


def blob_light(scene: Scene, twin: Row, source: Source) -> Image:
    """Spread an arc's light into a round Gaussian of its own size, about its own centroid."""
    x, y, sigma = _moments(scene, _arc_cells(scene, twin, source))
    blob = Sersic(1.0, _REFF_OVER_SIGMA * sigma, _GAUSSIAN_N, 0.0, 0.0, x, y)
    return _on_grid(scene, blob)


_SHAPES: dict[str, Callable[[Scene, Row, Source], Image]] = {
    TURNED: turned_light,
    UNLENSED: unlensed_light,
    BLOB: blob_light,
}


def _arc_cells(scene: Scene, twin: Row, source: Source) -> Image:
    return lensed_light(scene.grid, source, twin, scene.x_arcsec, scene.y_arcsec)


def _moments(scene: Scene, cells: Image) -> tuple[float, float, float]:
    """Centroid x and y, and the standard deviation along an axis of a round shape as wide, arcsec."""
    total = cells.sum()
    x, y = (float((cells * axis).sum() / total) for axis in (scene.grid.x, scene.grid.y))
    spread = ((scene.grid.x - x) ** 2 + (scene.grid.y - y) ** 2) * cells
    return x, y, float(np.sqrt(spread.sum() / total / 2))


def _on_grid(scene: Scene, profile: Source) -> Image:
    light, patch = galaxy_light(scene.grid, profile)
    cells = np.zeros_like(scene.grid.x)
    cells[patch] = light
    return cells
