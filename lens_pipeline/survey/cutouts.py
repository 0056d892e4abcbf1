"""What of real galaxies is published beside the parent sample: their pixels, which of these are bad, and PSFs where known."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CUTOUTS_FILE, BAD_FILE, PSFS_FILE = "cutouts.npy", "bad_pixels.npy", "psfs.npy"
# PSFEx models of the Legacy Surveys are as large.
PSF_PIXELS = 63

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def write_cutouts(folder: Path, pixels: Floats) -> None:
    """Write (galaxy, band, y, x) float32 pixels in nanomaggy."""
    with open(folder / CUTOUTS_FILE, "wb") as file:
        np.save(file, pixels, allow_pickle=False)


def create_cutouts(folder: Path, shape: tuple[int, ...]) -> "np.memmap[tuple[int, ...], np.dtype[np.float32]]":
    """Create the file of (galaxy, band, y, x) pixels, all 0, to be filled galaxy by galaxy."""
    return np.lib.format.open_memmap(folder / CUTOUTS_FILE, mode="w+", dtype=np.float32, shape=shape)


def create_bad(folder: Path, shape: tuple[int, ...]) -> "np.memmap[tuple[int, ...], np.dtype[np.bool_]]":
    """Create the file of (galaxy, band, y, x) flags of bad pixels, all False, to be filled galaxy by galaxy."""
    return np.lib.format.open_memmap(folder / BAD_FILE, mode="w+", dtype=np.bool_, shape=shape)


def create_psfs(folder: Path, n: int, bands: int) -> "np.memmap[tuple[int, ...], np.dtype[np.float32]]":
    """Create the file of (galaxy, band, y, x) PSFs on image pixels, all 0, which stands for unknown."""
    shape = (n, bands, PSF_PIXELS, PSF_PIXELS)
    return np.lib.format.open_memmap(folder / PSFS_FILE, mode="w+", dtype=np.float32, shape=shape)


def open_cutouts(path: Path) -> Floats:
    """Open published cutouts or PSFs without reading them all; (galaxy, band, y, x) float32."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))


def open_bad(path: Path) -> Mask:
    """Open published flags of bad pixels without reading them all; (galaxy, band, y, x) bool."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))
