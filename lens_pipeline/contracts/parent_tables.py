"""Tables of galaxies that may host an arc, and of those left out. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

# 2 pi, rounded up so that it holds in single precision too. Angles beyond are degrees.
_TURN_RAD = 6.2832

_OF_PIXELS = (
    Column("host_x_arcsec", _FLOAT, "where the galaxy stands along x from the stamp's middle", "arcsec", True),
    Column("host_y_arcsec", _FLOAT, "where the galaxy stands along y from the stamp's middle", "arcsec", True),
    Column("pixel_scale_arcsec", _FLOAT, "side of a pixel", "arcsec", True),
    Column("noise_correlation", _FLOAT, "correlation of the noise of neighbouring pixels", "", True),
    Column("cutout_row", _INT, "place of the galaxy in cutouts.npy, bad_pixels.npy and psfs.npy", "", True),
    Column("bad_pixel_frac", _FLOAT, "share of its cutout's pixels that are bad in any band", "", True),
    Column(
        "psf_is_assumed", _BOOL, "whether a band has neither PSF image nor seeing, so that one is assumed", "", True
    ),
    *(
        column
        for band in ("g", "r", "z")
        for column in (
            Column(f"pixel_sigma_{band}", _FLOAT, f"noise of a pixel of the sky in {band} (MAD)", "nanomaggy", True),
            Column(
                f"mag_aperture_{band}", _FLOAT, f"AB magnitude of its pixels in {band} within 2.5 arcsec", "mag", True
            ),
            Column(f"psf_is_measured_{band}", _BOOL, f"whether its PSF in {band} is an image", "", True),
            Column(
                f"psf_fwhm_assumed_{band}",
                _FLOAT,
                f"FWHM that stands in {band} for one that isn't known",
                "arcsec",
                True,
            ),
            Column(
                f"band_x_{band}_arcsec", _FLOAT, f"host_x_arcsec in {band}'s own pixels less that in r", "arcsec", True
            ),
            Column(
                f"band_y_{band}_arcsec", _FLOAT, f"host_y_arcsec in {band}'s own pixels less that in r", "arcsec", True
            ),
            Column(
                f"electrons_per_nanomaggy_{band}",
                _FLOAT,
                f"from gain and zero point in {band}; null where the data don't give it",
                "nanomaggy^-1",
                True,
            ),
        )
    ),
)

PARENT_SAMPLE = TableContract(
    name="parent_sample",
    meaning="Galaxies that may host an arc, one row a galaxy.",
    key=("galaxy_id",),
    open_ended=True,
    columns=(
        Column("galaxy_id", _TEXT, "name of the host galaxy"),
        Column("region_id", _TEXT, "unit of splitting: brick or HEALPix cell"),
        Column(
            "ra",
            _FLOAT,
            "right ascension, ICRS; null where the cutouts carry none",
            "deg",
            True,
            minimum=0,
            maximum=360,
        ),
        Column(
            "dec", _FLOAT, "declination, ICRS; null where the cutouts carry none", "deg", True, minimum=-90, maximum=90
        ),
        Column("z_lens", _FLOAT, "redshift; null where unknown", "", True, minimum=0),
        Column("mag_g", _FLOAT, "total AB magnitude in g", "mag", True),
        Column("mag_r", _FLOAT, "total AB magnitude in r", "mag", True),
        Column("mag_z", _FLOAT, "total AB magnitude in z", "mag", True),
        Column("psf_fwhm_g", _FLOAT, "seeing FWHM in g; null where unknown", "arcsec", True, minimum=0),
        Column("psf_fwhm_r", _FLOAT, "seeing FWHM in r; null where unknown", "arcsec", True, minimum=0),
        Column("psf_fwhm_z", _FLOAT, "seeing FWHM in z; null where unknown", "arcsec", True, minimum=0),
        Column("psfdepth_g", _FLOAT, "inverse variance of a point source in g", "nanomaggy^-2", True, minimum=0),
        Column("psfdepth_r", _FLOAT, "inverse variance of a point source in r", "nanomaggy^-2", True, minimum=0),
        Column("psfdepth_z", _FLOAT, "inverse variance of a point source in z", "nanomaggy^-2", True, minimum=0),
        Column("mag_dered_g", _FLOAT, "mag_g corrected for Galactic extinction", "mag", True, False),
        Column("mag_dered_r", _FLOAT, "mag_r corrected for Galactic extinction", "mag", True, False),
        Column("mag_dered_z", _FLOAT, "mag_z corrected for Galactic extinction", "mag", True, False),
        Column(
            "ebv",
            _FLOAT,
            "Galactic reddening E(B-V), SFD scale; null where unknown. 5 dims g by 16 mag, through which no galaxy is seen",
            "mag",
            True,
            False,
            0,
            5,
        ),
        Column("brickname", _TEXT, "brick of the Legacy Surveys that holds the galaxy", "", True, False),
        Column("morphology", _TEXT, "the catalogue's TYPE: PSF, REX, EXP, DEV, SER, ...", "", True, False),
        Column("reff_arcsec", _FLOAT, "half-light radius", "arcsec", True, False, 0),
        Column("axis_ratio", _FLOAT, "axis ratio of the light, minor over major", "", True, False, 0, 1),
        Column(
            "phi_rad",
            _FLOAT,
            "position angle of the light in its pixels, from x towards y: from west to north where north is up",
            "rad",
            True,
            False,
            -_TURN_RAD,
            _TURN_RAD,
        ),
        Column("sersic_n", _FLOAT, "Sersic index of the light", "", True, False, 0),
        Column("maskbits", _INT, "the catalogue's MASKBITS", "", True, False),
        Column("nobs_g", _INT, "exposures in g at the galaxy", "", True, False, 0),
        Column("nobs_r", _INT, "exposures in r at the galaxy", "", True, False, 0),
        Column("nobs_z", _INT, "exposures in z at the galaxy", "", True, False, 0),
        Column("release", _INT, "the catalogue's RELEASE", "", True, False),
        Column("targetid", _INT, "DESI's TARGETID: RELEASE, BRICKID and OBJID in one number", "", True, False),
    ),
    further=_OF_PIXELS,
)

PARENT_LEFT_OUT = TableContract(
    name="parent_sample/left_out",
    meaning="Galaxies that a selection keeps, or a catalogue asks to cut out, and that are no parents, each with its reason.",
    columns=(
        Column("galaxy_id", _TEXT, "name that the galaxy would have"),
        Column("ra", _FLOAT, "right ascension, ICRS", "deg", True),
        Column("dec", _FLOAT, "declination, ICRS", "deg", True),
        Column(
            "reason",
            _TEXT,
            "no_identity, no_position, not_primary, repeated, known_lens, wrong_seeing, wrong_extinction or near_border; of "
            "cutouts, as in docs/survey-images.md",
        ),
        Column("file", _TEXT, "catalogue file that the row stands in"),
        Column(
            "detail",
            _TEXT,
            "what was found, as which band and how many pixels; null where the reason says all",
            "",
            True,
        ),
    ),
)

IMAGE_FILES = TableContract(
    name="parent_sample/image_files",
    meaning="Image files that were opened to cut galaxies out of, with the bytes that they had.",
    key=("path",),
    columns=(
        Column("path", _TEXT, "absolute path or s3:// address"),
        Column("size_bytes", _INT, "size", minimum=0),
        Column("sha256", _TEXT, "SHA-256 of the whole file"),
        Column("n_galaxies", _INT, "galaxies of the sample whose pixels, PSF or calibration come from it", minimum=0),
    ),
)

# A system in a table of known lenses.
LENS_COLUMNS = (
    Column("lens_name", _TEXT, "name in the table of lenses"),
    Column("lens_ra", _FLOAT, "right ascension of the lens, ICRS", "deg", minimum=0, maximum=360),
    Column("lens_dec", _FLOAT, "declination of the lens, ICRS", "deg", minimum=-90, maximum=90),
    Column("grade", _TEXT, "confident or probable"),
    Column("methods", _TEXT, "how it was found: network, spectroscopy, arc_finder, visual, submillimetre, compilation"),
    Column(
        "independent_of_networks",
        _BOOL,
        "whether a method without a network found it; null where no list says how it was found",
        "",
        True,
    ),
    Column("references", _TEXT, "the table's references"),
)

KNOWN_LENSES = TableContract(
    name="parent_sample/known_lenses",
    meaning="Galaxies of the selection that are known lenses or candidates: neither hosts nor controls.",
    columns=(
        Column("galaxy_id", _TEXT, "name that the galaxy would have"),
        Column("ra", _FLOAT, "right ascension of the galaxy, ICRS", "deg", minimum=0, maximum=360),
        Column("dec", _FLOAT, "declination of the galaxy, ICRS", "deg", minimum=-90, maximum=90),
        Column("separation_arcsec", _FLOAT, "distance between galaxy and lens", "arcsec", minimum=0),
        *LENS_COLUMNS,
    ),
)

PARENT_COMPLETENESS = TableContract(
    name="parent_sample/completeness",
    meaning="Share of lens systems that the selection keeps when arc and galaxy are blended in the catalogue; it multiplies the "
    "classifier's completeness at the same arc magnitude.",
    key=("source_colour", "blended_share", "arc_mag_r"),
    columns=(
        Column("source_colour", _TEXT, "the arc's colours: flat, star_forming or red"),
        Column(
            "blended_share",
            _FLOAT,
            "share of the arc's flux that the catalogue gives to the galaxy",
            "",
            minimum=0,
            maximum=1,
        ),
        Column("arc_mag_r", _FLOAT, "the whole arc's AB magnitude in r, corrected for extinction", "mag"),
        Column("n", _INT, "galaxies that were given such an arc", minimum=0),
        Column("n_kept", _INT, "of these, systems that still meet every cut", minimum=0),
        Column("share_kept", _FLOAT, "n_kept / n; null where n is 0", "", True, minimum=0, maximum=1),
        Column("low", _FLOAT, "lower end of the 95 % Wilson interval", "", True, minimum=0, maximum=1),
        Column("high", _FLOAT, "upper end of the 95 % Wilson interval", "", True, minimum=0, maximum=1),
    ),
)
