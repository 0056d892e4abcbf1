"""Controls that nothing is paired with, against those that are: two sets of other galaxies, which a hash of their names parted.

Belongs here: what is compared of two sets, facts and pixels. What is measured of each is in `control_features.py`; pairs are in
`pair_evidence.py`, and controls of real galaxies are held against their own cutouts in `own_pixels.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.control_features import catalogue_columns, control_feature_names, control_features
from lens_pipeline.survey.npz_facts import HEADER_FACTS
from lens_pipeline.survey.optics import Image
from lens_pipeline.survey.pair_evidence import FALSE_ALARMS
from lens_pipeline.survey.probe import Probed, unpaired_probe
from lens_pipeline.survey.roles import CONTROL_ROLE, UNPAIRED_CONTROL
from lens_pipeline.survey.stamp_facts import FACT_LEVEL, facts_of, order_of
from lens_pipeline.survey.stamp_pairs import PairReader, Row, parents_of

# Of each set, to say anything.
LEAST_TO_COMPARE = 20
_CHUNK = 256


@dataclass
class ControlSet:
    """What was seen of controls of one role."""

    features: list[Image] = field(default_factory=list)
    facts: dict[str, list[Any]] = field(default_factory=dict)

    def take(self, row: Row, blob: bytes, host: Row, contract: DatasetContract) -> None:
        """Take down the facts and features of a control, if it can be decoded."""
        stamp = decode_blob(blob, contract)
        if isinstance(stamp, Stamp):
            for name, value in facts_of(row, blob, contract).items():
                self.facts.setdefault(name, []).append(value)
            self.features.append(control_features(stamp.pixels, host, contract))


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
        What a probe told apart in their pixels; None where one of the sets has fewer than 20.
    names : tuple of str
        Of the probe's features.
    """

    n_unpaired: int
    n_paired: int
    facts: list[str]
    probed: Probed | None
    names: tuple[str, ...]


def compare_controls(stamps: Publication, parent: Publication, most: int) -> LoneControls:
    """Compare at most so many galaxies of each set: facts by their ranks (Mann & Whitney 1947), pixels by a probe.

    Header fields of stamps that were made here come from one writer: a value that one set alone has is unlike, be they few.
    """
    is_own = Source(stamps.attributes["source"]) is not Source.external_stamps
    reader = PairReader(stamps, most)
    bands = reader.contract.bands
    sets = {UNPAIRED_CONTROL: ControlSet(), CONTROL_ROLE: ControlSet()}
    alone, paired = sets.values()
    rows = ((row, blob) for row, blob in reader.rows() if row.get("role") in sets)
    while min(len(alone.features), len(paired.features)) < most and (chunk := list(islice(rows, _CHUNK))):
        hosts = parents_of(parent, [row.get("galaxy_id") for row, _ in chunk], catalogue_columns(bands))
        for row, blob in chunk:
            if len(sets[row["role"]].features) < most:
                sets[row["role"]].take(row, blob, hosts.get(str(row.get("galaxy_id")), {}), reader.contract)
    probed = None
    if min(len(alone.features), len(paired.features)) >= LEAST_TO_COMPARE:
        probed, _ = unpaired_probe(np.array(alone.features), np.array(paired.features), false_alarms=FALSE_ALARMS)
    unlike = [
        f"{name} (of unpaired controls)"
        for name in sorted(alone.facts.keys() & paired.facts.keys())
        if _are_unlike(alone.facts[name], paired.facts[name])
        or (is_own and name.startswith(HEADER_FACTS) and set(alone.facts[name]) != set(paired.facts[name]))
    ]
    return LoneControls(len(alone.features), len(paired.features), unlike, probed, control_feature_names(bands))


def _are_unlike(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    """Whether ranks lean so far as chance lets them once in a million."""
    both = [order_of(value) for value in (*ours, *theirs)]
    places = {value: place for place, value in enumerate(sorted(set(both)))}
    ranks = [places[value] for value in both]
    if len(places) == 1 or min(len(ours), len(theirs)) < LEAST_TO_COMPARE:
        return False
    return bool(mannwhitneyu(ranks[: len(ours)], ranks[len(ours) :], method="asymptotic").pvalue < FACT_LEVEL)
