"""``lens_pipeline registry``, ``champion`` and ``card``: which versions of a model there are, and what they are."""

from lens_pipeline.cli.predict import Which
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.defs.registry import Registered, register, registered_name, tracking_of
from lens_pipeline.evaluation.wording import count
from lens_pipeline.scoring.aliases import (
    CHOICE,
    REPORT,
    Alias,
    asset_of,
    champion_version,
    choose_champion,
    green_versions,
    open_alias,
    report_of,
)
from lens_pipeline.scoring.card import as_json, describe_model
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.storage.home import Home


def list_versions(which: Which) -> int:
    """Bring MLflow's registry to what is published, and list every green version with its aliases and number there."""
    home, (dataset, model) = Home.from_environment(), which.dataset_and_model()
    candidate = open_alias(home, dataset, model, Alias.candidate).version
    bearers = {Alias.candidate: candidate, Alias.champion: champion_version(home, dataset, model)}
    reports = green_versions(home, dataset, REPORT, model)
    found = _tell(which, home)
    print(f"{'version':<18}{'report':<18}{'MLflow':<10}alias")
    for named in green_versions(home, dataset, asset_of(home, dataset, model), model):
        report = report_of(reports, named)
        aliases = ", ".join(alias for alias, version in bearers.items() if version == named.version)
        number = found.numbers.get(named.version, "-") if found else "?"
        print(f"{named.version:<18}{report.version if report else '-':<18}{number:<10}{aliases}".rstrip())
    return 0


def choose(which: Which, *, despite: str | None = None) -> int:
    """Make a version the champion, and tell MLflow; `despite` says why although shortcut gates forbid it."""
    home, (dataset, model) = Home.from_environment(), which.dataset_and_model()
    named = choose_champion(home, dataset, model, which.version, despite=despite)
    print(f"{named.asset} {named.version} of {dataset} is the champion.")
    if unanswered := home.open(dataset, CHOICE, model=model).attributes["unanswered_gates"]:
        print(f"{len(unanswered)} of its shortcut gates were not answered, for or against: {first_few(unanswered)}")
    _tell(which, home)
    return 0


def show_card(which: Which, *, is_json: bool) -> int:
    """Print the model card of a version."""
    home, named = Home.from_environment(), which.open()
    reports = green_versions(home, named.dataset, REPORT, named.model)
    card = describe_model(home, named, report_of(reports, named))
    print(as_json(card).decode() if is_json else as_markdown(card))
    return 0


def _tell(which: Which, home: Home) -> Registered | None:
    """Tell MLflow; one that can't be reached is said, and fails nothing."""
    tracking, (dataset, model) = tracking_of(which.settings()), which.dataset_and_model()
    name = registered_name(dataset, model)
    try:
        found = register(home, tracking, dataset, model)
    except Exception as error:  # What is published stands, whatever a server or its client throws.
        print(f"MLflow at {tracking.tracking_uri} was not told: {error}")
        return None
    versions = count(len(found.numbers), "version")
    print(f"MLflow: {name} has {versions}, {found.new:,} of them new; models:/{name}@candidate")
    if found.without_program:
        print(f"  {len(found.without_program):,} hold no model.pt2 and can't be registered")
    return found
