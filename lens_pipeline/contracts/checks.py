"""What an asset check found, in words that a person can act on. Knows nothing of Dagster."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lens_pipeline.contracts.errors import FIRST_FEW


@dataclass(frozen=True)
class Check:
    """One named finding about data that an asset is about to publish.

    Attributes
    ----------
    name : str
        The check's public name, e.g. ``label_alignment``.
    passed : bool
        Red (False) keeps the version from becoming current, if the check is blocking.
    what : str
        What was looked at and what was found, in one sentence.
    count : int
        How many rows, regions, ... are wrong; 0 when passed or undecided.
    first : tuple of str
        The first few of the wrong ones.
    why : str
        Why this matters, or what most likely caused it.
    next_step : str
        The next thing to do or the next command to type.
    figures : dict
        Numbers worth showing beside the check, whatever its colour.
    blocking : bool
        Whether red stops the version (True) or is only shown (False).
    is_undecided : bool
        Whether there was too little to answer by: neither green nor red, and never blocking.
    """

    name: str
    passed: bool
    what: str
    count: int = 0
    first: tuple[str, ...] = ()
    why: str = ""
    next_step: str = ""
    figures: dict[str, float | int | str | None] = field(default_factory=dict)
    blocking: bool = True
    is_undecided: bool = False

    @property
    def state(self) -> str:
        """What the check came out as, for a person: green, red, a warning (it stops nothing) or undecided."""
        if self.passed:
            return "green"
        if self.is_undecided:
            return "undecided"
        return "red" if self.blocking else "a warning"

    def message(self) -> str:
        """Return the finding as one paragraph: what, how many, which first, why, what next."""
        if self.passed:
            return f"{self.name}: {self.what}"
        count = f" ({self.count:,} wrong)" if self.count else ""
        first = f" First: {', '.join(self.first)}." if self.first else ""
        why = f" Why: {self.why}" if self.why else ""
        next_step = f" Next: {self.next_step}" if self.next_step else ""
        return f"{self.name} is {self.state}: {self.what}{count}.{first}{why}{next_step}"


def green(name: str, what: str, *, blocking: bool = True, **figures: float | int | str | None) -> Check:
    """Return a passed check."""
    return Check(name=name, passed=True, what=what, figures=figures, blocking=blocking)


def red(
    name: str,
    what: str,
    *,
    wrong: Iterable[object],
    why: str,
    next_step: str,
    count: int | None = None,
    blocking: bool = True,
    **figures: float | int | str | None,
) -> Check:
    """Return a failed check that lists the first few of what is wrong.

    Parameters
    ----------
    wrong : iterable
        The wrong items; the first few are shown and, unless `count` is given, all are counted.
    """
    listed = [str(item) for item in wrong]
    return Check(
        name=name,
        passed=False,
        what=what,
        count=len(listed) if count is None else count,
        first=tuple(listed[:FIRST_FEW]),
        why=why,
        next_step=next_step,
        figures=figures,
        blocking=blocking,
    )


def undecided(name: str, what: str, *, why: str, next_step: str, **figures: float | int | str | None) -> Check:
    """Return a check that there was too little to answer by; it is shown, and stops nothing."""
    return Check(
        name=name,
        passed=False,
        what=what,
        why=why,
        next_step=next_step,
        figures=figures,
        blocking=False,
        is_undecided=True,
    )
