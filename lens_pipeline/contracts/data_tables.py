"""Tables of the data: from the parent sample to the splits. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

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
        Column("ebv", _FLOAT, "Galactic reddening E(B-V), SFD scale", "mag", True, False, 0),
        Column("brickname", _TEXT, "brick of the Legacy Surveys that holds the galaxy", "", True, False),
        Column("morphology", _TEXT, "the catalogue's TYPE: PSF, REX, EXP, DEV, SER, ...", "", True, False),
        Column("reff_arcsec", _FLOAT, "half-light radius", "arcsec", True, False, 0),
        Column("axis_ratio", _FLOAT, "axis ratio of the light, minor over major", "", True, False, 0, 1),
        Column("phi_rad", _FLOAT, "position angle of the light, from x (west) towards y (north)", "rad", True, False),
        Column("sersic_n", _FLOAT, "Sersic index of the light", "", True, False, 0),
        Column("maskbits", _INT, "the catalogue's MASKBITS", "", True, False),
        Column("nobs_g", _INT, "exposures in g at the galaxy", "", True, False, 0),
        Column("nobs_r", _INT, "exposures in r at the galaxy", "", True, False, 0),
        Column("nobs_z", _INT, "exposures in z at the galaxy", "", True, False, 0),
        Column("release", _INT, "the catalogue's RELEASE", "", True, False),
        Column("targetid", _INT, "DESI's TARGETID: RELEASE, BRICKID and OBJID in one number", "", True, False),
    ),
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
            "no_identity, no_position, not_primary, repeated, known_lens or near_border; of cutouts, as in docs/survey-images.md",
        ),
        Column("file", _TEXT, "catalogue file that the row stands in"),
    ),
)

KNOWN_LENSES = TableContract(
    name="parent_sample/known_lenses",
    meaning="Galaxies of the selection that are known lenses or candidates: neither hosts nor controls.",
    columns=(
        Column("galaxy_id", _TEXT, "name that the galaxy would have"),
        Column("ra", _FLOAT, "right ascension of the galaxy, ICRS", "deg", minimum=0, maximum=360),
        Column("dec", _FLOAT, "declination of the galaxy, ICRS", "deg", minimum=-90, maximum=90),
        Column("separation_arcsec", _FLOAT, "distance between galaxy and lens", "arcsec", minimum=0),
        Column("lens_name", _TEXT, "name in the table of lenses"),
        Column("lens_ra", _FLOAT, "right ascension of the lens, ICRS", "deg", minimum=0, maximum=360),
        Column("lens_dec", _FLOAT, "declination of the lens, ICRS", "deg", minimum=-90, maximum=90),
        Column("grade", _TEXT, "confident or probable"),
        Column(
            "methods", _TEXT, "how it was found: network, spectroscopy, arc_finder, visual, submillimetre, compilation"
        ),
        Column(
            "independent_of_networks",
            _BOOL,
            "whether a method without a network found it; null where no list says how it was found",
            "",
            True,
        ),
        Column("references", _TEXT, "the table's references"),
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

# The injection's own parameters: null on a control.
_ARC = (
    Column("src_mag_r", _FLOAT, "unlensed AB magnitude of the source in r", "mag", True, False),
    Column("src_mag_g", _FLOAT, "unlensed AB magnitude of the source in g", "mag", True, False),
    Column("src_mag_z", _FLOAT, "unlensed AB magnitude of the source in z", "mag", True, False),
    Column("src_dmag", _FLOAT, "unlensed source minus host magnitude in r", "mag", True, False),
    Column("src_reff_arcsec", _FLOAT, "half-light radius of the source", "arcsec", True, False, 0),
    Column("src_n", _FLOAT, "Sersic index of the source", "", True, False, 0),
    Column("src_e", _FLOAT, "ellipticity of the source, (1 - q) / (1 + q)", "", True, False, 0, 1),
    Column("src_phi_rad", _FLOAT, "position angle of the source", "rad", True, False),
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
    Column("z_source", _FLOAT, "redshift of the source; null where the host's is unknown", "", True, False, 0),
    Column(
        "sigma_v_km_s", _FLOAT, "velocity dispersion of an isothermal lens with this theta_e", "km/s", True, False, 0
    ),
)

_SAMPLE = (
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
        "the survey's own split: train, val or test; null where regions are split later",
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

_TWIN = pa.struct(
    [("lens_model", _TEXT), ("theta_e_arcsec", _FLOAT), *((column.name, column.dtype) for column in _ARC)]
)

_FEATURE = pa.struct([(name, _FLOAT) for name in ("radius_arcsec", "width", "q", "phi_rad", "mag_g", "mag_r", "mag_z")])

INJECTION_MANIFEST = TableContract(
    name="injection_manifest",
    meaning="One row per stamp to make: sample key, galaxy, region, lens model and parameters, or CONTROL.",
    key=("task_id",),
    open_ended=True,
    columns=(
        *_SAMPLE,
        *_ARC,
        Column(
            "fake_of", _TEXT, "task_id of the injection that a fake imitates; null on any other row", "", True, False
        ),
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
    ),
)

NULL_FLUX = TableContract(
    name="injection_manifest/null_flux",
    meaning="Injections that are made without any flux, to see what injecting leaves behind; never trained on.",
    key=("task_id",),
    open_ended=True,
    columns=(*_SAMPLE, *_ARC),
)

INJECTION_DESIGN = TableContract(
    name="injection_manifest/design",
    meaning="What was drawn against the population it stands for, cell by cell, and how well completeness will be known.",
    columns=(
        Column(
            "axis",
            _TEXT,
            "all, theta_e_arcsec, src_mag_r, lens_model, psf_fwhm_r (of the galaxy), or cell of the design",
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

_MEASURED = (
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
    Column("total_injected_flux_r", _FLOAT, "noiseless sum of the arc in the stamp", "nanomaggy", True, False),
)

STAMPS = TableContract(
    name="stamps",
    meaning="The unified parquet: manifest columns, the compressed pixels, and quality columns; or a user's own.",
    key=("task_id",),
    open_ended=True,
    columns=(
        *_SAMPLE,
        *_ARC,
        *_MEASURED,
        Column(
            "stamp_npz", pa.binary(), "np.savez_compressed of image_g, image_r, image_z, float32", "nanomaggy", True
        ),
    ),
)

STAMP_STORE = TableContract(
    name="stamp_store",
    meaning="The index of the store: one row a stored stamp; the place in the table is its logical number.",
    key=("task_id",),
    open_ended=True,
    columns=(
        Column("logical", _INT, "logical number: the row's place by key_hash", minimum=0),
        Column("key_hash", pa.binary(16), "BLAKE2b-128 of the task_id; the index is sorted by it"),
        Column("segment", pa.int32(), "number of the segment that holds the pixels", minimum=0),
        Column("segment_row", _INT, "row within that segment", minimum=0),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("stratum", _TEXT, "class, Einstein-radius bin and lens model"),
        Column("pixel_hash", pa.binary(16), "BLAKE2b-128 of the stored float16 pixels"),
        Column("galaxy_id", _TEXT, "host galaxy; matched by position on the sky where the input names none"),
        *(column for column in (*_SAMPLE, *_ARC, *_MEASURED) if column.name != "galaxy_id"),
    ),
)

QUARANTINE = TableContract(
    name="stamp_store/quarantine",
    meaning="Rows that were read but not stored, each with its reason.",
    open_ended=False,
    columns=(
        Column("task_id", _TEXT, "key of the row as the input gave it", "", True),
        Column("fragment", _TEXT, "file that the row stands in"),
        Column("fragment_row", _INT, "row within that file", minimum=0),
        Column("reason", _TEXT, "name of the reason, e.g. bad_crc"),
        Column("detail", _TEXT, "what was found"),
        Column("excluded", _BOOL, "true where the survey itself said so (cutout_ok != 1), false where we refused it"),
    ),
)

STORED_FRAGMENTS = TableContract(
    name="stamp_store/fragments",
    meaning="Files that the store was made from, so that a later store decodes only those it has not seen.",
    open_ended=False,
    columns=(
        Column("file", _TEXT, "name of the file, as the stamps list it"),
        Column("sha256", _TEXT, "SHA-256 of the file; a file is known by it, whatever its name"),
        Column("rows", _INT, "rows of the file", minimum=0),
    ),
)

REGION_SPLITS = TableContract(
    name="region_splits",
    meaning="Region to split: the frozen assignment.",
    key=("region_id",),
    columns=(
        Column("region_id", _TEXT, "unit of splitting"),
        Column("split", _TEXT, "train, val_select, val_calibrate or test"),
        Column("n_rows", _INT, "stored rows in the region", minimum=0),
        Column("n_galaxies", _INT, "galaxies in the region", minimum=0),
        Column("ra", _FLOAT, "mean right ascension of the region's rows", "deg", True),
        Column("dec", _FLOAT, "mean declination of the region's rows", "deg", True),
    ),
)

SPLIT_ROWS = TableContract(
    name="region_splits/rows",
    meaning="Row to split, for one version of the store.",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column("logical", _INT, "logical number in the store version that the table's attributes name", minimum=0),
        Column("split", _TEXT, "train, val_select, val_calibrate or test"),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
    ),
)
