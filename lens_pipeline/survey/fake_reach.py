"""Where light that is no arc shines next to nothing: the pixels in which a fake or a hard negative must be like its control.

Belongs here: quick estimates on whole pixels. That of a fake is made of the estimate of the arc which it imitates, apart from
what stamps are made with; that of a ring, spiral or merger takes the renderer's own shape and not its PSF.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lens_pipeline.survey.arc_reach import View, arc_light, source_light
from lens_pipeline.survey.hard_negatives import feature_cells
from lens_pipeline.survey.light import Grid
from lens_pipeline.survey.optics import OVERSAMPLING, Image
from lens_pipeline.survey.roles import BLOB, TURNED, UNLENSED

# Of a compact source pixels see their centres alone: the flux that a fake takes over from its arc is known to a part of itself.
_BRIGHTER = 1.5

Row = Mapping[str, Any]
Place = tuple[float, float]


class _Host(NamedTuple):
    grid: Grid
    x_arcsec: float
    y_arcsec: float


def outside_fake(row: Row, view: View) -> NDArray[np.bool_]:
    """Mark the pixels in which a fake is below `NEGLIGIBLE_SIGMA` in every band.

    Parameters
    ----------
    row : mapping
        ``role``, and ``twin`` with the columns that `outside_arc` needs.
    """
    twin = {"shear": 0.0, **row["twin"]}
    arc = arc_light(twin, view)
    light, bright = _SHAPES[row["role"]](arc, twin, view)
    ours, arcs = view.seen(light), view.seen(arc).sum(axis=(1, 2))
    flux = _BRIGHTER * view.brightness(twin, "src_mag_") * arcs / ours.sum(axis=(1, 2))
    return view.dark(ours * flux[:, None, None], bright)


def outside_feature(row: Row, view: View) -> NDArray[np.bool_]:
    """Mark the pixels in which a ring, arms or a companion are below `NEGLIGIBLE_SIGMA` in every band.

    Parameters
    ----------
    row : mapping
        ``role``, and ``feature`` as it was drawn.
    """
    cells = feature_cells(_Host(Grid.of(view.stamp_size, view.pixel_scale_arcsec), *view.host), row)
    n = len(cells) // OVERSAMPLING
    light = cells.reshape(n, OVERSAMPLING, n, OVERSAMPLING).mean(axis=(1, 3))
    return view.dark(view.seen(light) * view.brightness(row["feature"], "mag_")[:, None, None], [])


def _turned(arc: Image, twin: Row, view: View) -> tuple[Image, list[Place]]:
    """Turn the arc about its centroid, and let each pixel have its brightest neighbour: places are right to a pixel.

    What shone at the lens's centre, on a scale smaller than pixels, shines opposite.
    """
    x, y, _ = _moments(arc, view)
    size, (middle_y, middle_x) = view.pixel_scale_arcsec, (view.host[1], view.host[0])
    shift = [round(2 * place / size) for place in (y + middle_y, x + middle_x)]
    return ndimage.maximum_filter(np.roll(arc[::-1, ::-1], shift, axis=(0, 1)), 3), [(2 * x, 2 * y)]


def _unlensed(arc: Image, twin: Row, view: View) -> tuple[Image, list[Place]]:
    """Put the source at theta_E from the host, on its own side."""
    x, y = view.pixels
    offset = max(float(np.hypot(twin["src_x_arcsec"], twin["src_y_arcsec"])), 1e-9)
    along = twin["theta_e_arcsec"] / offset
    place = (along * twin["src_x_arcsec"], along * twin["src_y_arcsec"])
    dx, dy = (at - twin[name] for at, name in zip(place, ("src_x_arcsec", "src_y_arcsec"), strict=True))
    return source_light(twin, view, x - dx, y - dy), [place]


def _blob(arc: Image, twin: Row, view: View) -> tuple[Image, list[Place]]:
    """Spread the arc into a Gaussian, no narrower than a pixel can say."""
    x, y = view.pixels
    at_x, at_y, sigma = _moments(arc, view)
    sigma = float(np.hypot(sigma, view.pixel_scale_arcsec / 2))
    return np.asarray(np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / (2 * sigma**2))), []


_SHAPES: dict[str, Callable[[Image, Row, View], tuple[Image, list[Place]]]] = {
    TURNED: _turned,
    UNLENSED: _unlensed,
    BLOB: _blob,
}


def _moments(light: Image, view: View) -> tuple[float, float, float]:
    """Centroid x and y from the host, and the standard deviation along an axis of a round shape as wide, arcsec."""
    total = light.sum()
    x, y = (float((light * axis).sum() / total) for axis in view.pixels)
    spread = ((view.pixels[0] - x) ** 2 + (view.pixels[1] - y) ** 2) * light
    return x, y, float(np.sqrt(spread.sum() / total / 2))
