"""Controls of real galaxies, each held against the pixels that were published of its galaxy: they must be the same to the bit.

Belongs here: what a control and its cutout have unlike. How stamps differ from controls is asked in `pair_evidence.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.cutouts import CUTOUTS_FILE, open_cutouts
from lens_pipeline.survey.stamp_pairs import PairReader, Row, parents_of

_CHUNK = 512


@dataclass
class HeldControls:
    """What was seen of controls and cutouts.

    Attributes
    ----------
    n : int
        Controls that were held against their galaxy's cutout, paired or not.
    off : list of str
        Those that differ from it, with by how much.
    """

    n: int = 0
    off: list[str] = field(default_factory=list)


def hold_controls(stamps: Publication, parent: Publication) -> HeldControls | None:
    """Hold every control of the rows that are looked at against its galaxy's cutout; None where galaxies have none."""
    if CUTOUTS_FILE not in parent.manifest.files:
        return None
    cutouts = open_cutouts(parent.path(CUTOUTS_FILE))
    reader = PairReader(stamps, 0)
    controls = ((row, blob) for row, blob in reader.rows() if reader.is_control(row))
    held = HeldControls()
    for chunk in _chunks(controls):
        hosts = parents_of(parent, [row["galaxy_id"] for row, _ in chunk], ("cutout_row",))
        for row, blob in chunk:
            stamp = decode_blob(blob, reader.contract)
            place = hosts.get(str(row["galaxy_id"]), {}).get("cutout_row")
            cutout = None if place is None else cutouts[place]
            held.n += 1
            if wrong := _unlike(stamp.pixels if isinstance(stamp, Stamp) else None, cutout):
                held.off.append(f"{row['task_id']} ({wrong})")
    return held


def _chunks(rows: Iterator[tuple[Row, bytes]]) -> Iterator[list[tuple[Row, bytes]]]:
    while chunk := list(islice(rows, _CHUNK)):
        yield chunk


def _unlike(pixels: NDArray[np.float32] | None, cutout: NDArray[np.float32] | None) -> str:
    """Say what a control and its cutout have unlike; empty where they are the same."""
    if pixels is None or cutout is None:
        return "its pixels can't be decoded" if pixels is None else "its galaxy has no cutout"
    off = np.abs(pixels.astype(float) - cutout)
    return (
        f"{int((off > 0).sum()):,} of {off.size:,} pixels aren't its cutout's, by up to {off.max():.2g} nanomaggy"
        if off.any()
        else ""
    )
