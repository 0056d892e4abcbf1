"""Every table that the chain publishes, declared once; docs/tables.md is generated from here."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _SINGLE, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.float32(), pa.bool_()

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
        Column("mag_g", _FLOAT, "total AB magnitude in g", "mag", True),
        Column("mag_r", _FLOAT, "total AB magnitude in r", "mag", True),
        Column("mag_z", _FLOAT, "total AB magnitude in z", "mag", True),
        Column("psf_fwhm_g", _FLOAT, "seeing FWHM in g; null where unknown", "arcsec", True, minimum=0),
        Column("psf_fwhm_r", _FLOAT, "seeing FWHM in r; null where unknown", "arcsec", True, minimum=0),
        Column("psf_fwhm_z", _FLOAT, "seeing FWHM in z; null where unknown", "arcsec", True, minimum=0),
        Column("psfdepth_g", _FLOAT, "inverse variance of a point source in g", "nanomaggy^-2", True, minimum=0),
        Column("psfdepth_r", _FLOAT, "inverse variance of a point source in r", "nanomaggy^-2", True, minimum=0),
        Column("psfdepth_z", _FLOAT, "inverse variance of a point source in z", "nanomaggy^-2", True, minimum=0),
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
    Column("shear", _FLOAT, "external shear", "", True, False, 0, 1),
    Column("shear_phi_rad", _FLOAT, "position angle of the shear", "rad", True, False),
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
)

INJECTION_MANIFEST = TableContract(
    name="injection_manifest",
    meaning="One row per stamp to make: sample key, galaxy, region, lens model and parameters, or CONTROL.",
    key=("task_id",),
    open_ended=True,
    columns=(*_SAMPLE, *_ARC),
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
    Column("region_split", _TEXT, "the survey's own split: train, val or test", "", True, False),
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

HISTORY = TableContract(
    name="lens_classifier",
    meaning="One row an epoch of training.",
    key=("epoch",),
    open_ended=True,
    columns=(
        Column("epoch", _INT, "epoch, from 0", minimum=0),
        Column("train_loss", _FLOAT, "mean training loss, augmented stamps"),
        Column("val_loss", _FLOAT, "negative log-likelihood on the whole of val_select, not smoothed"),
        Column("val_auroc", _FLOAT, "area under the ROC curve on val_select; null where one class is absent", "", True),
        Column("learning_rate", _FLOAT, "at the end of the epoch"),
        Column("gradient_norm", _FLOAT, "mean over steps, before clipping", "", True, False, 0),
        Column("clipped_share", _FLOAT, "share of steps whose gradient was clipped", "", True, False, 0, 1),
        Column("train_rows", _INT, "rows that reached the model", "", True, False, 0),
        Column("validation_rows", _INT, "rows of val_select, or of the fold", "", True, False, 0),
        Column(
            "best", _BOOL, "whether the monitor improved: the last such epoch's weights are the model", "", True, False
        ),
        Column("trained_parameters", _INT, "numbers that the epoch's steps change: not frozen", "", True, False, 0),
        Column("val_balanced_loss", _FLOAT, "as val_loss, mean over the means of classes", "", True, False, 0),
        Column("val_loss_se", _FLOAT, "standard error of val_loss over rows", "", True, False, 0),
        Column("val_partial_auc", _FLOAT, "partial area under the ROC curve on val_select", "", True, False, 0, 1),
        Column("distinct_logit_share", _FLOAT, "distinct logits over rows of val_select", "", True, False, 0, 1),
        Column("extreme_logit_share", _FLOAT, "share of val_select with an extreme logit", "", True, False, 0, 1),
        Column("skipped_steps", _INT, "steps that float16 skipped: a gradient was not finite", "", True, False, 0),
    ),
)

SCORES = TableContract(
    name="scores",
    meaning="One logit per stored row, all splits.",
    key=("task_id",),
    open_ended=True,
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column("logical", _INT, "logical number in the store version that the attributes name", minimum=0),
        Column("split", _TEXT, "train, val_select, val_calibrate or test"),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("logit", _SINGLE, "raw score: log-odds of not being of the first class; larger is more lens-like"),
    ),
)

OUT_OF_FOLD = TableContract(
    name="out_of_fold",
    meaning="scores/out_of_fold, of a cross-validation: the logit of each row by the one model that was not trained on its fold.",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row; rows of train and val_select, none of val_calibrate and test"),
        Column("logical", _INT, "logical number in the store version that the attributes name", minimum=0),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("fold", pa.int8(), "fold of the row's region", minimum=0),
        Column("logit", _SINGLE, "raw score by the model that was validated on this fold"),
    ),
)

OPERATING_POINT = TableContract(
    name="operating_point",
    meaning="Thresholds fitted on val_calibrate and frozen; a row is recovered where logit > threshold.",
    key=("operating_point",),
    columns=(
        Column("operating_point", _TEXT, "name, e.g. fpr_1e-02 or highest_control"),
        Column("target_fpr", _FLOAT, "false-positive rate aimed at; null for highest_control", "", True, True, 0, 1),
        Column("threshold", _FLOAT, "logit; null where unresolved", "", True),
        Column("n_negatives", _INT, "distinct negatives in val_calibrate: identical repeats count once", minimum=0),
        Column("n_galaxies", _INT, "distinct galaxies among them", minimum=0),
        Column("n_distinct", _INT, "distinct logits among them", minimum=0),
        Column("n_false_positives", _INT, "of them above the threshold", "", True, True, 0),
        Column("fpr", _FLOAT, "achieved on val_calibrate", "", True, True, 0, 1),
        Column("fpr_low", _FLOAT, "lower end of the 95 % interval", "", True, True, 0, 1),
        Column("fpr_high", _FLOAT, "upper end of the 95 % interval", "", True, True, 0, 1),
        Column(
            "smallest_resolvable_fpr",
            _FLOAT,
            "least rate that these negatives resolve; null if none",
            "",
            True,
            True,
            0,
            1,
        ),
        Column(
            "status", _TEXT, "resolved, unresolved, or bound: the threshold serves, its rate has only an upper bound"
        ),
        Column("reason", _TEXT, "why it is unresolved or only a bound", "", True),
    ),
)

COMPLETENESS = TableContract(
    name="completeness",
    meaning="Recovered over injected on test, weighted, per operating point and cell.",
    key=("operating_point", "axis", "cell"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("axis", _TEXT, "all, theta_e_arcsec, psf_fwhm_used_r, arc_snr or lens_model"),
        Column("cell", _TEXT, "bin or value"),
        Column("low", _FLOAT, "lower edge of the bin; null on a categorical axis", "", True),
        Column("high", _FLOAT, "upper edge of the bin; null on a categorical axis", "", True),
        Column("n", _INT, "attempted and scored injections", minimum=0),
        Column(
            "n_quarantined",
            _INT,
            "attempted injections that were never stored; null where the manifest doesn't carry the axis",
            "",
            True,
            minimum=0,
        ),
        Column("n_galaxies", _INT, "distinct host galaxies", minimum=0),
        Column("n_recovered", _INT, "of n, above the threshold", minimum=0),
        Column("n_eff", _FLOAT, "effective n: weights (Kish) and clusters by galaxy", "", True, True, 0),
        Column("completeness", _FLOAT, "sum of w x recovered / sum of w", "", True, True, 0, 1),
        Column("completeness_low", _FLOAT, "lower end of the 95 % interval", "", True, True, 0, 1),
        Column("completeness_high", _FLOAT, "upper end of the 95 % interval", "", True, True, 0, 1),
        Column("status", _TEXT, "ok, small (few effective injections) or undefined"),
        Column("reason", _TEXT, "why it is small or undefined", "", True),
    ),
)

METRICS = TableContract(
    name="evaluation_report",
    meaning="Every number of the report, the only thing that text and plots are rendered from.",
    key=("metric", "split"),
    columns=(
        Column("metric", _TEXT, "name, e.g. auroc or tpr_at_fpr_1e-02"),
        Column("split", _TEXT, "rows that it is about"),
        Column("value", _FLOAT, "null where undefined or unresolved", "", True),
        Column("low", _FLOAT, "lower end of the 95 % interval", "", True),
        Column("high", _FLOAT, "upper end of the 95 % interval", "", True),
        Column("n_positives", _INT, "positives it rests on", minimum=0),
        Column("n_negatives", _INT, "distinct negatives it rests on", minimum=0),
        Column("n_clusters", _INT, "galaxies it rests on", minimum=0),
        Column("unit", _TEXT, "unit of value"),
        Column("status", _TEXT, "ok, unresolved or undefined"),
        Column("reason", _TEXT, "why there is no value", "", True),
    ),
)

SWEEP = TableContract(
    name="sweep",
    meaning="One row a trial of a search for better settings of `lens_classifier`.",
    key=("trial",),
    columns=(
        Column("trial", _INT, "number, from 0", minimum=0),
        Column("state", _TEXT, "complete, pruned (given up early, or no valid training), fail or running"),
        Column("value", _FLOAT, "best monitor on val_select; null unless complete", "", True),
        Column("reason", _TEXT, "why it was given up or failed, or whose settings it repeats", "", True),
        Column("epochs", _INT, "epochs that were trained", minimum=0),
        Column("seconds", _FLOAT, "wall time; null where its process was killed", "s", True, minimum=0),
        Column(
            "learning_rate", _FLOAT, "peak learning rate; null where a trial was lost before it was drawn", "", True
        ),
        Column("weight_decay", _FLOAT, "likewise", "", True),
        Column("dropout", _FLOAT, "likewise", "", True),
        Column("warmup_epochs", _FLOAT, "likewise", "", True),
        Column("label_smoothing", _FLOAT, "likewise", "", True),
        Column("model", _TEXT, "architecture; likewise", "", True),
        Column("batch_size", _INT, "likewise", "", True),
    ),
)

PREDICTIONS = TableContract(
    name="predictions",
    meaning="What `lens_pipeline predict` writes into a file of yours, which `read_table` doesn't know: one row a stamp.",
    open_ended=True,
    columns=(
        Column("input", _TEXT, "file as it was named"),
        Column("row", _INT, "number of the stamp in the file, from 0; null where all of the file is refused", "", True),
        Column("task_id", _TEXT, "key that the file gives the stamp; null where it gives none", "", True),
        Column(
            "logit",
            _SINGLE,
            "raw score, as in scores; null where refused. With more than two classes also `logit_<class>`",
            "",
            True,
        ),
        Column("reason", _TEXT, "name of the reason for which there is no score; null where there is one", "", True),
        Column("detail", _TEXT, "what was found", "", True),
    ),
)

CATALOGUE: tuple[TableContract, ...] = (
    PARENT_SAMPLE,
    INJECTION_MANIFEST,
    STAMPS,
    STAMP_STORE,
    QUARANTINE,
    STORED_FRAGMENTS,
    REGION_SPLITS,
    SPLIT_ROWS,
    HISTORY,
    SCORES,
    OUT_OF_FOLD,
    OPERATING_POINT,
    COMPLETENESS,
    METRICS,
    SWEEP,
    PREDICTIONS,
)
