"""How many galaxies of a parent sample from catalogues there are in a square degree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.special import gammaincinv

_TAIL = 0.025
# Reasons of rows that are no galaxy of this area, or one that is counted already. All others meet the cuts as the parents do.
_NO_GALAXY = frozenset({"no_identity", "no_position", "not_primary", "repeated"})


@dataclass(frozen=True)
class Density:
    """Galaxies per square degree with a 95 % Poisson interval, and how many were counted."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.low:.4g} to {self.high:.4g}, 95 % Poisson interval of {self.n:,} galaxies; clustering adds to it"


def galaxy_density(n_parents: int, facts: Mapping[str, Any]) -> Density:
    """Density of galaxies that meet the cuts, over the area of the bricks that were read.

    Those left out near a border, known lenses and those that no image shows count: the area is whole bricks, and what was
    taken out of the sample isn't taken out of the sky. The interval is exact (Garwood 1936, Biometrika 28, 437).

    Parameters
    ----------
    facts : mapping
        What is published of the sample: `left_out`, by reason, and `area_deg2`, which is positive.
    """
    n = n_parents + sum(number for reason, number in facts["left_out"].items() if reason not in _NO_GALAXY)
    area = facts["area_deg2"]
    low = float(gammaincinv(n, _TAIL)) if n else 0.0
    return Density(n / area, low / area, float(gammaincinv(n + 1, 1 - _TAIL)) / area, n)
