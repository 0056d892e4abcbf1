"""Can anything but added light tell a stamp from the control of its galaxy? A check, at chance or red.

Belongs here: which pairs are looked at, and when the answer is red. An injection and its control differ by the arc and by noise
drawn anew; so outside the arc, in the same pixels of both, nothing may tell them apart. What is asked of each kind of pairs:

- facts: every column that isn't about the arc, and every header field of the blob, must not lean to one side (a sign test);
- pixels with noise of their own: a linear probe on features outside the arc must be at chance (`probe.py`), and halves of stamps
  must not agree on how pairs differ (`half_features.py`), which shows what changes its sign from stamp to stamp;
- pixels that both took from one real cutout: they must be equal but for what is left of the arc and its Poisson noise; its bad
  pixels, which saw no light, must be equal to the bit, under the arc too.

Fakes and hard negatives are held against their controls likewise, and probes without flux in all their pixels. Controls of real
galaxies, paired or not, must be their cutouts to the bit; unpaired ones are also held against paired ones, of other galaxies.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lens_pipeline.contracts.checks import Check, green, red, undecided
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.cutouts import BAD_FILE, open_bad
from lens_pipeline.survey.half_features import Agreement
from lens_pipeline.survey.lone_controls import LEAST_TO_COMPARE, compare_controls
from lens_pipeline.survey.own_pixels import hold_controls
from lens_pipeline.survey.pair_evidence import LEAST_TO_DECIDE, Evidence
from lens_pipeline.survey.pair_hosts import with_hosts
from lens_pipeline.survey.probe import Probed
from lens_pipeline.survey.roles import UNPAIRED_CONTROL
from lens_pipeline.survey.stamp_features import feature_names
from lens_pipeline.survey.stamp_pairs import Kind, PairReader

NAME = "no_fingerprints"
MOST_PAIRS = 512
# Whether an injection and its control have a real cutout's pixels in common; of a user's own stamps the pixels tell.
_SHARED = {Source.simulated: False, Source.real_cutouts: True, Source.legacy_catalogue: True}
# Of figures.
_PREFIX = {Kind.injections: "", Kind.probes: "no_flux_", Kind.fakes: "fakes_", Kind.hard_negatives: "hard_negatives_"}


def no_fingerprints(stamps: Publication, parent: Publication) -> Check:
    """Red where something beside added light tells stamps from the controls of their galaxies.

    A survey's own stamps can't be made again here: what is found in them is shown and doesn't block. Where a kind of stamps that
    is there is too few to say, or of a file nothing could be asked, all of it is undecided, and blocks nothing; a kind of which
    there is none isn't asked.
    """
    source = Source(stamps.attributes["source"])
    evidence = gather(stamps, parent)
    blocking = source is not Source.external_stamps
    found: list[str] = []
    said: list[str] = []
    figures: dict[str, Any] = {}
    for seen in evidence:
        probed, halves = seen.probed(), seen.agreement()
        found += [f"{seen.kind}: {fact}" for fact in seen.facts()]
        found += [f"{seen.kind}: {row}" for row in seen.off]
        if probed is not None:
            if probed.above_chance:
                found.append(f"{seen.kind}: {_lean(probed, feature_names(seen.contract.bands))}")
            said.append(f"{probed.n:,} of {seen.of:,} {seen.kind}: {_interval(probed)}")
            figures |= _figures(probed, _PREFIX[seen.kind])
        if halves is not None:
            if halves.found:
                found.append(f"{seen.kind}: {_agreed(halves)}")
            figures[f"{_PREFIX[seen.kind]}halves"] = float(halves.strength.max())
        if seen.n_shared:
            said.append(f"{seen.n_shared:,} of {seen.of:,} {seen.kind} equal their controls outside the arc")
    if (held := hold_controls(stamps, parent)) is not None:
        found += [f"controls: {row}" for row in held.off]
        said.append(f"{held.n:,} controls are their galaxies' cutouts to the bit")
    lone = compare_controls(stamps, parent, MOST_PAIRS) if PairReader(stamps, 0).has(UNPAIRED_CONTROL) else None
    short = [words for seen in evidence if (words := seen.too_few())]
    if lone is not None:
        found += lone.facts
        both = f"{lone.n_unpaired:,} unpaired controls beside {lone.n_paired:,} paired ones"
        if lone.probed is None:
            short.append(f"{both} can be compared")
        else:
            said.append(f"{both}: {_interval(lone.probed)}")
            found += [f"unpaired controls: {_lean(lone.probed, lone.names)}"] if lone.probed.above_chance else []
    pairs = sum(seen.n for seen in evidence)
    hidden = sum(seen.n_hidden for seen in evidence)
    unread = [f"{seen.n_unusable:,} pairs of {seen.kind} can't be read" for seen in evidence if seen.n_unusable]
    unusable = sum(seen.n_unusable for seen in evidence)
    left_out = [seen.left_out for seen in evidence if seen.left_out]
    figures |= {"pairs": pairs, "pairs_that_cannot_be_read": unusable, "arcs_that_fill_the_stamp": hidden}
    if found:
        return red(
            NAME,
            "; ".join(
                [f"something beside the arc tells stamps from their controls, in {pairs:,} pairs", *unread, *left_out]
            ),
            wrong=found,
            why="Injections and controls didn't go through the same steps; a model learns the difference in place of lenses.",
            next_step="render galaxies without flux as well (injection_manifest.null_flux_share: 1) and compare the two pixel by "
            "pixel; docs/survey-realism.md says what each feature measures.",
            blocking=blocking,
            **figures,
        )
    if short or left_out:
        put = " Put the injections and controls of a galaxy into one file, near each other." if left_out else ""
        return undecided(
            NAME,
            "; ".join([*short, *left_out, *said, *unread]),
            why="What was looked at would not show every difference that a model could learn from.",
            next_step=f"nothing is blocked.{put} At least {LEAST_TO_DECIDE} galaxies would do, each with a control and a stamp "
            f"of the kind that leaves a tenth of it dark, and {LEAST_TO_COMPARE} controls of either sort. A kind whose share is "
            "0 in injection_manifest isn't asked.",
            **figures,
        )
    return green(
        NAME, f"nothing beside the arc tells stamps from their controls: {'; '.join([*said, *unread])}", **figures
    )


def gather(stamps: Publication, parent: Publication) -> list[Evidence]:
    """Read pairs and take down how the two of each differ: of injections first, then of each other kind that there is."""
    shared = _SHARED.get(Source(stamps.attributes["source"]))
    # Noise that was drawn anew says the same of each stamp of a galaxy; pixels that must be equal are looked at in all of them.
    reader = PairReader(stamps, MOST_PAIRS, every=shared is not False)
    bad = open_bad(parent.path(BAD_FILE)) if BAD_FILE in parent.manifest.files else None
    evidence = {kind: Evidence(kind, reader.contract, shared) for kind in Kind}
    for hosted in with_hosts(reader, parent):
        place = hosted.host.get("cutout_row")
        hidden = None if bad is None or place is None else np.asarray(bad[place])
        evidence[hosted.pair.kind].take(hosted.pair, hosted.host, hosted.psf, hidden)
    for seen in evidence.values():
        seen.of, seen.n_unusable = reader.seen[seen.kind], reader.unusable[seen.kind]
    evidence[Kind.injections].left_out = reader.left_out()
    return [seen for seen in evidence.values() if seen.kind is Kind.injections or seen.of]


def _lean(probed: Probed, names: Sequence[str]) -> str:
    """Say what a probe found, and by which features most."""
    most = ", ".join(f"{names[place]} ({probed.contrast[place]:+.1f} sigma)" for place in probed.features[:3])
    return f"{_interval(probed)}, most by {most}"


def _agreed(halves: Agreement) -> str:
    """Say what differs in both halves of stamps alike."""
    return (
        "both halves of a stamp differ alike from its control, one way or the other, in "
        f"{', '.join(halves.found[:3])}; by chance nothing of {halves.n:,} galaxies passes {halves.most:.1f}"
    )


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
