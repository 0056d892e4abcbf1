"""Variants of a user's own injections, which can't be rendered again: made of each and the control of its galaxy.

Where both stamps hold the same noise, as when arcs are added to a real cutout, their difference is the arc with its
Poisson noise: it can be taken away, scaled, turned, moved and spread. Where noise was drawn anew, only the control itself
stands for the stamp without its arc. What the unlensed source looked like, no difference says.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lens_pipeline.audits.variants import DISPLACED, HALF_TURN, INJECTION, REMOVED, SCALED, VARIANTS, Variants
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.survey.roles import BLOB, TURNED

_MAD_TO_SIGMA = 1.4826
# Of most pixels, in sigmas: a pair whose pixels differ by more has noise of its own in each stamp.
_SHARED_SIGMA = 0.1

Stamp = NDArray[np.float32]
Light = NDArray[np.float64]


def pair_variants(chosen: pl.DataFrame, store: StampStore) -> Variants:
    """Make what variants pairs of stored stamps allow; the others are NaN.

    Parameters
    ----------
    chosen : polars.DataFrame
        From `choose_injections`; an injection without a stored control is left out.
    """
    index = pl.DataFrame(store.columns(["task_id", "logical"])).rename({"task_id": "pair_id", "logical": "control"})
    rows = chosen.join(index, on="pair_id", how="inner", maintain_order="left")
    first, control = (store.take(rows[name].to_numpy()) for name in ("logical", "control"))
    pixels = [stamps.pixels.astype(np.float32) for stamps in (first, control)]
    sigma = _MAD_TO_SIGMA * control.mad[:, :, None, None]
    made = {name: np.full(pixels[0].shape, np.nan, np.float32) for name in VARIANTS}
    made[INJECTION], made[REMOVED] = pixels
    for place, (stamp, background) in enumerate(zip(*pixels, strict=True)):
        light = stamp.astype(np.float64) - background
        if np.median(np.abs(light) / sigma[place]) < _SHARED_SIGMA:
            for name, moved in _moved(light).items():
                made[name][place] = background + moved
    nowhere = {name: pl.lit(0.0) for name in ("host_x_arcsec", "host_y_arcsec")}
    scale = pl.lit(store.contract.pixel_scale_arcsec)
    return Variants(rows.drop("control").with_columns(**nowhere, pixel_scale_arcsec=scale), made)


def _moved(light: Light) -> dict[str, Light]:
    """Return the light of each variant, (band, y, x), from that of the arc."""
    size = light.shape[-1]
    y, x, sigma = _moments(light)
    axis = np.arange(size)
    shape = np.exp(-0.5 * ((axis[:, None] - y) ** 2 + (axis - x) ** 2) / max(sigma, 0.5) ** 2)
    about_centroid = [round(2 * place - (size - 1)) for place in (y, x)]
    return {
        **{name: factor * light for name, factor in SCALED.items()},
        HALF_TURN: light[:, ::-1, ::-1],
        DISPLACED: np.roll(light, size // 4, axis=2),
        TURNED: np.roll(light[:, ::-1, ::-1], about_centroid, axis=(1, 2)),
        BLOB: shape / shape.sum() * light.sum(axis=(1, 2))[:, None, None],
    }


def _moments(light: Light) -> tuple[float, float, float]:
    """Centroid y and x, and the standard deviation along an axis, pixels, of what is positive in all bands together."""
    total = np.maximum(light.sum(axis=0), 0)
    flux = max(float(total.sum()), np.finfo(float).tiny)
    y, x = (float((total * place).sum() / flux) for place in np.indices(total.shape))
    rows, columns = np.indices(total.shape)
    spread = float((total * ((rows - y) ** 2 + (columns - x) ** 2)).sum() / flux / 2)
    return y, x, float(np.sqrt(spread))
