"""Tables of operating points and of calibration. `catalogue` has all tables."""

from dataclasses import replace

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()

OPERATING_POINT = TableContract(
    name="operating_point",
    meaning="Thresholds fitted on val_calibrate and frozen; a row is recovered where logit > threshold.",
    key=("operating_point",),
    columns=(
        Column("operating_point", _TEXT, "name, e.g. fpr_1e-02, contamination_5e-01 or highest_control"),
        Column("target_fpr", _FLOAT, "false-positive rate aimed at; null where another thing is", "", True, True, 0, 1),
        Column(
            "max_contamination",
            _FLOAT,
            "largest share of candidates that may be no lenses, at the survey's prevalence; null where another thing is aimed at",
            "",
            True,
            True,
            0,
            1,
        ),
        Column("threshold", _FLOAT, "logit; null where unresolved", "", True),
        Column(
            "n_negatives",
            _INT,
            "distinct negatives in val_calibrate: identical repeats count once; of a contamination, galaxies as the survey has "
            "them alone, here and in what follows",
            minimum=0,
        ),
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
        Column("reason", _TEXT, "why it is unresolved or only a bound, or what its interval leaves out", "", True),
    ),
)

MATCHED_FILTER_POINT = replace(
    OPERATING_POINT,
    name="operating_point/matched_filter",
    meaning="The same targets for the classical finder of scores/matched_filter, fitted on the same rows and frozen: threshold "
    "and n_distinct are of its signal-to-noise, not of logits.",
)


_TO_THE_SURVEYS = ", which reaches to as many lenses among controls as in the survey, but for simulated galaxies"


def _fraction(name: str, meaning: str, reach: str = "") -> tuple[Column, Column, Column]:
    ends = (f"{name}_low", f"lower end of its 95 % interval{reach}"), (f"{name}_high", "upper end")
    return (
        Column(name, _FLOAT, meaning, "", True, True, 0, 1),
        *(Column(end, _FLOAT, words, "", True, True, 0, 1) for end, words in ends),
    )  # type: ignore[return-value]


def _per_deg2(name: str, meaning: str, reach: str = "") -> tuple[Column, Column, Column]:
    ends = (f"{name}_low", f"lower end of its 95 % interval{reach}"), (f"{name}_high", "upper end")
    return (
        Column(name, _FLOAT, meaning, "deg^-2", True, True, 0),
        *(Column(end, _FLOAT, words, "deg^-2", True, True, 0) for end, words in ends),
    )  # type: ignore[return-value]


BY_NEGATIVES = TableContract(
    name="operating_point/by_negatives",
    meaning="Of paired and of unpaired controls: the rate that each kind has at the frozen threshold, and the threshold that it "
    "alone would have had. Of a contamination, every number counts galaxies as the survey has them alone.",
    key=("operating_point", "negatives"),
    columns=(
        Column("operating_point", _TEXT, "name, as in operating_point"),
        Column(
            "negatives", _TEXT, "paired controls (their galaxy has an injection in val_calibrate) or unpaired controls"
        ),
        Column("n_negatives", _INT, "distinct controls of this kind that the rates are of", minimum=0),
        Column("n_galaxies", _INT, "galaxies that they are of", minimum=0),
        *_fraction("fpr", "share of them above the frozen threshold"),
        Column("own_threshold", _FLOAT, "logit fitted on this kind alone; null where unresolved", "", True),
        *_fraction("own_fpr", "share of them above their own threshold"),
        Column("status", _TEXT, "of the own threshold: resolved, unresolved or bound"),
        Column("reason", _TEXT, "why it is unresolved or only a bound, or a rate is null", "", True),
    ),
)

SURVEY_YIELD = TableContract(
    name="operating_point/survey_yield",
    meaning="What each frozen threshold would give in the survey, at the prevalence that the attributes name; measured on "
    "val_calibrate.",
    key=("operating_point",),
    columns=(
        Column("operating_point", _TEXT, "name, as in operating_point; those that have a threshold"),
        *_fraction("recall", "share of injections above the threshold, weighted as the population has them"),
        *_fraction("fpr", "share of distinct controls above it, of galaxies as the survey has them"),
        *_fraction(
            "purity",
            "share of lenses among candidates if no control is a lens; null where only an end of its interval is known",
            _TO_THE_SURVEYS,
        ),
        *_per_deg2("galaxies_per_deg2", "galaxies of the parent sample per square degree"),
        *_per_deg2("candidates_per_deg2", "of these above the threshold if no control is a lens", _TO_THE_SURVEYS),
        Column(
            "lens_floor_high",
            _FLOAT,
            "the most that lenses nobody has found yet may add to fpr: upper ends of prevalence and recall multiplied; 0 where "
            "galaxies are simulated",
            "",
            True,
            True,
            0,
            1,
        ),
        Column(
            "true_fpr_low",
            _FLOAT,
            "lower bound to the rate of galaxies that are no lenses, if as many controls are lenses as may be; if none is, its "
            "upper bound is fpr_high",
            "",
            True,
            True,
            0,
            1,
        ),
        Column("reason", _TEXT, "why something is null, and what lenses among controls leave open", "", True),
    ),
)

CALIBRATION = TableContract(
    name="operating_point/calibration",
    meaning="Each way to make a probability of a logit, judged on val_calibrate by cross-validation over its galaxies, both "
    "classes weighing the same; the chosen one, fitted on all of val_calibrate, is in calibration.json.",
    key=("method",),
    columns=(
        Column("method", _TEXT, "uncalibrated, temperature, beta or isotonic"),
        Column("chosen", _BOOL, "whether p_lens is made by it"),
        Column("n_lenses", _INT, "injections of val_calibrate", minimum=0),
        Column("n_controls", _INT, "its distinct controls", minimum=0),
        Column("n_galaxies", _INT, "galaxies that they are of", minimum=0),
        Column(
            "n_folds", _INT, "folds that the galaxies were dealt into; null where they are too few", "", True, True, 2
        ),
        Column("log_loss", _FLOAT, "mean of -log of the probability of the true class, at even odds", "nats", True),
        Column("log_loss_low", _FLOAT, "lower end of the 95 % interval, over galaxies or regions", "nats", True),
        Column("log_loss_high", _FLOAT, "upper end", "nats", True),
        Column("brier", _FLOAT, "mean squared error of the probability at even odds", "", True, True, 0, 1),
        Column("brier_low", _FLOAT, "lower end of the 95 % interval, over galaxies or regions", "", True, True, 0),
        Column("brier_high", _FLOAT, "upper end", "", True, True, 0),
        Column(
            "gain",
            _FLOAT,
            "log loss of the uncalibrated score minus this one, row by row; null for itself",
            "nats",
            True,
        ),
        Column("gain_low", _FLOAT, "lower end of its 95 % interval: above 0 the calibration helps", "nats", True),
        Column("gain_high", _FLOAT, "upper end", "nats", True),
        Column("reason", _TEXT, "why something is null, or what the intervals leave out", "", True),
    ),
)


def _reliability(name: str, meaning: str) -> TableContract:
    return TableContract(
        name=name,
        meaning=meaning,
        key=("method", "bin"),
        columns=(
            Column("method", _TEXT, "uncalibrated, or the chosen one"),
            Column("bin", _INT, "bins of equal weight, from the lowest probability", minimum=0),
            Column("p_low", _FLOAT, "lowest probability in the bin, at even odds", "", minimum=0, maximum=1),
            Column("p_high", _FLOAT, "highest", "", minimum=0, maximum=1),
            Column("p_mean", _FLOAT, "mean probability in the bin", "", minimum=0, maximum=1),
            Column("observed", _FLOAT, "share of lenses in the bin, at even odds", "", True, True, 0, 1),
            Column("low", _FLOAT, "lower end of its 95 % interval, galaxies as clusters", "", True, True, 0, 1),
            Column("high", _FLOAT, "upper end", "", True, True, 0, 1),
            Column("n", _INT, "rows in the bin; those of weight 0 are in none", minimum=0),
            Column("n_lenses", _INT, "injections among them", minimum=0),
            Column("n_galaxies", _INT, "galaxies that they are of", minimum=0),
            Column("n_eff", _FLOAT, "effective n: weights (Kish) and clusters by galaxy", "", True, True, 0),
            Column("reason", _TEXT, "why the interval is null", "", True),
        ),
    )


CALIBRATION_RELIABILITY = _reliability(
    "operating_point/reliability",
    "Stated probability against the share of lenses found, on val_calibrate, each row by a fit without its galaxy's fold; both "
    "classes weigh the same.",
)

TEST_RELIABILITY = _reliability(
    "evaluation_report/reliability",
    "As operating_point/reliability, on test, by the frozen calibration.",
)

P_LENS = TableContract(
    name="evaluation_report/p_lens",
    meaning="The calibrated probability of each row of test.",
    key=("task_id",),
    columns=(
        Column("task_id", _TEXT, "key of the row"),
        Column("label", pa.int8(), "place of the row's class in the dataset contract", minimum=0),
        Column("logit", _FLOAT, "raw score"),
        Column(
            "log_likelihood_ratio",
            _FLOAT,
            "log of how much likelier the score is for a lens than for a control",
            "nats",
        ),
        Column(
            "p_lens",
            _FLOAT,
            "probability of a lens at the prevalence that the attributes name (p_lens_prevalence); null where the calibration "
            "was fitted on fewer than 20 galaxies of a class",
            "",
            True,
            minimum=0,
            maximum=1,
        ),
        Column(
            "extrapolated",
            _BOOL,
            "whether val_calibrate has one class only at such a score, so that p_lens rests on the shape of the curve",
        ),
        Column("p_lens_reason", _TEXT, "why p_lens is null; null where it isn't", "", True),
    ),
)


def _top_controls(name: str, split: str) -> TableContract:
    return TableContract(
        name=name,
        meaning=f"The distinct controls of {split} with the highest scores, to be looked at: a lens that nobody has found yet "
        "would stand here, and counts as a false positive.",
        key=("rank",),
        columns=(
            Column("rank", _INT, "1 is the highest score", minimum=1),
            Column("task_id", _TEXT, "key of the row"),
            Column("galaxy_id", _TEXT, "name of the galaxy"),
            Column("ra", _FLOAT, "right ascension, ICRS; null where the store has none", "deg", True, True, 0, 360),
            Column("dec", _FLOAT, "declination, ICRS; null where the store has none", "deg", True, True, -90, 90),
            Column("lens_model", _TEXT, "CONTROL, or what was put there that is no lens"),
            Column("logit", _FLOAT, "raw score"),
            Column(
                "p_lens",
                _FLOAT,
                "probability of a lens at the prevalence that the attributes name; null where the calibration was fitted on "
                "fewer than 20 galaxies of a class",
                "",
                True,
                True,
                0,
                1,
            ),
            Column("extrapolated", _BOOL, "whether p_lens rests on the shape of the calibration's curve alone"),
            Column("above", _TEXT, "operating points that it lies above; null if none", "", True),
        ),
    )


TOP_CONTROLS = _top_controls("operating_point/top_controls", "val_calibrate")

TEST_TOP_CONTROLS = _top_controls("evaluation_report/top_controls", "test")
