"""Tables of the survey side: what to inject, and the stamps. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

# A source's: what some writers have for null (-99, -999, 99) lies beyond.
MAGNITUDES = (-10, 60)

# The injection's own parameters: null on a control.
ARC = (
    Column("src_mag_r", _FLOAT, "unlensed AB magnitude of the source in r", "mag", True, False, *MAGNITUDES),
    Column("src_mag_g", _FLOAT, "unlensed AB magnitude of the source in g", "mag", True, False, *MAGNITUDES),
    Column("src_mag_z", _FLOAT, "unlensed AB magnitude of the source in z", "mag", True, False, *MAGNITUDES),
    Column(
        "src_dmag",
        _FLOAT,
        "unlensed source before extinction by dust, minus the host's mag_r as observed",
        "mag",
        True,
        False,
    ),
    Column("src_reff_arcsec", _FLOAT, "half-light radius of the source", "arcsec", True, False, 0),
    Column("src_n", _FLOAT, "Sersic index of the source; null where it is a real galaxy", "", True, False, 0),
    Column(
        "src_e",
        _FLOAT,
        "ellipticity of the source, (1 - q) / (1 + q); null where it is a real galaxy",
        "",
        True,
        False,
        0,
        1,
    ),
    Column(
        "src_phi_rad", _FLOAT, "position angle of the source; of a real galaxy its picture's turn", "rad", True, False
    ),
    Column("src_x_arcsec", _FLOAT, "source position along x from the host's centre", "arcsec", True, False),
    Column("src_y_arcsec", _FLOAT, "source position along y from the host's centre", "arcsec", True, False),
    Column("lens_e", _FLOAT, "ellipticity of the lens mass, (1 - q) / (1 + q)", "", True, False, 0, 1),
    Column("lens_phi_rad", _FLOAT, "position angle of the lens mass", "rad", True, False),
    Column(
        "lens_gamma",
        _FLOAT,
        "slope of the lens's density, rho ~ r^-gamma (lenstronomy's for EPL); null where isothermal, which is 2",
        "",
        True,
        False,
        1.2,
        2.8,
    ),
    Column("shear", _FLOAT, "external shear", "", True, False, 0, 1),
    Column("shear_phi_rad", _FLOAT, "position angle of the shear", "rad", True, False),
    Column(
        "z_source",
        _FLOAT,
        "redshift of the source; null where none is lensed so, and where z_lens is null unless the population is one of "
        "velocity_dispersion, which then assumes lens_redshift_assumed",
        "",
        True,
        False,
        0,
    ),
    Column(
        "sigma_v_km_s",
        _FLOAT,
        "velocity dispersion of an isothermal lens with this theta_e between z_lens, or the assumed one, and z_source",
        "km/s",
        True,
        False,
        0,
    ),
    Column(
        "source_id",
        _TEXT,
        "real galaxy that is lensed, which stands in one split only; null where the source is a Sersic profile",
        "",
        True,
        False,
    ),
    Column(
        "source_colours",
        _TEXT,
        "where a real galaxy's colours come from: table (of the settings) or template; null where source_id is",
        "",
        True,
        False,
    ),
)

SAMPLE = (
    Column("task_id", _TEXT, "unique key of the row; every join is by it"),
    Column("region_id", _TEXT, "unit of splitting: brick or HEALPix cell"),
    Column("galaxy_id", _TEXT, "name of the host galaxy", required=False),
    Column("pair_id", _TEXT, "task_id of the control made of the same galaxy; null on a control", "", True, False),
    Column(
        "ra", _FLOAT, "right ascension, ICRS; null where the cutouts carry none", "deg", True, minimum=0, maximum=360
    ),
    Column("dec", _FLOAT, "declination, ICRS; null where the cutouts carry none", "deg", True, minimum=-90, maximum=90),
    Column("lens_model", _TEXT, "CONTROL, or the mass model of the injected lens; a null is quarantined", "", True),
    Column(
        "theta_e_arcsec",
        _FLOAT,
        "Einstein radius in lenstronomy's intermediate-axis convention (Tessore & Metcalf 2015); 0 on a control",
        "arcsec",
        True,
        minimum=0,
        maximum=60,
    ),
    Column("weight", _FLOAT, "population over proposal density of the row", "", False, False, 0),
    Column(
        "role", _TEXT, "what the row is for: injection, control, unpaired_control, fake_turned, ...", "", True, False
    ),
    Column("z_lens", _FLOAT, "redshift of the host; null where unknown", "", True, False, 0),
    Column(
        "region_split",
        _TEXT,
        "the survey's own split: train, val (or val_select, val_calibrate) or test; null where regions are split later",
        "",
        True,
        False,
    ),
    Column(
        "is_held_out",
        _BOOL,
        "whether lenses like this one stand in test regions only; null on a control",
        "",
        True,
        False,
    ),
)

_TWIN = pa.struct([("lens_model", _TEXT), ("theta_e_arcsec", _FLOAT), *((column.name, column.dtype) for column in ARC)])

_FEATURE = pa.struct([(name, _FLOAT) for name in ("radius_arcsec", "width", "q", "phi_rad", "mag_g", "mag_r", "mag_z")])

# What stands in place of an arc in a fake or a hard negative: null on any other row.
IN_PLACE_OF_ARC = (
    Column("fake_of", _TEXT, "task_id of the injection that a fake imitates; null on any other row", "", True, False),
    Column(
        "twin",
        _TWIN,
        "parameters of that injection: its lens_model, theta_e_arcsec and arc columns",
        "",
        True,
        False,
    ),
    Column(
        "feature",
        _FEATURE,
        "of a hard negative: radius_arcsec, width, q, phi_rad, mag_g, mag_r and mag_z of what is put around the galaxy",
        "",
        True,
        False,
    ),
)

INJECTION_MANIFEST = TableContract(
    name="injection_manifest",
    meaning="One row per stamp to make: sample key, galaxy, region, lens model and parameters, or CONTROL.",
    key=("task_id",),
    open_ended=True,
    columns=(
        *SAMPLE,
        *ARC,
        *IN_PLACE_OF_ARC,
    ),
)

NULL_FLUX = TableContract(
    name="injection_manifest/null_flux",
    meaning="Injections that are made without any flux, to see what injecting leaves behind; never trained on.",
    key=("task_id",),
    open_ended=True,
    columns=(*SAMPLE, *ARC),
)

REAL_SOURCES = TableContract(
    name="injection_manifest/sources",
    meaning="Real galaxies that are lensed: their light as it is rendered, so that stamps depend on nobody's folder.",
    key=("source_id",),
    columns=(
        Column("source_id", _TEXT, "name of the galaxy"),
        Column("split", _TEXT, "split whose regions it is lensed in; all its rows stand there"),
        Column("n_rows", _INT, "rows of the picture", minimum=1),
        Column("n_columns", _INT, "columns of the picture", minimum=1),
        Column(
            "pixels",
            pa.list_(pa.float32()),
            "share of the flux in each pixel, row by row from the bottom; they sum to 1",
        ),
        Column("pixel_scale_arcsec", _FLOAT, "side of a pixel as it was observed", "arcsec", minimum=0),
        Column("half_light_radius_arcsec", _FLOAT, "of the circle that holds half of its light", "arcsec", minimum=0),
        Column("redshift", _FLOAT, "its own, photometric; null where unknown. Rows draw theirs", "", True, minimum=0),
        Column("band", _TEXT, "band that it was observed in"),
        Column("mag", _FLOAT, "AB magnitude there", "mag"),
        Column("g_r", _FLOAT, "g - r of the settings' table; null where a template's is drawn", "mag", True),
        Column("r_z", _FLOAT, "r - z of the settings' table; null where a template's is drawn", "mag", True),
        Column("file", _TEXT, "name of the file that it was read from"),
        Column("sha256", _TEXT, "SHA-256 of that file"),
    ),
)

INJECTION_DESIGN = TableContract(
    name="injection_manifest/design",
    meaning="What was drawn against the population it stands for, cell by cell, and how well completeness will be known. Where "
    "something is held out, test regions alone are counted, but for each real source, which is counted where it is lensed.",
    columns=(
        Column(
            "axis",
            _TEXT,
            "all, theta_e_arcsec, src_mag_r, lens_model, psf_fwhm_r (of the galaxy), source (Sersic or a source_id), or cell of "
            "the design",
        ),
        Column("cell", _TEXT, "name of the cell"),
        Column("low", _FLOAT, "lower edge, on a continuous axis", "", True),
        Column("high", _FLOAT, "upper edge, on a continuous axis", "", True),
        Column("n", _INT, "injections in the cell", minimum=0),
        Column("n_galaxies", _INT, "galaxies that they are injected into", minimum=0),
        Column(
            "n_eff",
            _FLOAT,
            "effective number (Kish) over the design effect of a correlation of 0.1 within a galaxy; null without weight",
            "",
            True,
            minimum=0,
        ),
        Column(
            "population", _FLOAT, "share of the population; null where the design doesn't set it", "", True, True, 0, 1
        ),
        Column("drawn", _FLOAT, "share of the injections", "", False, True, 0, 1),
        Column(
            "weighted",
            _FLOAT,
            "share of the weights, in test regions where something is held out",
            "",
            True,
            True,
            0,
            1,
        ),
        Column(
            "half_width",
            _FLOAT,
            "half width of the 95 % interval of a completeness of 0.5 with n_eff",
            "",
            True,
            True,
            0,
        ),
    ),
)

MEASURED = (
    Column("cutout_ok", _INT, "1 where the cutout is usable; other rows are excluded and counted"),
    Column(
        "psf_fwhm_used_r",
        _FLOAT,
        "FWHM of the r kernel actually used, 2 sqrt(area above half maximum / pi); null where the kernel is unknown",
        "arcsec",
        True,
        minimum=0,
    ),
    Column("psf_fwhm_used_g", _FLOAT, "the same in g", "arcsec", True, False, 0),
    Column("psf_fwhm_used_z", _FLOAT, "the same in z", "arcsec", True, False, 0),
    Column("psfdepth_r", _FLOAT, "inverse variance of a point source in r", "nanomaggy^-2", True, False, 0),
)

# Null on a control.
ARC_MEASURED = (
    Column(
        "theta_e_eff_arcsec",
        _FLOAT,
        "radius of the circle with the area inside the outer critical curve, shear included; null on a control",
        "arcsec",
        True,
        False,
        0,
    ),
    Column(
        "arc_snr",
        _FLOAT,
        "peak over pixels of the noiseless, PSF-convolved r-band arc over the pixel's total sigma; null on a control",
        "",
        True,
        False,
        0,
    ),
    Column(
        "arc_snr_matched",
        _FLOAT,
        "matched-filter S/N of the r-band arc, sqrt(m^T C^-1 m), host Poisson noise included; null on a control",
        "",
        True,
        False,
        0,
    ),
    Column("magnification", _FLOAT, "lensed over unlensed flux, before the PSF, untruncated", "", True, False, 0),
    Column(
        "total_injected_flux_r",
        _FLOAT,
        "noiseless sum of the arc in the stamp but for bad pixels",
        "nanomaggy",
        True,
        False,
    ),
)

STAMPS = TableContract(
    name="stamps",
    meaning="The unified parquet: manifest columns, the compressed pixels, and quality columns; or a user's own.",
    key=("task_id",),
    open_ended=True,
    columns=(
        *SAMPLE,
        *ARC,
        *MEASURED,
        *ARC_MEASURED,
        Column(
            "stamp_npz", pa.binary(), "np.savez_compressed of image_g, image_r, image_z, float32", "nanomaggy", True
        ),
    ),
    further=(
        *IN_PLACE_OF_ARC,
        Column("brickname", _TEXT, "brick of the Legacy Surveys that holds the galaxy", "", True),
        Column("is_control", _BOOL, "whether nothing was injected", "", True),
        Column("psfsize_r", _FLOAT, "the galaxy's psf_fwhm_r of parent_sample; null where unknown", "arcsec", True),
        Column("ebv", _FLOAT, "Galactic reddening E(B-V), SFD scale; null where unknown", "mag", True),
        Column("bad_pixel_frac", _FLOAT, "share of the stamp's pixels that are bad in any band", "", True),
        Column("stamp_size", _INT, "pixels along a side", "", True),
        Column("bandset", _TEXT, "bands in the order of the pixels", "", True),
        Column("ab_zp_nmgy", _FLOAT, "AB magnitude of 1 nanomaggy", "mag", True),
    ),
)

# Columns that only rows with light added to them have; a null on a control is right there.
NULL_ON_CONTROL = frozenset(
    {"pair_id", "is_held_out", *(column.name for column in (*ARC, *IN_PLACE_OF_ARC, *ARC_MEASURED))}
)
