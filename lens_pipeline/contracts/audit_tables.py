"""The table of questions that a model must answer before it is promoted. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

SHORTCUT_GATES = TableContract(
    name="shortcut_gates",
    meaning="One row a question: can anything but the arc tell the classes apart, and does the score follow the arc?",
    key=("name",),
    columns=(
        Column("name", _TEXT, "short name of the question"),
        Column(
            "kind",
            _TEXT,
            "gate (nothing but arcs may separate: value at chance), baseline (reported alone, arcs differ there), counterfactual "
            "(the score must follow the arc), or path (a row's score must be the same by every way)",
        ),
        Column("of", _TEXT, "what is told from what, or compared with what, and by which features"),
        Column("value", _FLOAT, "in unit; null where not measured", "", True),
        Column("low", _FLOAT, "lower end of the interval; null where there is none", "", True),
        Column("high", _FLOAT, "upper end of the interval; null where there is none", "", True),
        Column("level", _FLOAT, "confidence of the interval; null where there is none", "", True, True, 0, 1),
        Column("unit", _TEXT, "AUROC, logit, fraction, ..."),
        Column(
            "limit",
            _FLOAT,
            "of a gate and a path: what value may not exceed; of a counterfactual: what low must exceed; null of a baseline",
            "",
            True,
        ),
        Column("n_positives", _INT, "rows of what is told apart", minimum=0),
        Column("n_negatives", _INT, "rows that it is told from", minimum=0),
        Column("n_galaxies", _INT, "galaxies of these rows", minimum=0),
        Column(
            "status",
            _TEXT,
            "ok, red, undecided (too few rows to say), or not_measured; a baseline that was measured is ok, whatever its value",
        ),
        Column(
            "reason",
            _TEXT,
            "why it is red, undecided or not measured, what shows most, or that the interval of one that is ok excludes chance; "
            "null otherwise",
            "",
            True,
        ),
        Column(
            "stands_from",
            _TEXT,
            "earlier version of shortcut_gates whose red answer about the model stands; null where the answer is this one's own",
            "",
            True,
        ),
    ),
)
