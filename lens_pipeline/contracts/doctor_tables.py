"""Table of the doctor: what each check of each asset says of what is published now. `catalogue` has all tables."""

import pyarrow as pa

from lens_pipeline.contracts.tables import Column, TableContract

_TEXT, _INT = pa.string(), pa.int64()

DOCTOR = TableContract(
    name="doctor",
    meaning="One row a check of what is published: whether it may be used, and what to do where it may not.",
    key=("asset", "check"),
    columns=(
        Column("asset", _TEXT, "asset that it is about"),
        Column(
            "check",
            _TEXT,
            "a check of that asset, or is_published, newest_passed, inputs_are_current or checks_were_run",
        ),
        Column("version", _TEXT, "version that was looked at; null where there is none", "", True),
        Column("status", _TEXT, "go, look (a finding that blocks nothing) or no_go"),
        Column("what", _TEXT, "what was found"),
        Column("count", _INT, "how many are wrong", minimum=0),
        Column("why", _TEXT, "cause or consequence; empty where it is go"),
        Column("next_step", _TEXT, "what to do or type next; empty where it is go"),
    ),
)
