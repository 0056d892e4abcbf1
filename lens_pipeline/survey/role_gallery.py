"""A picture of every role that a manifest has: injections, fakes, hard negatives and controls, paired or not, side by side.

Belongs here: which stamps are shown of a role, and in which order. Injections beside their own controls are in `gallery.py`.
"""

from typing import Any

import numpy as np

from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.gallery import GAP, PANEL, colour, figure_png, middle, shown_of
from lens_pipeline.survey.roles import CONTROL_ROLE, FAKES, HARD_NEGATIVES, INJECTION, UNPAIRED_CONTROL
from lens_pipeline.survey.stamp_pairs import PairReader, Row

ORDER = (INJECTION, *FAKES, *HARD_NEGATIVES, CONTROL_ROLE, UNPAIRED_CONTROL)
SHOWN = 4
# Stamps of a role that are looked at, of which those are shown that step evenly from its brightest light to its faintest.
_CANDIDATES = 40
_TOP, _BELOW, _DPI = 30, 14, 100


def roles_png(stamps: Publication, manifest: Publication) -> bytes | None:
    """Draw a column a role, four stamps each on one colour scale; None where injections and their controls are all there is.

    Under each stamp stands the r magnitude of what was added to it: of an unlensed source, which an arc's magnification makes
    brighter, and of a ring, arms or companion. A stamp that can't be decoded is left blank.
    """
    from matplotlib.figure import Figure

    counts: dict[str, int] = manifest.attributes.get("roles", {})
    roles = [role for role in ORDER if role in counts]
    if set(roles) <= {INJECTION, CONTROL_ROLE}:
        return None
    reader = PairReader(stamps, 0)
    chosen = _chosen(reader, {role: min(counts[role], _CANDIDATES) for role in roles})
    shown = shown_of(reader.contract.stamp_size)
    side = shown * max(1, PANEL // shown)
    width, height = len(roles) * (side + GAP) + GAP, _TOP + SHOWN * (side + _BELOW)
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    for column, role in enumerate(roles):
        left = GAP + column * (side + GAP)
        title = f"{role}\n{counts[role]:,} in all"
        figure.text((left + side / 2) / width, 1 - 2 / height, title, fontsize=6.5, ha="center", va="top")
        for line, (row, blob) in enumerate(chosen[role]):
            bottom = (SHOWN - 1 - line) * (side + _BELOW) + _BELOW
            axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel("" if (mag := _magnitude(row)) is None else f"r {mag:.1f}", fontsize=6.5, labelpad=1)
            stamp = decode_blob(blob, reader.contract)
            if isinstance(stamp, Stamp):
                axes.imshow(colour(middle(stamp.pixels, shown)), origin="lower", interpolation="nearest")
    return figure_png(figure)


def _chosen(reader: PairReader, wanted: dict[str, int]) -> dict[str, list[tuple[Row, bytes]]]:
    """Choose stamps of each role from the first so many of it, brightest first."""
    found: dict[str, list[tuple[Row, bytes]]] = {role: [] for role in wanted}
    for row, blob in reader.rows():
        mine = found.get(row["role"])
        if mine is not None and len(mine) < wanted[row["role"]]:
            mine.append((row, blob))
        if all(len(found[role]) >= n for role, n in wanted.items()):
            break
    return {role: _stepping(rows) for role, rows in found.items()}


def _stepping(rows: list[tuple[Row, bytes]]) -> list[tuple[Row, bytes]]:
    rows = sorted(rows, key=lambda pair: _magnitude(pair[0]) or 0.0)
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int))]


def _magnitude(row: dict[str, Any]) -> float | None:
    """Magnitude in r of what was added to a stamp; None where nothing was."""
    light = row.get("feature") or row.get("twin") or row
    known: float | None = light.get("mag_r", light.get("src_mag_r"))
    return known
