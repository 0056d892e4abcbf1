"""Gates on the stamps alone, before any model: nothing but the arc may separate the classes.

Belongs here: which questions there are, and their rows of SHORTCUT_GATES. What is measured on a pair is in `pair_features.py`,
how it is judged in `chance.py`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.audits.areas import paired_area
from lens_pipeline.audits.chance import LARGEST_DECIDING_LIMIT, LEAST_PAIRS, Told, chance_limit, tell_pairs
from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.audits.pair_features import DECLARED, SCALARS, PairFeatures, columns_of, names_of, pair_features
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.evaluation.intervals import CONFIDENCE
from lens_pipeline.stamps.work import available_cpus
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import Source
from lens_pipeline.survey.pair_hosts import HostedPair, with_hosts
from lens_pipeline.survey.stamp_pairs import MOST_ROWS, PairReader
from lens_pipeline.survey.stamp_pairs import Kind as PairKind

# Rows looked at for each that is wanted: fakes, hard negatives and further injections of a galaxy stand between.
_ROWS_A_PAIR = 8
_CHUNK = 128
_KINDS = {True: PairKind.injections, False: PairKind.probes}
_MOST_NAMED = 12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """One gate: the name of its row, the group of features that is asked, and what that means."""

    name: str
    of_flux: bool
    group: str
    words: str

    @property
    def of(self) -> str:
        """What is told from what, and by what."""
        return f"{'injections' if self.of_flux else 'probes without flux'} from the controls of their galaxies, by {self.words}"


QUESTIONS = (
    Question("probe_pixels", False, "pixels", "how all pixels are distributed and hang together, and where the galaxy stands"),
    Question("probe_noise", False, "noise", "steps between neighbouring pixels"),
    Question("probe_border", False, "border", "the outermost ring of pixels"),
    Question("probe_dtype", False, "dtype", "values that a coarser type could hold, zeros and repeated values"),
    Question("probe_container", False, "container", "the blob's headers, and whether this pipeline would write it so"),
    Question("probe_bytes", False, "bytes", "sizes and bytes of the blob"),
    Question("probe_metadata", False, "metadata", "columns that are defined for both"),
    Question("injection_pixels", True, "pixels", "how pixels outside the arc are distributed and hang together"),
    Question("injection_noise", True, "noise", "steps between neighbouring pixels outside the arc"),
    Question("injection_border", True, "border", "the outermost ring of pixels, where it is outside the arc"),
    Question("injection_dtype", True, "dtype", "values a coarser type could hold, zeros and repeated values, outside the arc"),
    Question("injection_container", True, "container", "the blob's headers, and whether this pipeline would write it so"),
    Question("injection_metadata", True, "metadata", "columns of the galaxy: seeing, depth, extinction, place, ..."),
)  # fmt: skip
_BASELINES = {
    "total_flux": "the sum of all pixels in r",
    "core_flux": "the sum of the pixels within 1 arcsec of the galaxy in r",
    "stamp_mad": "the MAD of all pixels in r",
    "blob_size": "the size of the blob",
}


@dataclass
class Compared:
    """What was measured on pairs of one kind.

    Attributes
    ----------
    n : int
        Pairs.
    columns, undeclared : tuple of str
        Columns that are compared, and of a user's own those that no contract declares.
    differences : dict
        A row a pair, by group of features; pairs that lack the group are missing.
    scalars : list
        `SCALARS` of the first and of its control, a pair each.
    left_out : str or None
        Of which files nothing could be asked, and why.
    """

    of_flux: bool
    n: int = 0
    columns: tuple[str, ...] = ()
    undeclared: tuple[str, ...] = ()
    differences: dict[str, list[Floats]] = field(default_factory=dict)
    scalars: list[Floats] = field(default_factory=list)
    left_out: str | None = None

    def take_columns(self, pairs: Sequence[HostedPair], *, is_own: bool) -> None:
        """Compare the columns that these pairs have as well; pairs before, which lack them, differ in none."""
        names = {name for hosted in pairs for name in columns_of(hosted.pair.row, hosted.pair.control)}
        asked = {name for name in names if is_own or name in DECLARED}
        self.columns = self._with(self.columns, asked, "metadata")
        self.undeclared = self._with(self.undeclared, names - asked, "undeclared")

    def _with(self, known: tuple[str, ...], wanted: set[str], group: str) -> tuple[str, ...]:
        new = sorted(wanted.difference(known))
        if new and group in self.differences:
            more = np.zeros(2 * len(new))
            self.differences[group] = [np.concatenate([row, more]) for row in self.differences[group]]
        return (*known, *new)

    def add(self, found: PairFeatures) -> None:
        """Take down a pair."""
        self.n += 1
        self.scalars.append(found.scalars)
        for group, difference in found.differences.items():
            self.differences.setdefault(group, []).append(difference)


def data_gates(stamps: Publication, parent: Publication, *, n_stamps: int = 2000, seed: int = 0) -> list[Gate]:
    """Ask every question of `QUESTIONS`, and what simple numbers of a stamp tell alone.

    Parameters
    ----------
    stamps, parent : Publication
        The stamps and the parent sample that they were made of; a survey's own stamps as well.
    n_stamps : int
        Most stamps of each kind of pairs: half of them controls, one pair a galaxy.
    seed : int
        Of the order in which pairs are judged.
    """
    contract = DatasetContract.model_validate(stamps.attributes["dataset_contract"])
    most = max(1, n_stamps // 2)
    reader = PairReader(stamps, most, most_rows=max(MOST_ROWS, _ROWS_A_PAIR * most), undeclared=True)
    is_own = Source(stamps.attributes["source"]) is not Source.external_stamps
    compared = compare(with_hosts(reader, parent), is_own=is_own)
    of_injections = compared[True]
    if left_out := reader.left_out():
        of_injections.left_out = f"{left_out}. Put the two into one file, near each other, or raise n_stamps"
    gates = [answer(question, compared[question.of_flux], contract, seed=seed) for question in QUESTIONS]
    gates += [_baseline(name, words, of_injections) for name, words in _BASELINES.items()]
    return [*gates, *([_of_undeclared(of_injections, contract, seed)] if of_injections.undeclared else [])]


def compare(pairs: Iterator[HostedPair], *, is_own: bool = True) -> dict[bool, Compared]:
    """Measure pairs, on all cores; a chunk of them is in memory.

    Parameters
    ----------
    is_own : bool
        Whether the stamps were made here: a user's own may have columns of the arc under names that we don't know.
    """
    compared = {of_flux: Compared(of_flux) for of_flux in (True, False)}
    with ThreadPoolExecutor(available_cpus()) as pool:
        while chunk := list(islice(pairs, _CHUNK)):
            for of_flux, seen in compared.items():
                of_kind = [hosted for hosted in chunk if hosted.pair.kind is _KINDS[of_flux]]
                seen.take_columns(of_kind, is_own=is_own)
                features = partial(pair_features, columns=seen.columns, undeclared=seen.undeclared)
                for found in pool.map(features, of_kind):
                    seen.add(found)
    return compared


def answer(question: Question, seen: Compared, contract: DatasetContract, *, seed: int = 0) -> Gate:
    """Answer one question.

    Red where the AUROC within pairs exceeds `chance_limit`, however few pairs there are; ok where it doesn't, the limit is
    small enough to mean something, and no file was left out; else undecided.
    """
    rows = seen.differences.get(question.group, [])
    limit = chance_limit(len(rows), len(rows))
    gate = partial(
        Gate, name=question.name, kind=Kind.gate, of=question.of, unit="AUROC",
        n_positives=len(rows), n_negatives=len(rows), n_galaxies=len(rows),
    )  # fmt: skip
    if not rows:
        return gate(status=Status.not_measured, reason=_nothing(question, seen))
    if len(rows) < LEAST_PAIRS:
        return gate(status=Status.undecided, limit=limit, reason=_too_few(len(rows)))
    names = names_of(question.group, contract, seen.columns, of_flux=seen.of_flux)
    told = tell_pairs(np.array(rows), names, seed=seed)
    status, reason = _judged(told, limit, hidden=seen.n - len(rows), left_out=seen.left_out)
    return gate(
        status=status, value=told.value, low=told.low, high=told.high, level=told.level, limit=limit, reason=reason
    )


def _judged(told: Told, limit: float, *, hidden: int, left_out: str | None) -> tuple[Status, str | None]:
    if told.value > limit:
        most = f", most by {', '.join(told.most)}" if told.most else ""
        return Status.red, f"{told.classifier} classifier: {told.value:.3f} exceeds {limit:.3f}{most}"
    if limit > LARGEST_DECIDING_LIMIT:
        without = f"; of {hidden:,} more the arc leaves too few pixels" if hidden else ""
        return Status.undecided, (
            f"{told.n:,} pairs{without}: the limit {limit:.3f} would let pass what a model can learn, "
            f"{LARGEST_DECIDING_LIMIT:g} is the largest"
        )
    if left_out:
        return Status.undecided, left_out
    if told.low > 0.5:
        return Status.ok, (
            f"the interval excludes chance, though {told.value:.3f} is within the limit {limit:.3f}; "
            "more pairs (n_stamps) would tell"
        )
    return Status.ok, None


def _nothing(question: Question, seen: Compared) -> str:
    if seen.n:
        return f"of {seen.n:,} pairs none has enough pixels outside the arc, or their rows lack columns that say where it is"
    if question.of_flux:
        return "no injection stands in one file with a control of its galaxy"
    return "no probes without flux were made: set injection_manifest.null_flux_share"


def _baseline(name: str, words: str, seen: Compared) -> Gate:
    """Report what one number of a stamp tells, a larger one taken for an injection; arcs legitimately differ there."""
    gate = partial(
        Gate, name=f"baseline_{name}", kind=Kind.baseline, unit="AUROC",
        of=f"injections from the controls of their galaxies, one stamp at a time, by {words}",
        n_positives=seen.n, n_negatives=seen.n, n_galaxies=seen.n,
    )  # fmt: skip
    if seen.n < LEAST_PAIRS:
        return gate(status=Status.not_measured, reason=_too_few(seen.n))
    both = np.array(seen.scalars)[:, :, SCALARS.index(name)]
    value, low, high = paired_area(both[:, 0], both[:, 1])
    return gate(status=Status.ok, value=value, low=low, high=high, level=CONFIDENCE)


def _of_undeclared(seen: Compared, contract: DatasetContract, seed: int) -> Gate:
    """Report what columns tell that no contract declares: whether they are the arc's, which legitimately differ, nobody says."""
    gate = partial(
        Gate, name="baseline_undeclared_columns", kind=Kind.baseline, unit="AUROC",
        of="injections from the controls of their galaxies, by columns that no contract declares",
        n_positives=seen.n, n_negatives=seen.n, n_galaxies=seen.n,
    )  # fmt: skip
    if seen.n < LEAST_PAIRS:
        return gate(status=Status.not_measured, reason=_too_few(seen.n))
    rows = np.array(seen.differences["undeclared"])
    told = tell_pairs(rows, names_of("undeclared", contract, seen.undeclared, of_flux=True), seed=seed)
    differ = (rows != 0).any(axis=0).reshape(-1, 2).any(axis=1)
    unlike = [name for name, differs in zip(seen.undeclared, differ, strict=True) if differs]
    reason = (
        f"{len(unlike):,} of {len(differ):,} columns differ within pairs: {first_few(unlike, _MOST_NAMED)}. What of it isn't of "
        "the arc is a shortcut"
    )
    return gate(
        status=Status.ok,
        value=told.value,
        low=told.low,
        high=told.high,
        level=told.level,
        reason=reason if unlike else None,
    )


def _too_few(n: int) -> str:
    return f"{n:,} pairs, {LEAST_PAIRS} are the least to ask"
