"""What a diagnosis answers: a cause, a verdict, and the sentences that it rests on."""

from dataclasses import dataclass
from enum import StrEnum

SATURATION, COLLAPSE, OVERFITTING, PREFIX = (
    "saturation ties",
    "ranking collapse",
    "overfitting",
    "prefix evaluation",
)


class Verdict(StrEnum):
    """Answer to whether a cause is at work."""

    found = "found"
    suspected = "suspected"
    not_found = "not found"
    unknown = "can't be told"


@dataclass(frozen=True)
class Finding:
    """One cause, the answer, and the sentences that it rests on."""

    cause: str
    verdict: Verdict
    evidence: tuple[str, ...]
