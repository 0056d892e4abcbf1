"""Controls that nothing is paired with, against those that are: two sets of other galaxies, which a hash of their names parted.

Belongs here: what is compared of two sets, facts and sky. Pairs are in `pair_evidence.py`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.cutout_measures import SKY_BEYOND_ARCSEC, far_from
from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.pair_evidence import FACT_LEVEL, FALSE_ALARMS, facts_of, order_of
from lens_pipeline.survey.probe import Probed, unpaired_probe
from lens_pipeline.survey.roles import CONTROL_ROLE, UNPAIRED_CONTROL
from lens_pipeline.survey.stamp_features import Mask, stamp_features
from lens_pipeline.survey.stamp_pairs import PairReader, Row

_SKY_SHARE = 0.8
# Of each set, to say anything.
_LEAST = 20


@dataclass
class ControlSet:
    """What was seen of controls of one role."""

    features: list[Image] = field(default_factory=list)
    facts: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class LoneControls:
    """How unpaired controls differ from paired ones.

    Attributes
    ----------
    n_unpaired, n_paired : int
        Galaxies compared.
    facts : list of str
        Facts that the two have unlike.
    probed : Probed or None
        What a probe told apart in their sky; None where one of the sets has fewer than 20.
    """

    n_unpaired: int
    n_paired: int
    facts: list[str]
    probed: Probed | None


def compare_controls(stamps: Publication, most: int) -> LoneControls:
    """Compare at most so many galaxies of each set: facts by their ranks (Mann & Whitney 1947), skies by a probe."""
    reader = PairReader(stamps, most)
    sets = {UNPAIRED_CONTROL: ControlSet(), CONTROL_ROLE: ControlSet()}
    sky = _sky(reader)
    for row, blob in reader.rows():
        seen = sets.get(str(row.get("role")))
        if seen is not None and len(seen.features) < most:
            _take(seen, row, blob, reader, sky)
        if min(len(seen.features) for seen in sets.values()) >= most:
            break
    alone, paired = sets[UNPAIRED_CONTROL], sets[CONTROL_ROLE]
    probed = None
    if min(len(alone.features), len(paired.features)) >= _LEAST:
        probed, _ = unpaired_probe(np.array(alone.features), np.array(paired.features), false_alarms=FALSE_ALARMS)
    unlike = [
        f"{name} (of unpaired controls)"
        for name in sorted(alone.facts.keys() & paired.facts.keys())
        if _are_unlike(alone.facts[name], paired.facts[name])
    ]
    return LoneControls(len(alone.features), len(paired.features), unlike, probed)


def _take(seen: ControlSet, row: Row, blob: bytes, reader: PairReader, sky: Mask) -> None:
    stamp = decode_blob(blob, reader.contract)
    if isinstance(stamp, Stamp):
        for name, value in facts_of(row, blob, reader.contract).items():
            seen.facts.setdefault(name, []).append(value)
        seen.features.append(_features(stamp.pixels, sky))


def _features(pixels: NDArray[np.float32], sky: Mask) -> Image:
    """Features of a stamp on its own scale, and that scale."""
    level = np.median(pixels[:, sky], axis=1)
    spread = np.median(np.abs(pixels[:, sky] - level[:, None]), axis=1)
    return np.concatenate(
        [stamp_features(pixels[None], sky)[0], level, np.log(np.maximum(spread, np.finfo(float).tiny))]
    )


def _sky(reader: PairReader) -> Mask:
    size, scale = reader.contract.stamp_size, reader.contract.pixel_scale_arcsec
    return far_from(0, 0, size, min(SKY_BEYOND_ARCSEC / scale, _SKY_SHARE * size / 2))


def _are_unlike(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether ranks lean so far as chance lets them once in a million."""
    both = [order_of(value) for value in (*ours, *theirs)]
    places = {value: place for place, value in enumerate(sorted(set(both)))}
    ranks = [places[value] for value in both]
    if len(places) == 1 or min(len(ours), len(theirs)) < _LEAST:
        return False
    return bool(mannwhitneyu(ranks[: len(ours)], ranks[len(ours) :], method="asymptotic").pvalue < FACT_LEVEL)
