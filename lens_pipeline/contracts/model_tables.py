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
        Column(
            "digest",
            pa.uint64(),
            "64 bits of the row's key, its pixels, the weights and the logits, made where the model ran; scores that were "
            "exchanged afterwards don't match it",
            required=False,
        ),
    ),
)

MATCHED_FILTER = TableContract(
    name="scores/matched_filter",
    meaning="What a classical finder makes of each row of val_calibrate and test: the signal-to-noise of the arc that fits best, "
    "by a matched filter on the stamp without its host (docs/completeness.md).",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column("logical", _INT, "logical number in the store version that the attributes name", minimum=0),
        Column("split", _TEXT, "val_calibrate or test"),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("snr", _SINGLE, "signal-to-noise of the best arc; larger is more lens-like"),
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
        Column(
            "p_lens",
            _FLOAT,
            "probability of a lens by the calibration of the model's frozen operating point, at the prevalence that the file's "
            "metadata name (`p_lens`)",
            nullable=True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "extrapolated",
            _BOOL,
            "whether the logit lies where the calibration saw one class only; null where `p_lens` is",
            nullable=True,
        ),
        Column(
            "p_lens_reason", _TEXT, "why a stamp with a logit has no `p_lens`; null where it has one", nullable=True
        ),
        Column("reason", _TEXT, "name of the reason for which there is no score; null where there is one", "", True),
        Column("detail", _TEXT, "what was found", "", True),
        Column(
            "pixel_hash",
            pa.binary(16),
            "BLAKE2b-128 of the stamp's float16 pixels, as in stamp_store; null where refused",
            nullable=True,
        ),
    ),
)
