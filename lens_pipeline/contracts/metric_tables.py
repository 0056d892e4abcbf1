"""Tables of metrics. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

METRICS = TableContract(
    name="evaluation_report",
    meaning="Every number of the report, the only thing that text and plots are rendered from.",
    key=("metric", "split", "stratum"),
    columns=(
        Column("metric", _TEXT, "name, e.g. auroc or tpr_at_fpr_1e-02"),
        Column("split", _TEXT, "rows that it is about"),
        Column(
            "stratum",
            _TEXT,
            "which of them: all, paired controls or unpaired controls (a galaxy with or without an injection), class NAME, or "
            "population (injections weigh as the population has them)",
        ),
        Column("value", _FLOAT, "null where undefined, unresolved or only bounded", "", True),
        Column("low", _FLOAT, "lower end of the 95 % interval", "", True),
        Column("high", _FLOAT, "upper end of the 95 % interval", "", True),
        Column("n_positives", _INT, "positives it rests on", minimum=0),
        Column("n_negatives", _INT, "distinct negatives it rests on", minimum=0),
        Column("n_clusters", _INT, "clusters it rests on: galaxies, or regions", minimum=0),
        Column("cluster", _TEXT, "galaxy, or region where the interval over regions is wider"),
        Column(
            "n_eff",
            _FLOAT,
            "independent rows that would know as much; null for what is no rate, or the mean of several",
            "",
            True,
            True,
            0,
        ),
        Column("unit", _TEXT, "unit of value"),
        Column("interval", _TEXT, "how the interval was made, in words; null where there is none", "", True),
        Column("status", _TEXT, "ok, unresolved, undefined, or bound: the interval alone is known"),
        Column("reason", _TEXT, "why there is no value or no interval, or what the interval leaves out", "", True),
    ),
)

ROC = TableContract(
    name="evaluation_report/roc",
    meaning="The ROC of test with its 95 % band, as the report draws it: one row a false-positive rate.",
    key=("split", "fpr"),
    columns=(
        Column("split", _TEXT, "rows that it is about"),
        Column("fpr", _FLOAT, "false-positive rate", "", False, True, 0, 1),
        Column("n_false_positives", _INT, "distinct negatives that such a rate lets through at most", minimum=0),
        Column("tpr", _FLOAT, "largest true-positive rate of a threshold with no higher rate", "", False, True, 0, 1),
        Column("low", _FLOAT, "lower end of its 95 % interval, which holds for this rate alone", "", True, True, 0, 1),
        Column("high", _FLOAT, "upper end of its 95 % interval", "", True, True, 0, 1),
        Column("n_positives", _INT, "positives it rests on", minimum=0),
        Column("n_negatives", _INT, "distinct negatives it rests on", minimum=0),
        Column("cluster", _TEXT, "galaxy, or region where the interval over regions is wider", "", True),
        Column("interval", _TEXT, "how the interval was made, in words; null where there is none", "", True),
        Column("reason", _TEXT, "why there is no interval, or what it leaves out", "", True),
    ),
)

CONFUSION = TableContract(
    name="evaluation_report/confusion",
    meaning="Who was taken for what at each frozen threshold, on test: one row a class and decision.",
    key=("split", "operating_point", "actual", "decided"),
    columns=(
        Column("split", _TEXT, "rows that it is about"),
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("actual", _TEXT, "class of the rows"),
        Column(
            "decided",
            _TEXT,
            "what they were taken for: the first class at or under the threshold; above it the other class, or of several the "
            "one of the highest logit, or `above the threshold` where the scores carry no logit of each class",
        ),
        Column("n", _INT, "rows of the class that were taken for it; negatives are distinct", minimum=0),
        Column("n_actual", _INT, "rows of the class", minimum=0),
        Column("n_galaxies", _INT, "galaxies that these come from", minimum=0),
        Column("share", _FLOAT, "n / n_actual", "", True, True, 0, 1),
        Column("low", _FLOAT, "lower end of its 95 % interval", "", True, True, 0, 1),
        Column("high", _FLOAT, "upper end of its 95 % interval", "", True, True, 0, 1),
        Column("interval", _TEXT, "how the interval was made, in words", "", True),
        Column("reason", _TEXT, "why something is null, or what the interval leaves out", "", True),
    ),
)
