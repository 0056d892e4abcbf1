"""What controls of a dataset are like, in numbers: noise, histogram of pixels, PSF.

Belongs here: a sample of published stamps to lines of the tables REALISM and REALISM_CURVES. What is injected is told in
`realism_arcs.py`, pages are in `realism.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, stats

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.cutout_measures import SKY_BEYOND_ARCSEC, far_from
from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.probe import unpaired_probe
from lens_pipeline.survey.psf_match import moffat_residuals
from lens_pipeline.survey.stamp_features import Mask, stamp_features
from lens_pipeline.survey.stamp_pairs import PairReader, Row, galaxy_of, parents_of

BOTH, ALL = "both", "all"
_MAD_TO_SIGMA = 1.4826
_SKY_SHARE = 0.8
_CLIP = 4.0
_HISTOGRAM_EDGES = (-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6, 10, 20, 50, 100, 1000)
_POWER_EDGES = tuple(np.round(np.linspace(0.03, 0.5, 13), 4))
_LEAST_TO_PROBE = 20
_MOST_KERNELS = 12


@dataclass(frozen=True)
class Sample:
    """Controls of a dataset, one a galaxy, and all injections into its galaxies that were read on the way.

    Attributes
    ----------
    name : str
        Of the dataset.
    pixels : (galaxy, band, y, x) float32 array
        Of the controls, nanomaggy.
    """

    name: str
    contract: DatasetContract
    pixels: NDArray[np.float32]
    controls: list[Row]
    injections: list[Row]

    @classmethod
    def of(cls, stamps: Publication, most: int) -> "Sample":
        """Read a sample of published stamps; a control that can't be decoded is passed over, as the store does."""
        reader = PairReader(stamps, most)
        pixels: list[NDArray[np.float32]] = []
        controls: dict[str, Row] = {}
        injections: dict[str, list[Row]] = {}
        for row, blob in reader.rows():
            galaxy = galaxy_of(row)
            if reader.is_injection(row) and (galaxy in injections or len(injections) < most):
                injections.setdefault(galaxy, []).append(row)
            elif reader.is_control(row) and len(controls) < most and galaxy not in controls:
                stamp = decode_blob(blob, reader.contract)
                if isinstance(stamp, Stamp):
                    controls[galaxy] = row
                    pixels.append(stamp.pixels)
            if min(len(injections), len(controls)) >= most:
                break
        shape = (len(pixels), *reader.contract.stamp_shape)
        stacked = np.array(pixels, np.float32).reshape(shape)
        return cls(stamps.dataset, reader.contract, stacked, [*controls.values()], [*chain(*injections.values())])

    @property
    def sky(self) -> Mask:
        """Pixels of a stamp that are far from its galaxy."""
        size = self.contract.stamp_size
        return far_from(0, 0, size, min(SKY_BEYOND_ARCSEC / self.contract.pixel_scale_arcsec, _SKY_SHARE * size / 2))


def line(
    metric: str,
    band: str,
    of: str,
    unit: str,
    found: tuple[float, float | None, float | None] | None,
    n: int,
    why: str = "",
    n_eff: float | None = None,
) -> Row:
    """Return a line of REALISM: value, low and high, or the reason why there is none; `n_eff` where rows have weights."""
    value, low, high = found or (None, None, None)
    return {
        "metric": metric, "band": band, "of": of, "value": value, "low": low, "high": high, "n": n,
        "n_eff": n_eff, "unit": unit, "status": "undefined" if value is None else "ok", "reason": why or None,
    }  # fmt: skip


def mean_line(metric: str, band: str, of: str, unit: str, values: Iterable[float]) -> Row:
    """Return the line of a mean over galaxies, with its 95 % t interval."""
    x = np.array(list(values), float)
    if not len(x):
        return line(metric, band, of, unit, None, 0, "no galaxy has it")
    return line(metric, band, of, unit, _mean(x), len(x), "one galaxy has no interval" if len(x) == 1 else "")


def noise_lines(sample: Sample) -> list[Row]:
    """Sigma, correlation with the next pixel and skewness of the outer part, and its share beyond 4 sigma; by band."""
    sky, lines = sample.sky, []
    both = sky[:, 1:] & sky[:, :-1]
    for i, band in enumerate(sample.contract.bands):
        scaled, sigma = _scaled(sample.pixels[:, i], sky)
        inside = np.clip(scaled, -_CLIP, _CLIP)
        variance = (inside[:, sky] ** 2).mean(axis=1)
        values = {
            "noise_sigma": (sample.contract.flux_unit, sigma),
            "noise_correlation": ("", (inside[:, :, 1:] * inside[:, :, :-1])[:, both].mean(axis=1) / variance),
            "noise_skewness": ("", (inside[:, sky] ** 3).mean(axis=1) / variance**1.5),
            "share_beyond_4_sigma": ("", (np.abs(scaled[:, sky]) > _CLIP).mean(axis=1)),
        }
        lines += [mean_line(name, band, sample.name, unit, x) for name, (unit, x) in values.items()]
    return lines


def curves(sample: Sample) -> list[Row]:
    """Lines of REALISM_CURVES: the histogram of all pixels, and the power spectrum of the outer part's noise."""
    sky = sample.sky
    frequency = np.hypot(fft.fftfreq(len(sky))[:, None], fft.rfftfreq(len(sky)))
    lines: list[Row] = []
    for i, band in enumerate(sample.contract.bands):
        scaled, _ = _scaled(sample.pixels[:, i], sky)
        shares = [((scaled >= low) & (scaled < high)).mean(axis=(1, 2)) for low, high in _bins(_HISTOGRAM_EDGES)]
        lines += _curve("pixel_histogram", band, sample.name, _HISTOGRAM_EDGES, shares)
        noise = np.where(sky, np.clip(scaled, -_CLIP, _CLIP), 0.0)
        power = np.abs(fft.rfft2(noise)) ** 2
        rings = [power[:, (frequency >= low) & (frequency < high)].mean(axis=1) for low, high in _bins(_POWER_EDGES)]
        whole = power[:, (frequency >= _POWER_EDGES[0]) & (frequency < _POWER_EDGES[-1])].mean(axis=1)
        lines += _curve("noise_power", band, sample.name, _POWER_EDGES, [ring / whole for ring in rings])
    return lines


def probe_lines(ours: Sample, theirs: Sample | None) -> list[Row]:
    """Ask a linear probe to tell our controls from theirs: by the outer part of a stamp, and by all of it."""
    named = ("probe_background", "probe_whole_stamp")
    if theirs is None:
        why = "realism_report.compare_with names no other dataset"
    elif ours.pixels.shape[1:] != theirs.pixels.shape[1:]:
        why = f"stamps differ in shape: {ours.pixels.shape[1:]} and {theirs.pixels.shape[1:]}"
    elif min(len(ours.pixels), len(theirs.pixels)) < _LEAST_TO_PROBE:
        why = f"{len(ours.pixels)} and {len(theirs.pixels)} galaxies; each needs {_LEAST_TO_PROBE}"
    else:
        masks = (ours.sky, np.ones_like(ours.sky))
        return [_probe_line(name, ours, theirs, mask) for name, mask in zip(named, masks, strict=True)]
    return [line(name, ALL, BOTH, "", None, 0, why) for name in named]


def psf_lines(sample: Sample, parent: Publication) -> list[Row]:
    """Kernels that were used against the catalogue's seeing: their width, and the star that they make."""
    size, scale = sample.contract.stamp_size, sample.contract.pixel_scale_arcsec
    names = [row.get("galaxy_id") for row in sample.controls]
    known = parents_of(parent, names, [f"psf_fwhm_{band}" for band in sample.contract.bands])
    lines: list[Row] = []
    for band in sample.contract.bands:
        widths = [
            (used, seeing)
            for row in sample.controls
            if (used := row.get(f"psf_fwhm_used_{band}")) is not None
            and (seeing := known.get(str(row.get("galaxy_id")), {}).get(f"psf_fwhm_{band}")) is not None
        ]
        if not widths:
            why = "the PSF of these stamps is unknown, or was assumed"
            lines += [line(name, band, sample.name, "", None, 0, why) for name in ("psf_width", *_STAR)]
            continue
        lines.append(mean_line("psf_width", band, sample.name, "", (used / seeing for used, seeing in widths)))
        stars = np.array([moffat_residuals(seeing, size, scale) for _, seeing in widths[:_MOST_KERNELS]])
        lines += [mean_line(name, band, sample.name, "", stars[:, i]) for i, name in enumerate(_STAR)]
    return lines


_STAR = ("psf_peak_residual", "psf_energy_residual")


def _probe_line(name: str, ours: Sample, theirs: Sample, mask: Mask) -> Row:
    # Each stamp on the scale of its own median and MAD: depth is another question.
    first, second = (
        np.concatenate([stamp_features(one[None], mask) for one in sample.pixels]) for sample in (ours, theirs)
    )
    probed, (low, high) = unpaired_probe(first, second, false_alarms=0.025)
    chance = f"at chance it would be 0.5 +- {probed.half_width:.2f}"
    return line(name, ALL, BOTH, "", (probed.auroc, min(low, probed.auroc), max(high, probed.auroc)), probed.n, chance)


def _scaled(pixels: NDArray[np.float32], sky: Mask) -> tuple[Image, Image]:
    """Stamps of a band in sigmas above the median of their outer part, and that sigma."""
    outer = pixels[:, sky].astype(float)
    level = np.median(outer, axis=1)
    sigma = _MAD_TO_SIGMA * np.median(np.abs(outer - level[:, None]), axis=1)
    unit = np.where(sigma > 0, sigma, 1.0)
    return (pixels - level[:, None, None]) / unit[:, None, None], sigma


def _curve(curve: str, band: str, of: str, edges: Sequence[float], values: list[Image]) -> list[Row]:
    lines = []
    for (low_x, high_x), x in zip(_bins(edges), values, strict=True):
        if not len(x):
            continue
        value, low, high = _mean(x)
        lines.append(
            {"curve": curve, "band": band, "of": of, "low_x": float(low_x), "high_x": float(high_x), "value": value,
             "low": low, "high": high, "n": len(x)}
        )  # fmt: skip
    return lines


def _bins(edges: Sequence[float]) -> list[tuple[float, float]]:
    return list(pairwise(edges))


def _mean(x: Image) -> tuple[float, float | None, float | None]:
    value = float(x.mean())
    if len(x) < 2:
        return value, None, None
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return value, value - half, value + half


def rows_without_number(lines: list[Row]) -> list[Any]:
    """Lines that have neither a number with n and an interval, nor a reason."""
    return [
        f"{row['metric']} in {row['band']} of {row['of']}"
        for row in lines
        if row["reason"] is None and (row["value"] is None or row["low"] is None or row["n"] == 0)
    ]
