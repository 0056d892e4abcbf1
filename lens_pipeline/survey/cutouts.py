"""The pixels of real galaxies as they are published beside the parent sample: one array, read a galaxy at a time."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CUTOUTS_FILE = "cutouts.npy"


def write_cutouts(folder: Path, pixels: NDArray[np.float32]) -> None:
    """Write (galaxy, band, y, x) float32 pixels in nanomaggy."""
    with open(folder / CUTOUTS_FILE, "wb") as file:
        np.save(file, pixels, allow_pickle=False)


def open_cutouts(path: Path) -> NDArray[np.float32]:
    """Open published cutouts without reading them all; (galaxy, band, y, x) float32."""
    return np.asarray(np.lib.format.open_memmap(path, mode="r"))
