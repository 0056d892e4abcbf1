"""What was injected into a dataset, in numbers: of the population that injections stand for, and of what was drawn.

Belongs here: a sample of published stamps to lines of the table REALISM, and which quantities these are of. A design may draw
wide or bright lenses more often than there are; a row's weight, population over proposal density, undoes that. So a published
distribution of lenses is held against the weighted rows; what was drawn is said beside, of the design alone.
"""

import numpy as np

from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB
from lens_pipeline.survey.clustered import Clustered
from lens_pipeline.survey.realism_config import ARC_QUANTITIES, RealismConfig
from lens_pipeline.survey.realism_measures import ALL, Sample, line
from lens_pipeline.survey.stamp_pairs import Row, galaxy_of, source_mag

PERCENTILES = (16, 50, 84)
_UNITS = {"g_r": "mag", "r_z": "mag", "src_mag_r": "mag", "arc_mag_r": "mag"}


def arc_lines(sample: Sample, config: RealismConfig) -> list[Row]:
    """Percentiles of each quantity, weighted and as drawn, and the population's share in the reference's middle 68 %."""
    lines: list[Row] = []
    for quantity in ARC_QUANTITIES:
        unit = _UNITS.get(quantity, "arcsec")
        population, drawn = (_rows(sample, quantity, weighted=weighted) for weighted in (True, False))
        for name, rows in ((quantity, population), (f"{quantity}_drawn", drawn)):
            n_eff = None if rows is None or rows is drawn else rows.n_eff
            n, why = _rests_on(rows, drawn)
            for percentile in PERCENTILES:
                found = None if rows is None else rows.percentile(percentile)
                lines.append(line(f"{name}_percentile_{percentile}", ALL, sample.name, unit, found, n, why, n_eff))
        if (reference := config.arc_reference.get(quantity)) is not None and population is not None:
            values, (n, why) = population.values, _rests_on(population, drawn)
            share = population.share((values >= reference[0]) & (values <= reference[2]))
            name = f"{quantity}_share_within_reference"
            lines.append(line(name, ALL, sample.name, "", share, n, why, population.n_eff))
    if not config.arc_reference:
        why = "realism_report.arc_reference is empty: no published distribution was given to hold arcs against"
        lines.append(line("share_within_reference", ALL, sample.name, "", None, 0, why))
    return lines


def arc_quantity(row: Row, quantity: str) -> float | None:
    """Return a quantity of an injection: its column, a colour of its source, or its whole arc's magnitude; finite or None."""
    if quantity == "src_mag_r":
        return source_mag(row, "r")
    if quantity in ("g_r", "r_z"):
        blue, red = (source_mag(row, band) for band in quantity.split("_"))
        return None if blue is None or red is None else blue - red
    if quantity == "arc_mag_r":
        flux = row.get("total_injected_flux_r")
        return None if flux is None or not 0 < flux < np.inf else float(NANOMAGGY_ZERO_POINT_AB - 2.5 * np.log10(flux))
    value = row.get(quantity)
    return value if value is not None and np.isfinite(value) else None


def _rows(sample: Sample, quantity: str, *, weighted: bool) -> Clustered | None:
    """Gather the injections that have a quantity, and a weight above 0 where weights count."""
    known = [
        (value, galaxy_of(row), weight)
        for row in sample.injections
        if (value := arc_quantity(row, quantity)) is not None and (weight := _weight(row) if weighted else 1.0) > 0
    ]
    if not known:
        return None
    values, galaxies, weights = zip(*known, strict=True)
    _, numbers = np.unique(galaxies, return_inverse=True)
    return Clustered(np.array(values, float), numbers, np.array(weights, float))


def _weight(row: Row) -> float:
    """Return the weight of a row; that of a survey's own rows, which may lack it, is 1 then."""
    known = row.get("weight")
    return 1.0 if known is None else float(known)


def _rests_on(rows: Clustered | None, drawn: Clustered | None) -> tuple[int, str]:
    """Count the galaxies that a line rests on, and say why it has no number or no interval."""
    if rows is None:
        return 0, "no injection has it" if drawn is None else "no injection that has it weighs anything"
    n = rows.n_galaxies
    return n, "one galaxy has no interval" if n == 1 else ""
