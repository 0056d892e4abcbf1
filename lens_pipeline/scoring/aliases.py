"""Which version of lens_classifier is meant by candidate and champion: told by what is published, and by nothing else.

The candidate is the current version, the newest that passed its checks. The champion is the one that a person chose; the
choice is itself a publication (asset ``champion``), so that it is atomic, has a history, and works in a home at s3://.
"""

from collections.abc import Sequence
from enum import StrEnum

from lens_pipeline.contracts.checks import green
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

CLASSIFIER, REPORT, CHOICE = "lens_classifier", "evaluation_report", "champion"


class Alias(StrEnum):
    """A name that another version may bear tomorrow."""

    candidate = "candidate"
    champion = "champion"


def open_alias(home: Home, dataset: str, model: str | None, alias: Alias) -> Publication:
    """Open the version that bears an alias.

    Raises
    ------
    StorageError
        If nothing was published, or no champion was chosen.
    """
    if alias is Alias.candidate:
        return home.open(dataset, CLASSIFIER, model=model)
    chosen = champion_version(home, dataset, model)
    if chosen is None:
        raise StorageError(
            f"no champion was chosen among the lens_classifiers of dataset {dataset!r}. "
            f"Next: lens_pipeline champion --dataset {dataset}, or take the candidate."
        )
    return home.open(dataset, CLASSIFIER, model=model, version=chosen)


def champion_version(home: Home, dataset: str, model: str | None) -> str | None:
    """Version of the champion; None where none was chosen."""
    if not home.has_current(dataset, CHOICE, model=model):
        return None
    return home.open(dataset, CHOICE, model=model).inputs[CLASSIFIER]


def green_versions(home: Home, dataset: str, asset: str, model: str | None) -> list[Publication]:
    """Versions of an asset that passed their checks, oldest first."""
    found = home.versions(dataset, asset, model=model)
    return [version for version in found if (version.verdict or {}).get("passed") is True]


def report_of(reports: Sequence[Publication], classifier: Publication) -> Publication | None:
    """Return the newest of some reports that is about a version; None where there is none."""
    return next((report for report in reversed(reports) if report.inputs[CLASSIFIER] == classifier.version), None)


def choose_champion(home: Home, dataset: str, model: str | None, version: str | None = None) -> Publication:
    """Make a version the champion; by default the candidate.

    Returns
    -------
    Publication
        The version of lens_classifier.

    Raises
    ------
    StorageError
        If it isn't there, hasn't passed its checks, or no report of it has: what nobody evaluated is no champion.
    """
    classifier = home.open(dataset, CLASSIFIER, model=model, version=version)
    if (classifier.verdict or {}).get("passed") is not True:
        raise StorageError(
            f"lens_classifier {classifier.version} has not passed its checks and can't be champion. "
            "Choose another version, or materialize lens_classifier again."
        )
    report = report_of(green_versions(home, dataset, REPORT, model), classifier)
    if report is None:
        raise StorageError(
            f"lens_classifier {classifier.version} has no evaluation_report that passed its checks and can't be champion. "
            "Next: dagster asset materialize --select 'scores*' -m lens_pipeline.definitions -c PRESET"
        )
    with home.stage(dataset, CHOICE, model=model, inputs=[classifier, report]) as staging:
        staging.write_json("champion.json", staging.inputs)
        choice = staging.commit()
    found = f"lens_classifier {classifier.version} was evaluated in evaluation_report {report.version}"
    home.conclude(choice, [green("champion_was_evaluated", found)])
    return classifier
