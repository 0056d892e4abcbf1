"""Which version of a model is meant by candidate and champion: told by what is published, and by nothing else.

A version of a model is one of lens_classifier, or, of an ensemble, one of its scores, which names every member's version. The
candidate is the current version, the newest that passed its checks. The champion is the one that a person chose; the
choice is itself a publication (asset ``champion``), so that it is atomic, has a history, and works in a home at s3://.
"""

from collections.abc import Sequence
from enum import StrEnum

from lens_pipeline.contracts.checks import green
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication

CLASSIFIER, SCORES, REPORT, CHOICE = "lens_classifier", "scores", "evaluation_report", "champion"


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


def choose_champion(home: Home, dataset: str, model: str | None, version: str | None = None) -> Publication:
    """Make a version the champion; by default the candidate.

    Returns
    -------
    Publication
        The version.

    Raises
    ------
    StorageError
        If it isn't there, hasn't passed its checks, or no report of it has: what nobody evaluated is no champion.
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
    with home.stage(dataset, CHOICE, model=model, inputs=[named, report]) as staging:
        staging.write_json("champion.json", staging.inputs)
        choice = staging.commit()
    found = f"{asset} {named.version} was evaluated in evaluation_report {report.version}"
    home.conclude(choice, [green("champion_was_evaluated", found)])
    return named
