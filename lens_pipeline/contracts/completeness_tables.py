"""Tables of completeness: what is recovered of what was injected. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

_COUNTED = (
    Column(
        "in_support",
        _BOOL,
        "whether injections were attempted in the cell, and its middle lies within their range or it holds all of that; null "
        "where a value is unknown",
        "",
        True,
    ),
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
    Column("n_eff", _FLOAT, "effective n: weights (Kish) and clusters", "", True, True, 0),
    Column("cluster", _TEXT, "of n_eff and the interval: galaxy, or region where those know less"),
    Column("completeness", _FLOAT, "sum of w x recovered / sum of w", "", True, True, 0, 1),
    Column("completeness_low", _FLOAT, "lower end of the 95 % interval", "", True, True, 0, 1),
    Column("completeness_high", _FLOAT, "upper end of the 95 % interval", "", True, True, 0, 1),
    Column("status", _TEXT, "ok, small (few effective injections) or undefined"),
    Column("reason", _TEXT, "why it is small or undefined, or what its interval leaves out", "", True),
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

_CELLS = (
    Column("operating_point", _TEXT, "name of the frozen threshold"),
    Column(
        "axis",
        _TEXT,
        "all, or what the cells divide (docs/completeness.md); source_id and is_held_out only where both sides have injections",
    ),
    Column("cell", _TEXT, "bin or value"),
    Column("low", _FLOAT, "lower edge of the bin; null on a categorical axis", "", True),
    Column("high", _FLOAT, "upper edge of the bin; null on a categorical axis", "", True),
    Column("unit", _TEXT, "of low and high; empty where they have none"),
    *_COUNTED,
)

# Axes of a grid.
MOST_AXES = 4


def _sides() -> tuple[Column, ...]:
    return tuple(
        column
        for i in range(1, MOST_AXES + 1)
        for column in (
            Column(f"axis_{i}", _TEXT, f"axis {i} of the grid; null where it has fewer", "", i > 1),
            Column(f"cell_{i}", _TEXT, "bin or value along it", "", i > 1),
            Column(f"low_{i}", _FLOAT, "lower edge; null where it is no bin", "", True),
            Column(f"high_{i}", _FLOAT, "upper edge; null where it is no bin", "", True),
            Column(f"unit_{i}", _TEXT, "of both edges", "", i > 1),
        )
    )


COMPLETENESS_GRID = TableContract(
    name="completeness/grid",
    meaning="Completeness on test against several axes at once: each grid of the settings, one row a cell.",
    key=("operating_point", "grid", "cell"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("grid", _TEXT, "its axes, e.g. theta_e_arcsec x psf_fwhm_used_r"),
        Column("cell", _TEXT, "its cells along each axis, in the same order"),
        *_sides(),
        *_COUNTED,
    ),
)

COMPLETENESS = TableContract(
    name="completeness",
    meaning="Recovered over injected on test, weighted, per operating point and cell.",
    key=("operating_point", "axis", "cell"),
    columns=_CELLS,
)

BASELINE = TableContract(
    name="completeness/baseline",
    meaning="The network beside a classical finder on the same injections of test, each above its own frozen threshold for "
    "the same target; per operating point that both have, and cell.",
    key=("operating_point", "finder", "axis", "cell"),
    columns=(
        Column("finder", _TEXT, "network or matched filter"),
        Column("threshold", _FLOAT, "its frozen threshold: a logit, or the filter's signal-to-noise"),
        Column("fpr", _FLOAT, "false-positive rate there on distinct negatives of test", "", True, True, 0, 1),
        Column("fpr_low", _FLOAT, "lower end of its 95 % interval", "", True, True, 0, 1),
        Column("fpr_high", _FLOAT, "upper end of its 95 % interval", "", True, True, 0, 1),
        Column("fpr_reason", _TEXT, "why it or its interval is null, or what that leaves out", "", True),
        *_CELLS,
        Column(
            "network_minus",
            _FLOAT,
            "the network's completeness minus this finder's, on the same rows; null of the network itself",
            "",
            True,
            True,
            -1,
            1,
        ),
        Column("network_minus_low", _FLOAT, "lower end of its 95 % interval, of pairs", "", True, True, -1, 1),
        Column("network_minus_high", _FLOAT, "upper end of its 95 % interval", "", True, True, -1, 1),
        Column("network_minus_reason", _TEXT, "why it or its interval is null, or what that leaves out", "", True),
    ),
)

_FALSE = (
    Column("n_negatives", _INT, "distinct negatives: identical repeats count once", minimum=0),
    Column("n_negative_galaxies", _INT, "galaxies of these", minimum=0),
    Column("n_false_positives", _INT, "of them above the threshold", minimum=0),
    Column("fpr", _FLOAT, "false-positive rate", "", True, True, 0, 1),
    Column("fpr_low", _FLOAT, "lower end of its 95 % interval", "", True, True, 0, 1),
    Column("fpr_high", _FLOAT, "upper end of its 95 % interval", "", True, True, 0, 1),
    Column("fpr_reason", _TEXT, "why it or its interval is null", "", True),
)

REGIONS = TableContract(
    name="completeness/regions",
    meaning="False positives and completeness of each region of test: where on the sky a threshold means something else.",
    key=("operating_point", "region_id"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("region_id", _TEXT, "unit of splitting"),
        Column("ra", _FLOAT, "mean right ascension of the region's rows", "deg", True),
        Column("dec", _FLOAT, "mean declination of the region's rows", "deg", True),
        *_FALSE,
        Column("n", _INT, "attempted and scored injections", minimum=0),
        Column("n_recovered", _INT, "of n, above the threshold", minimum=0),
        Column("n_eff", _FLOAT, "effective n: weights (Kish) and clusters by galaxy", "", True, True, 0),
        Column("completeness", _FLOAT, "sum of w x recovered / sum of w", "", True, True, 0, 1),
        Column("completeness_low", _FLOAT, "lower end of the 95 % interval", "", True, True, 0, 1),
        Column("completeness_high", _FLOAT, "upper end of the 95 % interval", "", True, True, 0, 1),
        Column("reason", _TEXT, "why completeness or its interval is null", "", True),
    ),
)

CONTAMINANTS = TableContract(
    name="completeness/contaminants",
    meaning="False positives on test of each kind of negative: controls, rings, spirals, mergers, artefacts, fakes.",
    key=("operating_point", "lens_model", "role"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("lens_model", _TEXT, "what the label column says: CONTROL, RING, SPIRAL, MERGER, ..."),
        Column(
            "role", _TEXT, "what the row is for (control, unpaired_control, hard_ring, ...); empty where nobody says"
        ),
        *_FALSE,
    ),
)

COMPLETENESS_FIT = TableContract(
    name="completeness/fit",
    meaning="The smooth fit beside what was counted, along each of its axes and against each pair of them: what it leaves over.",
    key=("operating_point", "axis", "cell"),
    columns=(
        Column("operating_point", _TEXT, "name of the frozen threshold"),
        Column("axis", _TEXT, "axis of the fit, or two of them, e.g. theta_e_arcsec x psf_fwhm_used_r"),
        Column("cell", _TEXT, "bin, or one along each"),
        Column("low", _FLOAT, "lower edge along the first", "", True),
        Column("high", _FLOAT, "upper edge along the first", "", True),
        Column("unit", _TEXT, "of low and high"),
        Column("low_2", _FLOAT, "lower edge along the second; null of one axis", "", True),
        Column("high_2", _FLOAT, "upper edge along the second; null of one axis", "", True),
        Column("unit_2", _TEXT, "of both; null of one axis", "", True),
        Column("n", _INT, "injections that were fitted", minimum=0),
        Column("n_eff", _FLOAT, "effective n: weights (Kish) and clusters by galaxy", "", True, True, 0),
        Column("observed", _FLOAT, "their completeness", "", False, True, 0, 1),
        Column("fitted", _FLOAT, "weighted mean of the fit over them", "", False, True, 0, 1),
        Column("cross_validated", _FLOAT, "the same by fits that have not seen their galaxy", "", False, True, 0, 1),
        Column("residual", _FLOAT, "observed - cross_validated"),
        Column(
            "residual_sigma",
            _FLOAT,
            "over its standard error: root of (mean of p (1 - p), cross-validated, over n_eff); null where that can't be had",
            "",
            True,
        ),
    ),
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
        Column("cluster", _TEXT, "what the interval takes as independent: galaxy, or region where those know less"),
        Column("n_clusters", _INT, "how many of them", minimum=0),
        Column("interval", _TEXT, "how the interval was made, in words; null where there is none", "", True),
        Column("reason", _TEXT, "why something is null, or what the interval leaves out", "", True),
    ),
)
