"""A host galaxy's scene, and every stamp made of it: the control and the injections go through the same lines.

Belongs here: putting light, PSF and noise together for one galaxy, and measuring the arc. Files are in `stamps.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from lens_pipeline.survey.conditions import BANDS, flux_of_mag, sky_per_pixel, transmission
from lens_pipeline.survey.lensing import Lens, effective_einstein_radius
from lens_pipeline.survey.light import Grid, Sersic, galaxy_light, lensed_light, light_beyond
from lens_pipeline.survey.neighbours import neighbours_light
from lens_pipeline.survey.optics import (
    OVERSAMPLING,
    Image,
    Kernel,
    crop,
    moffat_kernel,
    observe,
    smooth,
    smooth_variance,
    smoothing_loss,
    smoothing_transfer,
    transform,
    white_sigma_of_depth,
)
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import NO_PICTURES, Pictures, source_of

_R = BANDS.index("r")
# Noise is smoothed by a 3x3 kernel: it is made one pixel wider than the stamp.
_MARGIN = 1
_AROUND = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))

MEASURES = ("theta_e_eff_arcsec", "arc_snr", "arc_snr_matched", "magnification", "total_injected_flux_r")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scene:
    """A host and what stands around it, before noise.

    Attributes
    ----------
    base : (3, n + 2, n + 2) array
        Noiseless pixels of a simulated host, or the observed pixels of a real one, nanomaggy, one pixel of margin.
    drawn_variance : (3, n + 2, n + 2) array
        Variance of the white noise to draw beside the arc's own; 0 where `base` was observed with its noise in it.
    white_variance : (3, n + 2, n + 2) array
        Variance of the white noise that is in the stamp when all is done, sky and host, without the arc.
    per_flux : (3,) array
        Variance of the white noise per nanomaggy in a pixel (Poisson noise), from sigma^2 = sky / gain.
    hidden : (3, n + 2, n + 2) bool array or None
        Pixels that saw no light, as of a dead column: nothing is added to them, or they would tell an injection from its control.
    """

    grid: Grid
    kernels: tuple[Kernel, ...]
    correlation: float
    x_arcsec: float
    y_arcsec: float
    ebv: float | None
    base: Image
    drawn_variance: Image
    white_variance: Image
    per_flux: Image
    hidden: NDArray[np.bool_] | None = None

    def seen(self, light: Image) -> Image:
        """Return light, (3, n + 2, n + 2), as the scene's pixels see it: 0 where these are hidden."""
        return light if self.hidden is None else np.where(self.hidden, 0.0, light)


@dataclass(frozen=True)
class Arc:
    """A lensed source on the stamp.

    Attributes
    ----------
    pixels : (3, n + 2, n + 2) array
        Noiseless and PSF-convolved, nanomaggy, one pixel of margin; 0 where the scene's pixels are hidden.
    measures : dict
        The columns of `MEASURES`; all None on a control. With the noiseless arc m in r, in the stamp's pixels that saw light:

        - ``arc_snr`` = max_i m_i / sigma_i, sigma_i the total noise of pixel i, as the survey's own column has it (`peak_snr`);
        - ``arc_snr_matched`` = sqrt(m^T C^-1 m), the S/N of an optimal linear filter in noise of covariance C (e.g. Horne
          1986 for independent pixels; `matched_snr`);
        - ``magnification`` = lensed over unlensed flux of the whole source, before the PSF and wherever it falls: the mean of
          the point magnification over the source's light (Schneider, Ehlers & Falco 1992);
        - ``total_injected_flux_r`` = sum_i m_i, nanomaggy, after Galactic extinction: what falls beyond the stamp or on
          bad pixels is missing;
        - ``theta_e_eff_arcsec`` = sqrt(A / pi), A the area inside the outer critical curve (`effective_einstein_radius`).
    """

    pixels: Image
    measures: dict[str, float | None]


def simulated_scene(galaxy: Row, *, stamp_size: int, seed: int, neighbours_per_stamp: float) -> Scene:
    """Make the scene of a simulated galaxy.

    Parameters
    ----------
    galaxy : mapping
        A row of the parent sample.
    seed : int
        With the galaxy's name it fixes the neighbours.
    """
    grid = Grid.of(stamp_size, galaxy["pixel_scale_arcsec"])
    kernels = tuple(moffat_kernel(galaxy[f"psf_fwhm_{b}"], stamp_size, grid.pixel_scale_arcsec) for b in BANDS)
    rho = galaxy["noise_correlation"]
    sigmas = [white_sigma_of_depth(galaxy[f"psfdepth_{b}"], k, rho) for b, k in zip(BANDS, kernels, strict=True)]
    light = neighbours_light(grid, stream(seed, "neighbours", galaxy["galaxy_id"]), neighbours_per_stamp)
    q = galaxy["axis_ratio"]
    host = Sersic(
        flux=1.0,
        reff_arcsec=galaxy["reff_arcsec"],
        n=galaxy["sersic_n"],
        ellipticity=(1 - q) / (1 + q),
        phi_rad=galaxy["phi_rad"],
        x_arcsec=galaxy["host_x_arcsec"],
        y_arcsec=galaxy["host_y_arcsec"],
    )
    unit, _ = galaxy_light(grid, host)
    base = np.stack(
        [
            crop(observe(transform(light[i] + flux_of_mag(galaxy[f"mag_{b}"]) * unit), kernels[i]), stamp_size, _MARGIN)
            for i, b in enumerate(BANDS)
        ]
    )
    return _scene(galaxy, grid, kernels, rho, np.array(sigmas), base, observed=False)


def observed_scene(
    galaxy: Row,
    pixels: NDArray[np.float32],
    psfs: NDArray[np.float32] | None = None,
    bad: NDArray[np.bool_] | None = None,
) -> Scene:
    """Make the scene of a real cutout: the pixels as they are, PSF, gain and noise as known, else as assumed.

    Parameters
    ----------
    pixels : (3, n, n) array
        nanomaggy.
    psfs : (3, m, m) array or None
        Images of the PSF by band, on the cutout's pixels; 0 where there is none.
    bad : (3, n, n) bool array or None
        Pixels that keep what they have, whatever is injected.
    """
    stamp_size = pixels.shape[-1]
    grid = Grid.of(stamp_size, galaxy["pixel_scale_arcsec"])
    kernels = tuple(
        _observed_kernel(galaxy, band, grid, None if psfs is None else psfs[i]) for i, band in enumerate(BANDS)
    )
    rho = galaxy["noise_correlation"]
    sigmas = np.array([galaxy[f"pixel_sigma_{b}"] for b in BANDS]) / smoothing_loss(rho)
    base = np.pad(pixels.astype(float), _AROUND, mode="edge")
    scene = _scene(galaxy, grid, kernels, rho, sigmas, base, observed=True)
    return scene if bad is None or not bad.any() else replace(scene, hidden=np.pad(bad, _AROUND))


def _observed_kernel(galaxy: Row, band: str, grid: Grid, psf: NDArray[np.float32] | None) -> Kernel:
    """Make a band's kernel: of the PSF's image, of a Moffat of the survey's seeing, or of an assumed one.

    Where the band's pixels stand off those of r, light is moved as much.
    """
    size, scale = grid.stamp_size, grid.pixel_scale_arcsec
    seeing = galaxy.get(f"psf_fwhm_{band}")
    off = tuple((galaxy.get(f"band_{axis}_{band}_arcsec") or 0.0) / scale for axis in "xy")
    measured = psf is not None and psf.any()
    if not measured:
        kernel = moffat_kernel(galaxy[f"psf_fwhm_assumed_{band}"] if seeing is None else seeing, size, scale)
        if off == (0.0, 0.0):
            return kernel
    # Imported when it is used: FITS files take half a second to load, and every rendering process loads this module.
    from lens_pipeline.survey.measured_psf import image_kernel, shifted
    from lens_pipeline.survey.psf_image import PsfImage

    if measured:
        kernel = image_kernel(PsfImage.of(psf, where=f"of {galaxy['galaxy_id']} in {band}"), size, scale)
    return shifted(kernel, *off)


def _scene(
    galaxy: Row, grid: Grid, kernels: tuple[Kernel, ...], rho: float, sigmas: Image, base: Image, *, observed: bool
) -> Scene:
    # The sky's Poisson noise sets sigma, so that sigma^2 = sky / gain gives the gain, and each nanomaggy of light adds
    # sigma^2 / sky of variance: nothing about the noise is chosen apart from depth and seeing.
    # Where the gain is known, a nanomaggy's electrons give it: 1 / electrons before the smoothing, which keeps a sum's variance.
    skies = np.array([sky_per_pixel(b, grid.pixel_scale_arcsec) for b in BANDS])
    electrons = [galaxy.get(f"electrons_per_nanomaggy_{b}") for b in BANDS]
    per_flux = np.array(
        [v / sky if e is None else 1 / e for v, sky, e in zip(sigmas**2, skies, electrons, strict=True)]
    )
    white = (sigmas**2)[:, None, None] + per_flux[:, None, None] * np.maximum(base, 0)
    return Scene(
        grid=grid,
        kernels=kernels,
        correlation=rho,
        x_arcsec=galaxy["host_x_arcsec"],
        y_arcsec=galaxy["host_y_arcsec"],
        ebv=galaxy["ebv"],
        base=base,
        drawn_variance=np.zeros_like(white) if observed else white,
        white_variance=white,
        per_flux=per_flux,
    )


def make_arc(scene: Scene, row: Row, pictures: Pictures = NO_PICTURES) -> Arc:
    """Render and measure the arc of one manifest row; a control has none.

    Parameters
    ----------
    row : mapping
        A row of the injection manifest.
    pictures : mapping
        The real galaxies that the manifest lenses.
    """
    stamp_size = scene.grid.stamp_size
    if row["src_mag_r"] is None:
        empty = np.zeros_like(scene.base)
        return Arc(empty, dict.fromkeys(MEASURES))
    source = source_of(row, pictures)
    place = (scene.x_arcsec, scene.y_arcsec)
    cells = lensed_light(scene.grid, source, row, *place)
    spectrum = transform(cells)
    fluxes = [flux_of_mag(row[f"src_mag_{b}"]) * transmission(b, scene.ebv) for b in BANDS]
    padded = [flux * observe(spectrum, kernel) for kernel, flux in zip(scene.kernels, fluxes, strict=True)]
    # A convolution by FFT leaves rounding of either sign where there is no light; light is never negative.
    pixels = scene.seen(np.maximum(np.stack([crop(image, stamp_size, _MARGIN) for image in padded]), 0))
    measures: dict[str, float | None] = {
        "theta_e_eff_arcsec": effective_einstein_radius(Lens.of(row)),
        "arc_snr": peak_snr(scene, pixels[_R]),
        "arc_snr_matched": matched_snr(scene, padded[_R]),
        "magnification": float(cells.sum() / OVERSAMPLING**2) + light_beyond(scene.grid, source, row, *place),
        "total_injected_flux_r": float(crop(pixels[_R], stamp_size).sum()),
    }
    return Arc(pixels, measures)


def peak_snr(scene: Scene, arc_r: Image) -> float:
    """Peak over pixels of the noiseless r arc over the pixel's total sigma: max m / sqrt(sky + host + arc variance).

    The survey's own definition (its column `arc_snr`); with correlated noise sigma is the pixel's marginal one.
    """
    variance = smooth_variance(scene.white_variance[_R] + scene.per_flux[_R] * arc_r, scene.correlation)
    return float((crop(arc_r, scene.grid.stamp_size) / np.sqrt(variance)).max())


def matched_snr(scene: Scene, arc_r: Image) -> float:
    """Matched-filter S/N of the noiseless r arc, sqrt(m^T C^-1 m), with the noise of sky and host.

    The noise is H w with w white of variance D and H the smoothing, so C = H D H^T and m^T C^-1 m is the sum of
    (H^-1 m)^2 / D: the arc is unsmoothed on the padded image and summed over the stamp. Exact but for correlations with
    pixels beyond the stamp's border. Hidden pixels count with an inverse variance D^-1 of 0.

    Parameters
    ----------
    arc_r : (m, m) array
        On the padded pixel grid.
    """
    n = arc_r.shape[0]
    sharp = fft.irfft2(fft.rfft2(arc_r) / smoothing_transfer(n, scene.correlation), s=(n, n))
    stamp_size = scene.grid.stamp_size
    weight = scene.seen(1 / scene.white_variance)[_R]
    return float(np.sqrt((crop(sharp, stamp_size) ** 2 * crop(weight, stamp_size)).sum()))


def make_stamp(scene: Scene, arc: Arc, rng: np.random.Generator) -> NDArray[np.float32]:
    """Add noise to scene and arc, and cut the stamp.

    The noise is Poisson noise in its Gaussian limit: a pixel holds thousands of sky electrons, so that their skewness is
    about one percent. The arc's share of it is added to real cutouts too, whose own noise is in their pixels already.
    Hidden pixels stay as they are.

    Returns
    -------
    (3, n, n) float32 array
        nanomaggy.
    """
    variance = scene.drawn_variance + scene.per_flux[:, None, None] * arc.pixels
    noise = smooth(rng.standard_normal(variance.shape) * np.sqrt(variance), scene.correlation)
    if scene.hidden is not None:
        noise[scene.hidden[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]] = 0
    return (crop(scene.base + arc.pixels, scene.grid.stamp_size) + noise).astype(np.float32)
