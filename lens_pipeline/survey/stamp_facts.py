"""What a stamp says beside its pixels: its columns and its container's habits.

Belongs here: one stamp to named values, and the order these have. When two kinds of stamps differ in them is asked elsewhere.
"""

from typing import Any

import numpy as np

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.survey_tables import NULL_ON_CONTROL
from lens_pipeline.survey.npz_facts import npz_facts
from lens_pipeline.survey.stamp_pairs import Row

# Of a fact: chance that an even coin would lean as much; some 40 facts are looked at.
FACT_LEVEL = 1e-6
# What differs between a stamp and its control by what they are.
LABELS = NULL_ON_CONTROL | {"task_id", "lens_model", "role", "is_control", "theta_e_arcsec", "weight"}


def facts_of(row: Row, blob: bytes, contract: DatasetContract) -> dict[str, Any]:
    """Every column that isn't about what a stamp is, and every header field of its blob.

    A null is a value as any other: a column that one kind of stamps lacks tells it as surely as a number. So is a NaN, which some
    writers put for it.
    """
    facts = {**row, **npz_facts(blob, contract.members)}
    return {name: _null_for_nan(value) for name, value in facts.items() if name not in LABELS}


def order_of(value: Any) -> tuple[float, str]:
    """Return what values of a column, numbers or not, are ordered by; a null comes before all others."""
    if value is None:
        return -np.inf, ""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _null_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and np.isnan(value) else value
