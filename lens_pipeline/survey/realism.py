"""The realism report: tables, two figures and one page that says how a dataset's stamps compare with the sky.

Belongs here: putting measures (`realism_measures.py`) into what is published. What they find is never red: a simulation differs
from the sky, and how much it may is for a person to say.
"""

import base64
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lens_pipeline.contracts.catalogue import REALISM, REALISM_CURVES
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.realism_arcs import arc_lines
from lens_pipeline.survey.realism_config import RealismConfig
from lens_pipeline.survey.realism_measures import (
    Sample,
    curves,
    noise_lines,
    probe_lines,
    psf_lines,
    rows_without_number,
)
from lens_pipeline.survey.realism_plots import curves_png, stamps_png
from lens_pipeline.survey.stamp_pairs import Row

PAGE, CURVES_TABLE = "report.html", "curves"
_TEMPLATE = "realism.html.j2"
_MEANINGS = {
    "probe_background": "A linear probe tells the two datasets' outer pixels apart: its AUROC, 0.5 is chance",
    "probe_whole_stamp": "The same of whole controls",
    "noise_sigma": "Noise of a pixel, from the MAD of a stamp's outer part",
    "noise_correlation": "Correlation of the noise of neighbouring pixels along a row",
    "noise_skewness": "Skewness of the noise, values drawn in to 4 sigma",
    "share_beyond_4_sigma": "Pixels of the outer part beyond 4 sigma: neighbours, mostly",
    "psf_width": "FWHM of the kernel used over the catalogue's seeing",
    "psf_peak_residual": "Greatest error of the kernel's star in a pixel, over its brightest pixel",
    "psf_energy_residual": "Error of the flux within one FWHM",
}


@dataclass(frozen=True)
class RealismResult:
    """What was written.

    Attributes
    ----------
    lines : list of dict
        REALISM.
    images : dict
        PNG bytes: curves, stamps.
    """

    lines: list[Row]
    images: dict[str, bytes]


def build_realism(
    config: RealismConfig, stamps: Publication, parent: Publication, other: Publication | None, staging: Staging
) -> RealismResult:
    """Measure, draw and write the report.

    Parameters
    ----------
    other : Publication or None
        Stamps of the dataset that `config.compare_with` names.

    Raises
    ------
    ConfigError
        If that is the same dataset.
    """
    if other is not None and other.dataset == stamps.dataset:
        raise ConfigError(
            f"realism_report.compare_with names {other.dataset}, the dataset that the report is about. Name another one, of real "
            "galaxies, or leave it empty."
        )
    ours = Sample.of(stamps, config.most_galaxies)
    theirs = None if other is None else Sample.of(other, config.most_galaxies)
    samples = [sample for sample in (ours, theirs) if sample is not None]
    lines = [*probe_lines(ours, theirs), *(line for sample in samples for line in noise_lines(sample))]
    lines += [*arc_lines(ours, config), *psf_lines(ours, parent)]
    drawn = [line for sample in samples for line in curves(sample)]
    staging.write_table(None, pa.Table.from_pylist(lines, schema=REALISM.schema), REALISM)
    staging.write_table(CURVES_TABLE, pa.Table.from_pylist(drawn, schema=REALISM_CURVES.schema), REALISM_CURVES)
    staging.attributes["compared_with"] = (
        None if other is None else {"dataset": other.dataset, "version": other.version}
    )
    images = {"curves": curves_png(drawn, lines, ours.name), "stamps": stamps_png(samples)}
    staging.attributes["injections"] = len(ours.injections)
    staging.write_bytes(PAGE, _page(config, stamps, other, lines, images, len(ours.injections)).encode())
    return RealismResult(lines, images)


def realism_is_complete(result: RealismResult) -> Check:
    """Red where a number has no n and no interval, and nothing says why."""
    name = "realism_is_complete"
    if silent := rows_without_number(result.lines):
        return red(
            name,
            f"{len(silent)} of {len(result.lines)} lines have neither a number with its interval nor a reason",
            wrong=silent,
            why="A number without its interval says more than the data.",
            next_step="mend the line in lens_pipeline/survey/realism_measures.py and materialize realism_report again.",
        )
    known = sum(row["value"] is not None for row in result.lines)
    return green(
        name, f"{known} numbers with n and interval, {len(result.lines) - known} without, each with its reason"
    )


def _page(
    config: RealismConfig,
    stamps: Publication,
    other: Publication | None,
    lines: list[Row],
    images: dict[str, bytes],
    n_injections: int,
) -> str:
    # Imported when it is used: every rendering process loads this package.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number_words
    return environment.get_template(_TEMPLATE).render(
        stamps=stamps,
        other=other,
        lines=lines,
        n_injections=n_injections,
        meanings=_MEANINGS,
        reference=config.arc_reference,
        reference_source=config.arc_reference_source,
        images={name: "data:image/png;base64," + base64.b64encode(png).decode() for name, png in images.items()},
    )


def number_words(row: Row) -> str:
    """Write a line's number with its interval."""
    if row["value"] is None:
        return "—"
    if row["low"] is None:
        return f"{row['value']:.4g}"
    return f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"
