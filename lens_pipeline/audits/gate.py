"""One question asked of the data or of a model, as a row of SHORTCUT_GATES."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum

import pyarrow as pa

from lens_pipeline.contracts.catalogue import SHORTCUT_GATES


class Kind(StrEnum):
    """What a question is for."""

    gate = "gate"
    baseline = "baseline"
    counterfactual = "counterfactual"
    path = "path"


class Status(StrEnum):
    """How it was answered; `undecided` and `not_measured` are never a pass."""

    ok = "ok"
    red = "red"
    undecided = "undecided"
    not_measured = "not_measured"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One row of SHORTCUT_GATES, whose columns say what each field means."""

    name: str
    kind: Kind
    of: str
    unit: str
    status: Status
    value: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    limit: float | None = None
    n_positives: int = 0
    n_negatives: int = 0
    n_galaxies: int = 0
    reason: str | None = None
    stands_from: str | None = None


def gate_table(gates: Iterable[Gate]) -> pa.Table:
    """SHORTCUT_GATES of these rows."""
    return pa.Table.from_pylist([asdict(gate) for gate in gates], schema=SHORTCUT_GATES.schema)
