"""What is seen of pairs of one kind: how a stamp and the control of its galaxy differ, pair by pair, and what that adds up to.

Belongs here: what is compared in a pair. When an answer is red, and in which words, is in `fingerprints.py`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.survey.arc_reach import View, needed_columns, outside_arc
from lens_pipeline.survey.cutout_measures import sky_noise
from lens_pipeline.survey.fake_reach import outside_fake, outside_feature
from lens_pipeline.survey.half_features import Agreement, agreement, half_products
from lens_pipeline.survey.probe import Probed, paired_probe
from lens_pipeline.survey.shared_pixels import (
    OFF_SIGMA,
    bad_off,
    injected_light,
    light_off,
    pixels_off,
    spread_beyond,
)
from lens_pipeline.survey.stamp_facts import FACT_LEVEL, facts_of, order_of
from lens_pipeline.survey.stamp_features import Mask, stamp_features
from lens_pipeline.survey.stamp_pairs import Kind, Row, StampPair

# Of each question that is asked of pixels: one clean data set in two thousand.
FALSE_ALARMS = 5e-4
# Below the first number of galaxies a probe's interval isn't to be trusted, below the second it is too wide to call green.
LEAST_TO_PROBE, LEAST_TO_DECIDE = 20, 50
# Light that leaves less of the stamp than this dark says too little.
_LEAST_OUTSIDE = 0.1


@dataclass
class Evidence:
    """What was seen of one kind of pairs.

    Attributes
    ----------
    contract : DatasetContract
        Of the stamps.
    shared : bool or None
        Whether a stamp and its control have a real cutout's pixels in common; None where the pixels tell.
    of : int
        Stamps of this kind among the rows that were looked at.
    n_unusable : int
        Pairs that couldn't be read.
    left_out : str or None
        Of which of a user's own files nothing could be asked.
    n : int
        Galaxies that pairs were read of.
    n_pairs : int
        Pairs that were read.
    n_facts : int
        Of these, those whose facts were compared.
    n_hidden : int
        Pairs whose pixels weren't: their light fills the stamp, or isn't known.
    n_shared : int
        Pairs whose pixels were held against each other one by one.
    leaning : dict
        Fact to how often the first and how often the control had more of it.
    balance : dict
        Band to how often a stamp had more light than its control and the arc, less, and neither.
    off : list
        Of what must be equal, or right to its noise: the rows that aren't, with by how much.
    differences, products : list
        Of each galaxy, for `paired_probe` and for `agreement`.
    """

    kind: Kind
    contract: DatasetContract
    shared: bool | None
    of: int = 0
    n_unusable: int = 0
    left_out: str | None = None
    n: int = 0
    n_pairs: int = 0
    n_facts: int = 0
    n_hidden: int = 0
    n_shared: int = 0
    leaning: dict[str, list[int]] = field(default_factory=dict)
    balance: dict[str, list[int]] = field(default_factory=dict)
    off: list[str] = field(default_factory=list)
    differences: list[NDArray[np.float64]] = field(default_factory=list)
    products: list[NDArray[np.float64]] = field(default_factory=list)

    def take(self, pair: StampPair, host: Row, psf: NDArray[np.float32] | None, bad: NDArray[np.bool_] | None) -> None:
        """Take down how the two of a pair differ.

        Where pixels have noise of their own, and in facts, only the stamp that stands for its galaxy says something that no
        other of that galaxy has said; pixels that must be equal are looked at in every stamp.

        Parameters
        ----------
        host : dict
            What the parent sample says of the galaxy.
        psf, bad : arrays or None
            Images of its PSFs, and its pixels that saw no light, where these are known.
        """
        self.n_pairs += 1
        if pair.stands_for_galaxy:
            self.n += 1
            self._take_balance(pair, host)
        if pair.stands_for_galaxy or self.shared:
            self._take_facts(pair)
        scale = host.get("pixel_scale_arcsec") or self.contract.pixel_scale_arcsec
        wrong = bad_off(pair.pixels, bad)
        if self.shared:
            wrong += light_off(pair.pixels, pair.row, host, self.contract.bands, scale, bad)
        wrong += self._take_pixels(pair, host, psf, scale)
        if wrong:
            self.off.append(f"{pair.row['task_id']} ({'; '.join(wrong)})")

    def _take_pixels(self, pair: StampPair, host: Row, psf: NDArray[np.float32] | None, scale: float) -> list[str]:
        """Take down how pixels differ, or say in what they do where they must not."""
        sigma = np.array([max(sky_noise(band, 0.0, 0.0, scale)[1], np.finfo(float).tiny) for band in pair.pixels[1]])
        mask = dark_pixels(pair, host, psf, self.contract, scale, sigma)
        if mask is None or mask.mean() < _LEAST_OUTSIDE:
            self.n_hidden += 1
            return []
        outside = pair.pixels[..., mask]
        if self.shared or (self.shared is None and _are_near(outside, sigma)):
            self.n_shared += 1
            return pixels_off(outside, sigma)
        if pair.stands_for_galaxy:
            ours, theirs = stamp_features(pair.pixels, mask)
            self.differences.append(ours - theirs)
            # Of stamps that others made it isn't known how far their noise hangs together.
            if self.shared is False and (products := half_products(pair.pixels, mask, self.contract.bands)) is not None:
                self.products.append(products)
        return []

    def _take_facts(self, pair: StampPair) -> None:
        self.n_facts += 1
        first, control = (
            facts_of(row, blob, self.contract) for row, blob in zip((pair.row, pair.control), pair.blobs, strict=True)
        )
        for name in first.keys() & control.keys():
            ours, theirs = first[name], control[name]
            if ours != theirs:
                self.leaning.setdefault(name, [0, 0])[int(order_of(ours) < order_of(theirs))] += 1

    def _take_balance(self, pair: StampPair, host: Row) -> None:
        """Hold all the light that an injection has more than its control against what was injected, noise being fair to both.

        What stands within the arc's reach, the host's centre too, is looked at here alone. Of stamps that others made it isn't
        known what their column leaves out; where pixels are shared, `light_off` asks bands but r, whose bad pixels may hide some.
        """
        if self.shared is None:
            return
        for band, (ours, theirs) in zip(self.contract.bands, pair.pixels.swapaxes(0, 1), strict=True):
            injected = injected_light(pair.row, host, band)
            if injected is None or (self.shared and band != "r"):
                continue
            too_much, beyond = float((ours.astype(float) - theirs).sum()) - injected, spread_beyond(injected, band)
            side = 0 if too_much > beyond else 1 if too_much < -beyond else 2
            self.balance.setdefault(band, [0, 0, 0])[side] += 1

    def probed(self) -> Probed | None:
        """Ask the probe, if there are enough galaxies."""
        if len(self.differences) < LEAST_TO_PROBE:
            return None
        return paired_probe(np.array(self.differences), false_alarms=FALSE_ALARMS)

    def agreement(self) -> Agreement | None:
        """Ask whether the halves of stamps agree, if there are enough galaxies."""
        if len(self.products) < LEAST_TO_PROBE:
            return None
        return agreement(np.array(self.products), self.contract.bands, false_alarms=FALSE_ALARMS)

    def too_few(self) -> str:
        """Say why there are too few galaxies, or pixels that can be compared, to call stamps alike; empty where there are enough.

        Where pixels and facts must be equal, most of the stamps that were read are enough, be they few.
        """
        if len(self.differences) >= LEAST_TO_DECIDE:
            has_halves = self.shared is None or len(self.products) >= LEAST_TO_PROBE
            return (
                ""
                if has_halves
                else f"both halves of {len(self.products):,} of {self.of:,} {self.kind} can be compared"
            )
        if self.n_shared >= min(LEAST_TO_DECIDE, max(self.n_pairs / 2, 1)) and (
            self._is_own or self.n >= LEAST_TO_DECIDE
        ):
            return ""
        why = (
            f" (the light of {self.n_hidden:,} fills the stamp, or their rows lack columns that say where it is)"
            if self.n_hidden
            else ""
        )
        n = len(self.differences) + self.n_shared
        return f"{n:,} of {self.of:,} {self.kind} can be compared with the control of their galaxy{why}"

    def facts(self) -> list[str]:
        """Facts that differ, of stamps that were made here; of others those that lean to one side; and bands whose light does."""
        said = []
        for name, (more, less) in self.leaning.items():
            differ = more + less
            if self._is_own or binomtest(more, differ).pvalue < FACT_LEVEL:
                said.append(f"{name} (differs in {differ:,} of {self.n_facts:,} pairs)")
        for band, sides in self.balance.items():
            *unlike, _ = sides
            # However light spreads beyond the stamp, noise takes no more than half of the pairs beyond what that may come to.
            by_chance = 2 * binomtest(max(unlike), sum(sides), alternative="greater").pvalue
            if by_chance < FACT_LEVEL / len(self.contract.bands):
                more, less = unlike
                said.append(
                    f"light in {band} beside the arc's (more in {more:,} and less in {less:,} of {sum(sides):,} pairs)"
                )
        return said

    @property
    def _is_own(self) -> bool:
        """Whether the stamps were made here: their columns but the arc's are the galaxy's, and one writer writes all blobs."""
        return self.shared is not None


def _are_near(outside: NDArray[np.float32], sigma: NDArray[np.float64]) -> bool:
    """Whether pixels, (2, band, pixel), are so near to each other that they can't have noise of their own."""
    return bool(np.median(np.abs(outside[0].astype(float) - outside[1]) / sigma[:, None]) < OFF_SIGMA)


def dark_pixels(
    pair: StampPair,
    host: Row,
    psf: NDArray[np.float32] | None,
    contract: DatasetContract,
    scale: float,
    sigma: NDArray[np.float64],
) -> Mask | None:
    """Mark the pixels that hold next to nothing of a pair's added light; None where its row doesn't say enough to know."""
    if pair.kind is Kind.probes:
        return np.ones(pair.pixels.shape[-2:], bool)
    row = {"shear": 0.0, **pair.row}
    widths = [
        value
        for band in contract.bands
        for value in (row.get(f"psf_fwhm_used_{band}"), host.get(f"psf_fwhm_assumed_{band}"))
        if value is not None
    ]
    if not widths:
        return None
    view = View(
        bands=contract.bands,
        stamp_size=contract.stamp_size,
        pixel_scale_arcsec=scale,
        host=(host.get("host_x_arcsec") or 0.0, host.get("host_y_arcsec") or 0.0),
        fwhm_arcsec=max(widths),
        sigma=sigma,
        ebv=host.get("ebv"),
        psfs=psf,
    )
    if pair.kind is Kind.hard_negatives:
        return outside_feature(row, view) if row.get("feature") else None
    lens = row if pair.kind is Kind.injections else row.get("twin")
    if lens is None or _missing(lens, needed_columns(contract.bands)):
        return None
    return outside_arc(row, view) if pair.kind is Kind.injections else outside_fake(row, view)


def _missing(row: Mapping[str, Any], names: Iterable[str]) -> bool:
    return any(row.get(name) is None for name in names)
