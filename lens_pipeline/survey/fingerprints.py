"""Can anything but the arc tell an injection from its control? A check, at chance or red.

Belongs here: what is compared in a pair, and when the answer is red. An injection and the control of its galaxy differ by the arc
and by noise drawn anew; so outside the arc, in the same pixels of both, nothing may tell them apart. Three questions are asked:

- facts: every column that isn't about the arc, and every header field of the blob, must not lean to one side (a sign test);
- pixels with noise of their own: a linear probe on features outside the arc must be at chance (`probe.py`);
- pixels that both took from one real cutout: they must be equal but for what is left of the arc and its Poisson noise; its bad
  pixels, which saw no light, must be equal to the bit, under the arc too.

Probes without flux are held against their controls likewise, in all their pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from lens_pipeline.contracts.checks import Check, green, red, undecided
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.arc_reach import needed_columns, outside_arc
from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.cutout_measures import sky_noise
from lens_pipeline.survey.cutouts import BAD_FILE, PSFS_FILE, open_bad, open_cutouts
from lens_pipeline.survey.npz_facts import npz_facts
from lens_pipeline.survey.probe import Probed, paired_probe
from lens_pipeline.survey.stamp_features import feature_names, stamp_features
from lens_pipeline.survey.stamp_pairs import PairReader, Row, StampPair, parents_of

NAME = "no_fingerprints"
MOST_PAIRS = 512
# Of a probe, each of two: one clean data set in two thousand.
FALSE_ALARMS = 5e-4
# Below the first number of galaxies a probe's interval isn't to be trusted, below the second it is too wide to call green.
_LEAST_TO_PROBE, LEAST_TO_DECIDE = 20, 50
# An arc that leaves less of the stamp than this outside says too little.
_LEAST_OUTSIDE = 0.1
# Of a fact: chance that an even coin would lean as much; some 40 facts are looked at.
_FACT_LEVEL = 1e-6
# Real pixels shared with the control: a pixel is off by more than this many sigmas, in more than this share of the pixels; or
# their mean is. What is left of an arc below 0.003 sigma, with its Poisson noise, stays within a third of that.
_OFF_SIGMA, _OFF_SHARE, _OFF_MEAN = 0.1, 1e-3, 0.02
_CHUNK = 128
# Whether an injection and its control have a real cutout's pixels in common; of a user's own stamps the pixels tell.
_SHARED = {Source.simulated: False, Source.real_cutouts: True, Source.legacy_catalogue: True}
# What differs between an injection and its control by what they are.
_LABELS = frozenset({"task_id", "pair_id", "lens_model", "role", "is_control", "theta_e_arcsec", "weight"})
_HOST = (
    "host_x_arcsec", "host_y_arcsec", "pixel_scale_arcsec", "ebv", "cutout_row", *(f"psf_fwhm_assumed_{band}" for band in BANDS)
)  # fmt: skip
_KINDS = {True: "injections", False: "probes without flux"}


@dataclass
class _Evidence:
    """What was seen of one kind of pairs.

    Attributes
    ----------
    leaning : dict
        Fact to how often the first and how often the control had more of it.
    off : list
        Of pixels that must be equal: the rows whose aren't, with by how much.
    """

    of_flux: bool
    n: int = 0
    n_hidden: int = 0
    n_shared: int = 0
    leaning: dict[str, list[int]] = field(default_factory=dict)
    off: list[str] = field(default_factory=list)
    differences: list[NDArray[np.float64]] = field(default_factory=list)

    def probed(self) -> Probed | None:
        """Ask the probe, if there are enough galaxies."""
        if len(self.differences) < _LEAST_TO_PROBE:
            return None
        return paired_probe(np.array(self.differences), false_alarms=FALSE_ALARMS)

    def too_few(self) -> str:
        """Say why there are too few galaxies to call pixels alike; empty where there are enough."""
        if self.n_shared or len(self.differences) >= LEAST_TO_DECIDE:
            return ""
        why = (
            f" ({self.n_hidden:,} arcs fill the stamp, or their rows lack columns that say where they are)"
            if self.n_hidden
            else ""
        )
        return f"{len(self.differences):,} {_KINDS[self.of_flux]} can be compared with the control of their galaxy{why}"

    def facts(self) -> list[str]:
        """Facts that lean to one side."""
        said = []
        for name, (more, less) in self.leaning.items():
            if more + less and binomtest(more, more + less).pvalue < _FACT_LEVEL:
                said.append(f"{name} (differs in {more + less:,} of {self.n:,} pairs)")
        return said


def no_fingerprints(stamps: Publication, parent: Publication) -> Check:
    """Red where something beside the arc tells injections, or probes without flux, from their controls.

    A survey's own stamps can't be made again here: what is found in them is shown and doesn't block. Nor does a sample that is
    too small to say.
    """
    source = Source(stamps.attributes["source"])
    evidence = gather(stamps, parent)
    blocking = source is not Source.external_stamps
    found: list[str] = []
    said: list[str] = []
    figures: dict[str, Any] = {}
    for seen in evidence:
        kind = _KINDS[seen.of_flux]
        probed = seen.probed()
        found += [f"{kind}: {fact}" for fact in seen.facts()]
        found += [f"{kind}: {row}" for row in seen.off]
        if probed is not None:
            if probed.above_chance:
                found.append(f"{kind}: {_lean(probed, stamps)}")
            said.append(f"{kind}: {_interval(probed)}")
            figures |= _figures(probed, "" if seen.of_flux else "no_flux_")
        if seen.n_shared:
            said.append(f"{seen.n_shared:,} {kind} equal their controls outside the arc")
    pairs = sum(seen.n for seen in evidence)
    hidden = sum(seen.n_hidden for seen in evidence)
    figures |= {"pairs": pairs, "arcs_that_fill_the_stamp": hidden}
    if found:
        return red(
            NAME,
            f"something beside the arc tells stamps from their controls, in {pairs:,} pairs",
            wrong=found,
            why="Injections and controls didn't go through the same steps; a model learns the difference in place of lenses.",
            next_step="render galaxies without flux as well (injection_manifest.null_flux_share: 1) and compare the two pixel by "
            "pixel; docs/survey-realism.md says what each feature measures.",
            blocking=blocking,
            **figures,
        )
    short = {seen.of_flux: words for seen in evidence if (words := seen.too_few())}
    if True in short:
        return undecided(
            NAME,
            short[True],
            why="So few pairs would not show a difference that a model could learn from.",
            next_step=f"nothing is blocked. At least {LEAST_TO_DECIDE} galaxies would do, each with a control and an "
            "injection that leaves a tenth of the stamp dark.",
            **figures,
        )
    said += [f"undecided of {_KINDS[of_flux]}: {words}" for of_flux, words in short.items()]
    return green(NAME, f"nothing beside the arc tells stamps from their controls: {'; '.join(said)}", **figures)


def gather(stamps: Publication, parent: Publication) -> list[_Evidence]:
    """Read pairs and take down how the two of each differ; probes without flux second, if there are any."""
    reader = PairReader(stamps, MOST_PAIRS)
    shared = _SHARED.get(Source(stamps.attributes["source"]))
    bad = open_bad(parent.path(BAD_FILE)) if BAD_FILE in parent.manifest.files else None
    psfs = open_cutouts(parent.path(PSFS_FILE)) if PSFS_FILE in parent.manifest.files else None
    evidence = {True: _Evidence(of_flux=True), False: _Evidence(of_flux=False)}
    pairs = reader.pairs()
    while chunk := list(islice(pairs, _CHUNK)):
        hosts = parents_of(parent, [pair.control.get("galaxy_id") for pair in chunk], _HOST)
        for pair in chunk:
            host = hosts.get(str(pair.control.get("galaxy_id")), {})
            place = host.get("cutout_row")
            psf = None if psfs is None or place is None else np.asarray(psfs[place])
            _compare(pair, host, psf, reader.contract, shared, evidence[pair.of_flux])
            if bad is not None and place is not None:
                _compare_bad(pair, bad[place], evidence[pair.of_flux])
    return [seen for seen in evidence.values() if seen.of_flux or stamps.attributes.get("null_flux")]


def _compare(
    pair: StampPair,
    host: Row,
    psf: NDArray[np.float32] | None,
    contract: DatasetContract,
    shared: bool | None,
    seen: _Evidence,
) -> None:
    """Take down how the two of a pair differ; whether they share pixels is seen from them where it isn't known."""
    seen.n += 1
    first, control = (
        {**row, **npz_facts(blob, contract.members)}
        for row, blob in zip((pair.row, pair.control), pair.blobs, strict=True)
    )
    for name in (first.keys() & control.keys()) - _LABELS:
        ours, theirs = first[name], control[name]
        if _is_known(ours) and _is_known(theirs) and ours != theirs:
            seen.leaning.setdefault(name, [0, 0])[int(_order(ours) < _order(theirs))] += 1
    scale = host.get("pixel_scale_arcsec") or contract.pixel_scale_arcsec
    sigma = np.array([max(sky_noise(band, 0.0, 0.0, scale)[1], np.finfo(float).tiny) for band in pair.pixels[1]])
    mask = np.ones(pair.pixels.shape[-2:], bool) if not pair.of_flux else _mask(pair, host, psf, contract, scale, sigma)
    if mask is None or mask.mean() < _LEAST_OUTSIDE:
        seen.n_hidden += 1
        return
    difference = (pair.pixels[0].astype(float) - pair.pixels[1])[:, mask] / sigma[:, None]
    if shared or (shared is None and np.median(np.abs(difference)) < _OFF_SIGMA):
        seen.n_shared += 1
        share, mean = float((np.abs(difference) > _OFF_SIGMA).mean()), float(np.abs(difference.mean(axis=1)).max())
        if share > _OFF_SHARE or mean > _OFF_MEAN:
            seen.off.append(
                f"{pair.row['task_id']} ({share:.2%} of its pixels outside the arc are off by more than {_OFF_SIGMA:g} sigma, "
                f"their mean by {mean:.2g})"
            )
    else:
        ours, theirs = stamp_features(pair.pixels, mask)
        seen.differences.append(ours - theirs)


def _compare_bad(pair: StampPair, bad: NDArray[np.bool_], seen: _Evidence) -> None:
    """Take down whether something was added to pixels that saw no light."""
    if changed := int((pair.pixels[0] != pair.pixels[1])[bad].sum()):
        seen.off.append(f"{pair.row['task_id']} ({changed:,} of {int(bad.sum()):,} bad pixels aren't the cutout's own)")


def _is_known(value: Any) -> bool:
    """Whether a column has a value: a null, or a NaN of some writers, says that it is of the arc, by contract."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))


def _order(value: Any) -> tuple[float, str]:
    """Return what values of a column, numbers or not, are ordered by."""
    return (float(value), "") if isinstance(value, int | float) else (0.0, str(value))


def _mask(
    pair: StampPair,
    host: Row,
    psf: NDArray[np.float32] | None,
    contract: DatasetContract,
    scale: float,
    sigma: NDArray[np.float64],
) -> NDArray[np.bool_] | None:
    """Pixels outside the arc; None where the row doesn't say enough to know."""
    row = {"shear": 0.0, **pair.row}
    widths = [
        value
        for band in contract.bands
        for value in (row.get(f"psf_fwhm_used_{band}"), host.get(f"psf_fwhm_assumed_{band}"))
        if value is not None
    ]
    if not widths or any(row.get(name) is None for name in needed_columns(contract.bands)):
        return None
    return outside_arc(
        row,
        bands=contract.bands,
        stamp_size=contract.stamp_size,
        pixel_scale_arcsec=scale,
        host=(host.get("host_x_arcsec") or 0.0, host.get("host_y_arcsec") or 0.0),
        fwhm_arcsec=max(widths),
        sigma=sigma,
        ebv=host.get("ebv"),
        psfs=psf,
    )


def _lean(probed: Probed, stamps: Publication) -> str:
    """Say what a probe found, and by which features most."""
    names = feature_names(DatasetContract.model_validate(stamps.attributes["dataset_contract"]).bands)
    most = ", ".join(f"{names[place]} ({probed.contrast[place]:+.1f} sigma)" for place in probed.features[:3])
    return f"{_interval(probed)}, most by {most}"


def _interval(probed: Probed) -> str:
    low, high = probed.interval
    return (
        f"probe's AUROC {probed.auroc:.3f} ({low:.3f} to {high:.3f}) from {probed.n:,} galaxies; "
        f"{probed.least_seen():.2f} would have been seen"
    )


def _figures(probed: Probed, prefix: str) -> Mapping[str, float | int]:
    low, high = probed.interval
    return {
        f"{prefix}auroc": probed.auroc,
        f"{prefix}low": low,
        f"{prefix}high": high,
        f"{prefix}least_seen": probed.least_seen(),
        f"{prefix}galaxies": probed.n,
    }
