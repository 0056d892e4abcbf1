"""How many galaxies of a parent sample from catalogues there are in a square degree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scipy.special import gammaincinv

_TAIL = 0.025
# They meet the cuts as the parents do, and stand on the same area.
_COUNTED = ("near_border", "known_lens")


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

    Those left out near a border and known lenses count: the area is whole bricks, and what was taken out of the sample isn't
    taken out of the sky. The interval is exact (Garwood 1936, Biometrika 28, 437).

    Parameters
    ----------
    facts : mapping
        What is published of the sample: `left_out`, by reason, and `area_deg2`, which is positive.
    """
    n, area = n_parents + sum(facts["left_out"].get(reason, 0) for reason in _COUNTED), facts["area_deg2"]
    low = float(gammaincinv(n, _TAIL)) if n else 0.0
    return Density(n / area, low / area, float(gammaincinv(n + 1, 1 - _TAIL)) / area, n)
