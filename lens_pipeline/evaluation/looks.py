"""How often the test rows of a model were looked at: every published version that read them says so, and here they are counted.

A look is a pair of scores and frozen operating point. The same pair read again, by another asset or another day, shows nothing
new; another pair means that something was changed in between, and what test had shown may have chosen it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.evaluation.metrics import OK, Metric
from lens_pipeline.evaluation.scored_rows import TEST
from lens_pipeline.storage.home import MODEL_ASSETS, Home

READS = "test_reads"
LOOKS = "test_looks"


@dataclass(frozen=True, order=True)
class Look:
    """Test rows read with one pair of scores and operating point.

    Attributes
    ----------
    scores, operating_point : str
        Versions.
    readers : tuple of str
        Assets that read.
    """

    scores: str
    operating_point: str
    readers: tuple[str, ...]


def published_reads(home: Home, dataset: str, model: str) -> list[dict[str, str]]:
    """List reads of a model's scores of test by every version of every asset, green or red, under whichever model it stands.

    A comparison reads test with its rivals' scores too, which is a look at each of these.
    """
    own = {one.version for one in home.versions(dataset, "scores", model=model)}
    folders = [one for one in home.folders(dataset, local=False) if one.parent.parent.name in MODEL_ASSETS]
    reads = [read for one in folders for read in home.open_folder(one).attributes.get(READS, [])]
    return [read for read in reads if read["scores"] in own]


def looks_of(reads: Iterable[dict[str, str]]) -> list[Look]:
    """Distinct looks among reads, in the order of their versions.

    Parameters
    ----------
    reads : iterable of dict
        Entries of the attribute ``test_reads``.
    """
    readers: dict[tuple[str, str], set[str]] = {}
    for read in reads:
        readers.setdefault((read["scores"], read["operating_point"]), set()).add(read["by"])
    return sorted(Look(*pair, tuple(sorted(assets))) for pair, assets in readers.items())


def looks_metric(looks: list[Look], n_positives: int, n_negatives: int, n_clusters: int) -> Metric:
    """Give the number of looks at test, this one included; 1 is a test that was blind. Unit: looks. Never undefined."""
    return Metric(
        metric=LOOKS,
        split=TEST,
        value=float(len(looks)),
        low=None,
        high=None,
        n_positives=n_positives,
        n_negatives=n_negatives,
        n_clusters=n_clusters,
        unit="looks",
        status=OK,
        reason="a count of published versions, so it has no sampling interval",
    )


def looked_at_once(looks: list[Look]) -> Check:
    """Ask that no other scores or thresholds of this model were evaluated on test before. A finding that blocks nothing."""
    name = "test_rows_are_looked_at_once"
    if len(looks) <= 1:
        return green(name, "no other scores or thresholds of this model were evaluated on test", blocking=False)
    return red(
        name,
        f"{len(looks):,} pairs of scores and thresholds of this model were evaluated on test",
        wrong=[f"scores {look.scores} at operating_point {look.operating_point}" for look in looks],
        why="what was changed in between may have been chosen by what test showed, so its figures are no longer blind.",
        next_step="state the number of looks with every figure; for blind ones evaluate on regions that nothing was fitted or "
        "judged on (another dataset, with new regions).",
        blocking=False,
    )
