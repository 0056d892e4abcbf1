"""A classical lens finder to hold the network against: a matched filter for blue arcs, blind to light that looks like a host.

Belongs here: one number a stamp, from its pixels and its seeing alone. Nothing is learned, and nothing of an injection is read.

With B the bluest and R the reddest band of a stamp, the host's colour is taken out as RingFinder does it (Gavazzi et al. 2014,
ApJ 785, 144): D = B - a R, a = sum B R / sum R^2 over the core. The score is the signal-to-noise of the arc that fits D best,

    snr = max over k of (t_k . D) / sigma,    t_k = (1 - P) T_k / |(1 - P) T_k|

T_k being an arc of 120 degrees, as thin as the seeing leaves it, at one of 8 radii and in one of 12 directions; P the projection
onto what a host may leave in D, light of any shape f(r) + g(r) cos 2 phi + h(r) sin 2 phi about the centre (a matched subspace
detector: Scharf & Friedlander 1994, IEEE Trans. Signal Process. 42, 2146); and sigma the stamp's own noise, 1.4826 MAD of D far
from the centre. A complete ring is such light too, and isn't seen. Neighbouring pixels are taken as independent; where they
correlate the number is larger than a signal-to-noise, whether there is an arc or none.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.store import Rows, StampStore

Floats = npt.NDArray[np.float32]
Exact = npt.NDArray[np.float64]

# Radii of arcs that ground-based surveys separate from their hosts, to the largest of galaxies.
RADII_ARCSEC = np.geomspace(0.5, 2.5, 8)
N_DIRECTIONS, HALF_OPENING_DEG = 12, 60
_STEP_DEG = 5
_CORE_ARCSEC = 1.0
# From the centre to the sides of the box that templates are cut to.
_REACH_ARCSEC = 5.0
_FAR = 7 / 8
_FWHM_STEP_ARCSEC = 0.1
_FWHM_TO_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))
_MAD_TO_SIGMA = 1.4826
# Batches are cut alike whatever the number of threads, so that no score depends on it.
_BATCH = 256


class MatchedFilter:
    """The filter for stamps of one contract; threads may share one once it has its templates (`prepare`).

    Parameters
    ----------
    contract : DatasetContract
        Bands from blue to red, the first and the last of which are used; with one band no colour is taken out.
    """

    def __init__(self, contract: DatasetContract) -> None:
        size, self._scale = contract.stamp_size, contract.pixel_scale_arcsec
        self._last_band = len(contract.bands) - 1
        offsets = (np.arange(size) - (size - 1) / 2) * self._scale
        y, x = np.meshgrid(offsets, offsets, indexing="ij")
        radius, half = np.hypot(x, y).ravel(), size / 2 * self._scale
        fitting = RADII_ARCSEC[half > RADII_ARCSEC]
        self._radii = fitting if fitting.size else np.array([half / 2])
        self._core = np.flatnonzero(radius < max(_CORE_ARCSEC, self._scale))
        self._far = np.flatnonzero(radius > _FAR * half)
        self._box = np.flatnonzero((np.abs(x) < _REACH_ARCSEC).ravel() & (np.abs(y) < _REACH_ARCSEC).ravel())
        self._x, self._y = x.ravel()[self._box], y.ravel()[self._box]
        self._templates: dict[int, Floats] = {}

    def prepare(self, fwhm_arcsec: npt.ArrayLike) -> None:
        """Make the templates for some seeings, in steps of 0.1 arcsec up to the reach of the box."""
        for step in np.unique(self._steps(fwhm_arcsec)).tolist():
            if step not in self._templates:
                self._templates[step] = self._arcs(step * _FWHM_STEP_ARCSEC)

    def snr(self, rows: Rows, fwhm_arcsec: npt.ArrayLike) -> Floats:
        """Signal-to-noise of the best arc in each stamp.

        Parameters
        ----------
        rows : Rows
            Pixels (n, band, y, x) in any one unit.
        fwhm_arcsec : (n,) array
            Seeing of the bluest band; `prepare` has seen it.

        Returns
        -------
        (n,) float32 array
        """
        n = len(rows)
        flux = rows.pixels[:, [0, self._last_band]].astype(np.float32).reshape(n, 2, -1)
        flux -= rows.median[:, [0, self._last_band], None]
        blue, red = flux[:, 0], flux[:, 1]
        colour = np.zeros(n, np.float32)
        if self._last_band:
            core = red[:, self._core]
            np.divide((blue[:, self._core] * core).sum(1), (core**2).sum(1), out=colour, where=(core != 0).any(1))
        difference = blue - colour[:, None] * red
        arcs = difference[:, self._box]
        found = np.empty(n, np.float32)
        steps = self._steps(fwhm_arcsec)
        for step in np.unique(steps).tolist():
            mine = np.flatnonzero(steps == step)
            found[mine] = (arcs[mine] @ self._templates[step]).max(1)
        return found / self._noise(difference, np.hypot(rows.mad[:, 0], colour * rows.mad[:, self._last_band]))

    def _noise(self, difference: Floats, whole: Floats) -> Floats:
        """Sigma of a pixel, never 0: the store holds no band whose MAD is, so `whole`, that of all pixels, isn't either."""
        found = _mad(difference[:, self._far])
        padded = np.flatnonzero(found == 0)
        found[padded] = _mad(difference[np.ix_(padded, self._box)])
        noise: Floats = (_MAD_TO_SIGMA * np.where(found > 0, found, whole)).astype(np.float32)
        return noise

    def _steps(self, fwhm_arcsec: npt.ArrayLike) -> npt.NDArray[np.int64]:
        least = max(self._scale, _FWHM_STEP_ARCSEC)
        clipped = np.clip(np.asarray(fwhm_arcsec, np.float64), least, max(least, _REACH_ARCSEC))
        return np.rint(clipped / _FWHM_STEP_ARCSEC).astype(np.int64)

    def _arcs(self, fwhm_arcsec: float) -> Floats:
        """Templates (pixel of the box, arc): points along each arc seen through a Gaussian PSF, less what a host looks like."""
        variance = (fwhm_arcsec * _FWHM_TO_SIGMA) ** 2
        angles = np.deg2rad(np.arange(0, 360, _STEP_DEG))
        directions = np.linspace(0, 2 * np.pi, N_DIRECTIONS, endpoint=False)
        apart = np.abs((angles - directions[:, None] + np.pi) % (2 * np.pi) - np.pi)
        along = (apart <= np.deg2rad(HALF_OPENING_DEG) + 1e-9).astype(np.float64)
        arcs = []
        for radius in self._radii:
            dx = self._x[:, None] - radius * np.cos(angles)
            dy = self._y[:, None] - radius * np.sin(angles)
            arcs.append(np.exp(-(dx**2 + dy**2) / (2 * variance)) @ along.T)
        seen = np.concatenate(arcs, axis=1)
        seen -= self._host @ (self._host.T @ seen)
        templates: Floats = (seen / np.linalg.norm(seen, axis=0)).astype(np.float32)
        return templates

    @cached_property
    def _host(self) -> Exact:
        """Orthonormal light (pixel of the box, shape) of round and elliptical hosts, piecewise linear in r, by pixels."""
        radius, angle = np.hypot(self._x, self._y) / self._scale, np.arctan2(self._y, self._x)
        rings = np.clip(1 - np.abs(radius[:, None] - np.arange(int(radius.max()) + 2)), 0, None)
        turned = [rings, rings * np.cos(2 * angle)[:, None], rings * np.sin(2 * angle)[:, None]]
        shapes, sizes, _ = np.linalg.svd(np.concatenate(turned, axis=1), full_matrices=False)
        independent: Exact = shapes[:, sizes > 1e-6 * sizes[0]]
        return independent


def filter_rows(store: StampStore, logical: npt.NDArray[np.int64], fwhm_arcsec: Exact, threads: int) -> Floats:
    """Signal-to-noise of the best arc of some rows, read in the order given; neither threads nor batches move a bit of it.

    Parameters
    ----------
    logical : (n,) int64 array
        In rising order the store is read from its beginning to its end.
    fwhm_arcsec : (n,) array
        Seeing of the bluest band.

    Returns
    -------
    (n,) float32 array
    """
    found = np.empty(len(logical), np.float32)
    matched = MatchedFilter(store.contract)

    def work(start: int) -> None:
        part = slice(start, start + _BATCH)
        found[part] = matched.snr(store.take(logical[part]), fwhm_arcsec[part])

    with threadpool_limits(1):
        matched.prepare(fwhm_arcsec)
        with ThreadPoolExecutor(threads, thread_name_prefix="filter") as pool:
            for future in [pool.submit(work, start) for start in range(0, len(logical), _BATCH)]:
                future.result()
    return found


def _mad(values: Floats) -> Floats:
    """Median absolute deviation of each row of (n, pixel)."""
    found: Floats = np.median(np.abs(values - np.median(values, axis=1, keepdims=True)), axis=1)
    return found
