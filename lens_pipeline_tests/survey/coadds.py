"""Bricks of coadds as tests write them: the survey's layout, names and places, in pixels of 10 arcsec so that they are small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

from lens_pipeline.survey.regions import brick_ids, brick_names

SCALE_ARCSEC, N = 10.0, 97
SIGMA = {"g": 0.003, "r": 0.005, "z": 0.012}
UNITS = {"image": "nanomaggy", "invvar": "1/nanomaggy^2"}

Light = Callable[[str, np.ndarray, np.ndarray], np.ndarray]


def brick_at(ra: float, dec: float) -> tuple[str, float, float]:
    """Name and centre of the brick that holds a place."""
    (name,) = brick_names(brick_ids(np.array([ra]), np.array([dec])))
    centre, width = _row(dec)
    return name, (np.floor(ra / width) + 0.5) * width, centre


def corner_of(ra: float, dec: float) -> tuple[float, float]:
    """North-eastern corner of the unique area of the brick that holds a place."""
    centre, width = _row(dec)
    return float((np.floor(ra / width) + 1) * width), centre + 0.125


def _row(dec: float) -> tuple[float, float]:
    """Centre of a row of bricks, and the width of its bricks in right ascension."""
    centre = -90 + round((dec + 90) / 0.25) * 0.25
    return centre, 360 / (np.ceil(1440 * np.cos(np.radians(abs(centre) - 0.125)) / 2) * 2)


def grid_of(ra: float, dec: float, scale: float = SCALE_ARCSEC, turn: np.ndarray | None = None) -> WCS:
    """The tangent plane about a brick's centre, as the survey projects its coadds; `turn` is from pixels to (west, north)."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], (ra, dec)
    wcs.wcs.crpix = (N / 2 + 0.5, N / 2 + 0.5)
    wcs.wcs.cdelt = (-scale / 3600, scale / 3600)
    if turn is not None:
        wcs.wcs.pc = turn
    return wcs


def noise_of(brick: str, band: str) -> np.ndarray:
    seed = [*brick.encode(), *band.encode()]
    return np.random.default_rng(seed).normal(0, SIGMA[band], (N, N))


def galaxy_light(distance_arcsec: np.ndarray, flux: float = 20.0, scale: float = 0.262) -> np.ndarray:
    """A round exponential galaxy of 0.5 arcsec scale length, nanomaggy a pixel, at so many arcsec from its middle."""
    return np.asarray(flux / (2 * np.pi * 0.5**2) * np.exp(-distance_arcsec / 0.5) * scale**2)


def galaxies_at(*places: tuple[float, float], flux: float | dict[str, float] = 20.0) -> Light:
    """The light of galaxies at places (ra, dec) in pixels of 0.262 arcsec with a brick's noise; of one flux, or one a band."""
    name, _, _ = brick_at(*places[0])

    def light(band: str, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        seen, bright = noise_of(name, band), flux[band] if isinstance(flux, dict) else flux
        for east, north in places:
            x = ((ra - east + 180) % 360 - 180) * np.cos(np.radians(north))
            seen = seen + galaxy_light(3600 * np.hypot(x, dec - north), bright)
        return seen

    return light


def long_galaxy_at(ra: float, dec: float, phi: float) -> Light:
    """A galaxy of axis ratio 0.4 whose long axis has the angle `phi` from west to north, in pixels of 0.262 arcsec with noise."""
    name, _, _ = brick_at(ra, dec)

    def light(band: str, east: np.ndarray, north: np.ndarray) -> np.ndarray:
        x = -3600 * ((east - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
        y = 3600 * (north - dec)
        along, across = np.cos(phi) * x + np.sin(phi) * y, np.cos(phi) * y - np.sin(phi) * x
        return noise_of(name, band)[: x.shape[0], : x.shape[1]] + galaxy_light(np.hypot(0.7 * along, across / 0.7))

    return light


def write_brick(
    root: Path,
    ra: float,
    dec: float,
    light: Light | None = None,
    change: Callable[[str, str, Any], None] | None = None,
    *,
    bands: str = "grz",
    seeing: float | None = 1.3,
    suffix: str = ".fz",
    scale: float = SCALE_ARCSEC,
    turn: np.ndarray | None = None,
) -> str:
    """Write the brick that holds a place; returns its name.

    Parameters
    ----------
    light : callable
        Surface brightness of (band, ra, dec), nanomaggy a pixel; noise is added to it. None for noise alone.
    change : callable
        Takes kind, band and HDU before it is written.
    scale : float
        arcsec a pixel; the image is about the brick's centre and may be smaller than the brick.
    """
    name, ra0, dec0 = brick_at(ra, dec)
    wcs = grid_of(ra0, dec0, scale, turn)
    y, x = np.mgrid[:N, :N]
    places = wcs.pixel_to_world_values(x, y)
    folder = root / "coadd" / name[:3] / name
    folder.mkdir(parents=True, exist_ok=True)

    def write(kind: str, band: str, data: np.ndarray) -> None:
        header = wcs.to_header()
        if kind in UNITS:
            header["BUNIT"] = UNITS[kind]
        exact = {"compression_type": "GZIP_2", "quantize_level": 0} if data.dtype.kind == "f" else {}
        hdu = fits.CompImageHDU(data, header, **exact) if suffix == ".fz" else fits.ImageHDU(data, header)
        if change is not None:
            change(kind, band, hdu)
        stem = f"legacysurvey-{name}-{kind}" + (f"-{band}" if band else "")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / f"{stem}.fits{suffix}", overwrite=True)

    for band in bands:
        seen = noise_of(name, band) if light is None else light(band, *places)
        write("image", band, np.asarray(seen, dtype=np.float32))
        write("invvar", band, np.full((N, N), SIGMA[band] ** -2, dtype=np.float32))
        if seeing is not None:
            write("psfsize", band, np.full((N, N), seeing, dtype=np.float32))
    write("maskbits", "", np.zeros((N, N), dtype=np.int32))
    return name
