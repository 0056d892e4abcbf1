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
