"""Whether an arc could be found at all, by the criteria of Collett (2015): what is expected of a finder, not what one does."""

import polars as pl

MIN_MAGNIFICATION, MIN_SNR = 3.0, 20.0
DETECTABILITY_COLUMNS = (
    *("theta_e_arcsec", "src_x_arcsec", "src_y_arcsec", "src_reff_arcsec"),
    *("psf_fwhm_used_r", "magnification", "arc_snr_matched"),
)


def is_detectable() -> pl.Expr:
    """Whether an injection meets every criterion of Collett (2015, ApJ 811, 20, section 4); null where one can't be told.

    With the Einstein radius theta_E, the source's place (x, y) and half-light radius r, the seeing s (FWHM) and the total
    magnification mu:

    - the source's centre is imaged more than once: x^2 + y^2 < theta_E^2;
    - image and counter-image are resolved: theta_E^2 > r^2 + (s / 2)^2;
    - the stretching can be seen: mu r > s and mu > 3;
    - the arc's signal-to-noise is more than 20.

    He takes the S/N within the best aperture of the best band; here it is `arc_snr_matched`, the matched filter's in r, which
    is the larger of the two in a band. Seeing is that of r, `psf_fwhm_used_r`.

    Returns
    -------
    polars.Expr
        Boolean, of the columns `DETECTABILITY_COLUMNS`. One criterion that fails decides, whatever else is null.
    """
    theta_e, size, seeing = pl.col("theta_e_arcsec"), pl.col("src_reff_arcsec"), pl.col("psf_fwhm_used_r")
    magnification = pl.col("magnification")
    return pl.all_horizontal(
        pl.col("src_x_arcsec") ** 2 + pl.col("src_y_arcsec") ** 2 < theta_e**2,
        theta_e**2 > size**2 + (seeing / 2) ** 2,
        magnification * size > seeing,
        magnification > MIN_MAGNIFICATION,
        pl.col("arc_snr_matched") > MIN_SNR,
    )
