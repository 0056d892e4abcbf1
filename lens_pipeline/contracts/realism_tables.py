"""Tables of the realism report: what stamps are like, beside the sky and beside what was asked for."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()

REALISM = TableContract(
    name="realism_report",
    meaning="Every number of the realism report: one a line, with what it rests on, or with the reason why there is none.",
    key=("metric", "band", "of"),
    columns=(
        Column("metric", _TEXT, "name; docs/survey-realism.md says what each one is"),
        Column("band", _TEXT, "band that it is of; all where it is of no single one"),
        Column("of", _TEXT, "dataset that it is of; both where two are held against each other"),
        Column("value", _FLOAT, "null where undefined", "", True),
        Column("low", _FLOAT, "lower end of the 95 % interval", "", True),
        Column("high", _FLOAT, "upper end of the 95 % interval", "", True),
        Column("n", _INT, "galaxies that it rests on", minimum=0),
        Column(
            "n_eff",
            _FLOAT,
            "injections that those of these galaxies are worth by their weights (Kish); null where nothing is weighted",
            "",
            True,
            minimum=0,
        ),
        Column("unit", _TEXT, "unit of value"),
        Column("status", _TEXT, "ok or undefined"),
        Column("reason", _TEXT, "why there is no value or no interval", "", True),
    ),
)

REALISM_CURVES = TableContract(
    name="realism_report/curves",
    meaning="What the report's curves are drawn from: pixel histograms and power spectra of the noise, as means over galaxies.",
    key=("curve", "band", "of", "low_x"),
    columns=(
        Column("curve", _TEXT, "pixel_histogram (of the whole stamp) or noise_power (of its outer part)"),
        Column("band", _TEXT, "band"),
        Column("of", _TEXT, "dataset"),
        Column("low_x", _FLOAT, "lower edge: sigmas above the median, or cycles a pixel"),
        Column("high_x", _FLOAT, "upper edge"),
        Column("value", _FLOAT, "share of the pixels, or power over its mean over all frequencies"),
        Column(
            "low", _FLOAT, "lower end of the 95 % interval of the mean over galaxies; null for one galaxy", "", True
        ),
        Column("high", _FLOAT, "upper end", "", True),
        Column("n", _INT, "galaxies", minimum=0),
    ),
)
