"""Tables of the recovery of real lenses. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

REAL_LENS_RECOVERY = TableContract(
    name="real_lens_recovery",
    meaning="Share of real lenses that is found at each frozen threshold, beside that of the injections of test.",
    key=("operating_point", "stratum"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("stratum", _TEXT, "all, confident, independent of networks, or a method by which they were found"),
        Column("n", _INT, "stamps of real lenses that have a score", minimum=0),
        Column("n_lenses", _INT, "lenses that these show", minimum=0),
        Column("n_recovered", _INT, "of n, above the threshold", minimum=0),
        Column("recall", _FLOAT, "n_recovered / n; null where there is none", "", True, True, 0, 1),
        Column("recall_low", _FLOAT, "lower end of the 95 % interval, with lenses as clusters", "", True, True, 0, 1),
        Column("recall_high", _FLOAT, "upper end", "", True, True, 0, 1),
        Column("injected", _FLOAT, "completeness of all injections of test at this threshold", "", True, True, 0, 1),
        Column("injected_low", _FLOAT, "lower end of its 95 % interval", "", True, True, 0, 1),
        Column("injected_high", _FLOAT, "upper end", "", True, True, 0, 1),
        Column("status", _TEXT, "ok, or undefined"),
        Column("reason", _TEXT, "why it is undefined; how many stamps have no score, and what copies say", "", True),
    ),
)

REAL_LENS_STAMPS = TableContract(
    name="real_lens_recovery/stamps",
    meaning="Stamps of real lenses, one a row, each with its score or with the reason why there is none.",
    columns=(
        Column(
            "lens_name",
            _TEXT,
            "name of the lens, all of them with = between where copies bear several; its key where it has none",
        ),
        Column("task_id", _TEXT, "key of the stamp; null where its file gives none", "", True),
        Column("origin", _TEXT, "store (matched to a table of lenses) or the file that it is of"),
        Column(
            "methods",
            _TEXT,
            "how the lens was found, by all stamps with these pixels, joined by a comma; null where nothing says",
            "",
            True,
        ),
        Column("is_confident", _BOOL, "whether a table calls it confident; null where nothing says", "", True),
        Column(
            "independent_of_networks",
            _BOOL,
            "whether a method without a network found it; null where nothing says",
            "",
            True,
        ),
        Column("logit", _FLOAT, "raw score; null where there is none", "", True),
        Column("reason", _TEXT, "why it has no score", "", True),
        Column(
            "same_as",
            _TEXT,
            "key of the stamp that has the very same pixels and alone counts; null where that is this one",
            "",
            True,
        ),
    ),
)
