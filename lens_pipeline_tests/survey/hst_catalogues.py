"""RealGalaxy catalogues that tests write: galaxies of known light, seen through noise."""

from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from scipy import ndimage

from lens_pipeline.survey.light import Sersic
from lens_pipeline_tests.survey.closed_forms import elliptical_sersic

SIGMA, SCALE = 0.0027, 0.03
# AB, for a flux of 30 at the zero point of COSMOS.
MAG = 25.94 - 2.5 * np.log10(30)
SERSIC = Sersic(flux=30.0, reff_arcsec=0.35, n=1.0, ellipticity=0.2, phi_rad=0.5, x_arcsec=0.0, y_arcsec=0.0)


def galaxy(height: int = 121, width: int = 122, x: float = 0.0, y: float = 0.0, sersic: Sersic = SERSIC) -> np.ndarray:
    """A noiseless galaxy; the place is off the middle of the image, pixels."""
    axes = (SCALE * (np.arange(n) - (n - 1) / 2 - off) for n, off in ((width, x), (height, y)))
    return elliptical_sersic(sersic, *np.meshgrid(*axes)) * SCALE**2


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Noise of drizzled images: neighbouring pixels correlate."""
    white = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.6)
    return np.asarray(SIGMA * white / white.std())


def write(folder: Path, images: list[np.ndarray], **changed: Any) -> Path:
    """A RealGalaxy catalogue with its images and redshifts, in GalSim's format."""
    n = len(images)
    columns: dict[str, Any] = {
        "IDENT": np.arange(n) + 100,
        "MAG": [MAG] * n,
        "BAND": ["F814W"] * n,
        "GAL_FILENAME": ["images_n1.fits"] * n,
        "GAL_HDU": np.arange(n),
        "PIXEL_SCALE": [SCALE] * n,
        "NOISE_VARIANCE": [SIGMA**2] * n,
    }
    columns |= changed
    path = folder / "catalog.fits"
    Table({name: values for name, values in columns.items() if values is not None}).write(path, overwrite=True)
    Table({"IDENT": np.arange(n) + 100, "zphot": [0.7] * (n - 1) + [-1.0]}).write(
        folder / "catalog_fits.fits", overwrite=True
    )
    hdus = [fits.PrimaryHDU(images[0].astype(np.float32))]
    hdus += [fits.ImageHDU(image.astype(np.float32)) for image in images[1:]]
    fits.HDUList(hdus).writeto(folder / "images_n1.fits", overwrite=True)
    return path
