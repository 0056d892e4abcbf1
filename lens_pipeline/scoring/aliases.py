"""Which version of a model is meant by candidate and champion: told by what is published, and by nothing else.

A version of a model is one of lens_classifier, or, of an ensemble, one of its scores, which names every member's version. The
candidate is the current version, the newest that passed its checks. The champion is the one that a person chose; the
choice is itself a publication (asset ``champion``), so that it is atomic, has a history, and works in a home at s3://.
"""

from collections.abc import Sequence
from enum import StrEnum

import polars as pl

from lens_pipeline.contracts.checks import green
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.evaluation.promotion import EARLIER, unanswered_gates, why_gates_forbid
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication

CLASSIFIER, SCORES, REPORT, GATES, CHOICE = (
    *("lens_classifier", "scores", "evaluation_report", "shortcut_gates"),
    "champion",
)


class Alias(StrEnum):
    """A name that another version may bear tomorrow."""

    candidate = "candidate"
    champion = "champion"


def asset_of(home: Home, dataset: str, model: str | None) -> str:
    """Name of the asset whose versions are the model's: ``scores`` of an ensemble, else ``lens_classifier``."""
    if home.has_current(dataset, CLASSIFIER, model=model) or not home.has_current(dataset, SCORES, model=model):
        return CLASSIFIER
    return SCORES if is_ensemble(home.open(dataset, SCORES, model=model)) else CLASSIFIER


def is_ensemble(named: Publication) -> bool:
    """Whether a publication stands for the mean of several models: scores that name members."""
    return named.asset == SCORES and bool(named.attributes.get("members"))


def members_of(home: Home, named: Publication) -> list[Publication]:
    """Versions of lens_classifier that a version of a model is made of: itself, or an ensemble's members.

    Raises
    ------
    StorageError
        If a member isn't there any more, or the publication stands for no model.
    """
    if named.asset == CLASSIFIER:
        return [named]
    if not is_ensemble(named):
        raise StorageError(
            f"{named.asset} {named.version} is no model: it is neither a lens_classifier nor an ensemble."
        )
    wanted = named.attributes["members"]
    return [home.open(named.dataset, CLASSIFIER, model=one["model"], version=one["version"]) for one in wanted]


def open_alias(home: Home, dataset: str, model: str | None, alias: Alias) -> Publication:
    """Open the version of a model that bears an alias.

    Raises
    ------
    StorageError
        If nothing was published, or no champion was chosen.
    """
    asset = asset_of(home, dataset, model)
    if alias is Alias.candidate:
        return home.open(dataset, asset, model=model)
    chosen = champion_version(home, dataset, model)
    if chosen is None:
        raise StorageError(
            f"no champion was chosen among the versions of model {model or DEFAULT_MODEL} of dataset {dataset!r}. "
            f"Next: lens_pipeline champion --dataset {dataset} --model {model or DEFAULT_MODEL}, or take the candidate."
        )
    return home.open(dataset, asset, model=model, version=chosen)


def champion_version(home: Home, dataset: str, model: str | None) -> str | None:
    """Version of the champion; None where none was chosen."""
    if not home.has_current(dataset, CHOICE, model=model):
        return None
    return home.open(dataset, CHOICE, model=model).inputs.get(asset_of(home, dataset, model))


def green_versions(home: Home, dataset: str, asset: str, model: str | None) -> list[Publication]:
    """Versions of an asset that passed their checks, oldest first."""
    found = home.versions(dataset, asset, model=model)
    return [version for version in found if (version.verdict or {}).get("passed") is True]


def report_of(reports: Sequence[Publication], named: Publication) -> Publication | None:
    """Return the newest of some reports that is about a version; None where there is none."""
    return next((report for report in reversed(reports) if report.inputs.get(named.asset) == named.version), None)


def gates_of(home: Home, named: Publication) -> Publication | None:
    """Return the newest shortcut_gates about a version, green or red; None where it was never asked."""
    answered = [gates for gates in home.versions(named.dataset, GATES, model=named.model) if gates.verdict is not None]
    return report_of(answered, named)


def choose_champion(
    home: Home, dataset: str, model: str | None, version: str | None = None, *, despite: str | None = None
) -> Publication:
    """Make a version the champion; by default the candidate.

    Parameters
    ----------
    despite : str, optional
        Why it becomes champion although its shortcut gates are red or leave open what must be known; kept with the choice.

    Returns
    -------
    Publication
        The version.

    Raises
    ------
    StorageError
        If it isn't there, hasn't passed its checks, or no report of it has: what nobody evaluated is no champion; or, unless a
        reason is given, if a shortcut gate of it is red or leaves open what must be known (`promotion.why_gates_forbid`).
    """
    asset = asset_of(home, dataset, model)
    named = home.open(dataset, asset, model=model, version=version)
    if (named.verdict or {}).get("passed") is not True:
        raise StorageError(
            f"{asset} {named.version} has not passed its checks and can't be champion. "
            f"Choose another version, or materialize {asset} again."
        )
    report = report_of(green_versions(home, dataset, REPORT, model), named)
    if report is None:
        raise StorageError(
            f"{asset} {named.version} has no evaluation_report that passed its checks and can't be champion. "
            "Next: dagster asset materialize --select 'scores*' -m lens_pipeline.definitions -c PRESET"
        )
    gates, reason = gates_of(home, named), why_not_promoted(home, named)
    problem = None if reason is None else f"{asset} {named.version} can't be champion: {reason}. {_next_step(gates)}"
    if problem is not None and not despite:
        raise StorageError(
            f"{problem} Or say why it is champion all the same: lens_pipeline champion ... --despite REASON"
        )
    inputs = [named, report, *([gates] if gates is not None else [])]
    with home.stage(dataset, CHOICE, model=model, inputs=inputs) as staging:
        if problem is not None:
            staging.attributes.update(despite=despite, problem=problem)
        staging.attributes[EARLIER] = [] if gates is None else gates.attributes.get(EARLIER, [])
        staging.attributes["unanswered_gates"] = [] if gates is None else unanswered_gates(answers_of(gates))
        staging.write_json("champion.json", staging.inputs)
        choice = staging.commit()
    found = f"{asset} {named.version} was evaluated in evaluation_report {report.version}"
    told = (
        f"shortcut_gates {gates.version} doesn't forbid it"
        if gates is not None and problem is None
        else f"chosen despite: {problem}"
    )
    home.conclude(choice, [green("champion_was_evaluated", f"{found}; {told}")])
    return named


def why_not_promoted(home: Home, named: Publication) -> str | None:
    """Say what its shortcut gates, or that there are none, have against a version as champion; None where nothing."""
    gates = gates_of(home, named)
    return "it was never asked whether it learned a shortcut" if gates is None else why_gates_forbid(answers_of(gates))


def answers_of(gates: Publication) -> pl.DataFrame:
    """Name, kind and status of each question of shortcut_gates."""
    return pl.DataFrame(gates.read_table(columns=["name", "kind", "status"]))


def _next_step(gates: Publication | None) -> str:
    ask = "dagster asset materialize --select shortcut_gates -m lens_pipeline.definitions -c PRESET"
    if gates is None:
        return f"Next: {ask}"
    return (
        f"read_table('shortcut_gates', version='{gates.version}') says why; docs/shortcut-gates.md says what to do, and what "
        f"each question needs to be answered. Then: {ask}"
    )
