"""Table of the comparison of models. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

MODEL_COMPARISON = TableContract(
    name="model_comparison",
    meaning="One model held against others on the same rows of test, pair by pair.",
    key=("against", "against_version", "metric"),
    columns=(
        Column("against", _TEXT, "name of the other model; champion where it was chosen as that"),
        Column("against_version", _TEXT, "version of its scores"),
        Column("metric", _TEXT, "as in evaluation_report"),
        Column("value", _FLOAT, "of this model", "", True),
        Column("against_value", _FLOAT, "of the other", "", True),
        Column("delta", _FLOAT, "value - against_value", "", True),
        Column(
            "low",
            _FLOAT,
            "lower end of the 95 % interval of delta, over the galaxies, or regions, that both see",
            "",
            True,
        ),
        Column("high", _FLOAT, "upper end", "", True),
        Column("cluster", _TEXT, "galaxy, or region where the interval over regions is wider"),
        Column(
            "win_probability",
            _FLOAT,
            "chance that this model is better, by the same law as the interval, half where nothing tells them apart; of "
            "losses and of FPRs less is better",
            "",
            True,
            True,
            0,
            1,
        ),
        Column(
            "p_value",
            _FLOAT,
            "of a threshold's rates: McNemar's test with `cluster` as clusters, that both do equally well",
            "",
            True,
            True,
            0,
            1,
        ),
        Column(
            "n_only_this", _INT, "of a threshold's rates: rows that this model alone lets through", "", True, minimum=0
        ),
        Column("n_only_other", _INT, "rows that the other alone lets through", "", True, minimum=0),
        Column("n_positives", _INT, "positives it rests on", minimum=0),
        Column("n_negatives", _INT, "distinct negatives it rests on", minimum=0),
        Column("n_galaxies", _INT, "galaxies it rests on", minimum=0),
        Column("unit", _TEXT, "unit of value"),
        Column("status", _TEXT, "ok or undefined"),
        Column("reason", _TEXT, "why something is null, or what the interval leaves out", "", True),
    ),
)
