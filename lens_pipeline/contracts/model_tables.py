"""Tables of models: training, scores, evaluation, sweeps and predictions. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _SINGLE, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.float32(), pa.bool_()

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
        Column("val_balanced_loss_se", _FLOAT, "standard error of val_balanced_loss", "", True, False, 0),
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

_CELLS = (
    Column("operating_point", _TEXT, "name of the frozen threshold"),
    Column(
        "axis",
        _TEXT,
        "all, theta_e_arcsec, psf_fwhm_used_r, arc_snr, lens_model; where they divide the injections source_id and is_held_out",
    ),
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
    Column(
        "parent_share", _FLOAT, "share of such lenses that meet the parent sample's cuts at all", "", True, True, 0, 1
    ),
    Column(
        "total",
        _FLOAT,
        "completeness among all lenses whose galaxy alone meets the cuts: sum of w x recovered x share / sum of w",
        "",
        True,
        True,
        0,
        1,
    ),
    Column("total_low", _FLOAT, "lower end of its interval: both lower ends multiplied", "", True, True, 0, 1),
    Column("total_high", _FLOAT, "upper end of its interval", "", True, True, 0, 1),
    Column("total_reason", _TEXT, "why total or its interval is null", "", True),
)

COMPLETENESS = TableContract(
    name="completeness",
    meaning="Recovered over injected on test, weighted, per operating point and cell.",
    key=("operating_point", "axis", "cell"),
    columns=_CELLS,
)

OUT_OF_FOLD_COMPLETENESS = TableContract(
    name="completeness/out_of_fold",
    meaning="Of a cross-validation: recovered over injected on train and val_select, each row by the one model that was not "
    "trained on its fold, above the threshold of its fold.",
    key=("operating_point", "axis", "cell"),
    columns=_CELLS,
)

FOLD_THRESHOLDS = TableContract(
    name="completeness/fold_thresholds",
    meaning="Of a cross-validation: the threshold of each fold, its highest control, what lies above it, and what rate of false "
    "positives that can hide; then all folds together.",
    key=("split",),
    columns=(
        Column("split", _TEXT, "fold 0, fold 1, ..., or out_of_fold for all of them"),
        Column("threshold", _FLOAT, "logit of the fold's highest control; null for all folds", "", True),
        Column("n_negatives", _INT, "distinct controls: identical repeats count once", minimum=0),
        Column("n_negative_galaxies", _INT, "galaxies of these controls", minimum=0),
        Column(
            "fpr_high",
            _FLOAT,
            "upper end of the 95 % interval of the false-positive rate; none of the fold's own controls is above",
            "",
            False,
            True,
            0,
            1,
        ),
        Column("n", _INT, "injections", minimum=0),
        Column("n_galaxies", _INT, "galaxies of these injections", minimum=0),
        Column("n_recovered", _INT, "of n, above the threshold", minimum=0),
        Column("completeness", _FLOAT, "sum of w x recovered / sum of w", "", True, True, 0, 1),
        Column("completeness_low", _FLOAT, "lower end of the 95 % interval", "", True, True, 0, 1),
        Column("completeness_high", _FLOAT, "upper end of the 95 % interval", "", True, True, 0, 1),
        Column("reason", _TEXT, "why something is null", "", True),
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
