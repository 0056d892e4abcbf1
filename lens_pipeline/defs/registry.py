"""MLflow's model registry: every green lens_classifier as a registered version that loads without this package.

Of an ensemble every green version of its scores is one, which names its members' registered versions. What stands there follows
from what is published, and from nothing else: telling it again changes nothing, and a server that was down is told all of it the
next time. Nothing here imports torch: the program is one of the version's own files.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lens_pipeline.defs.registered_files import lay_out_program, name_members, write_card
from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.tracking import EXPERIMENT, Tracking
from lens_pipeline.scoring.aliases import (
    CLASSIFIER,
    REPORT,
    Alias,
    asset_of,
    champion_version,
    gates_of,
    green_versions,
    is_ensemble,
    report_of,
)
from lens_pipeline.scoring.card import describe_model
from lens_pipeline.scoring.card_text import as_markdown
from lens_pipeline.scoring.export import PROGRAM
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_REPORT_TAG, _GATES_TAG, _MODEL_TAG = (
    *("lens_pipeline.evaluation_report", "lens_pipeline.shortcut_gates"),
    "lens_pipeline.logged_model",
)
_URI = "MLFLOW_TRACKING_URI"
# Longest description that a registry in any database takes.
_DESCRIPTION = 5000


@dataclass(frozen=True)
class Registered:
    """What the registry holds of one dataset and model.

    Attributes
    ----------
    name : str
        Of the registered model.
    numbers : dict
        Version of the model to MLflow's number of it.
    new : int
        How many were registered now.
    aliases : dict
        Alias to version of the model.
    without_program : list of str
        Green versions that hold no program, which can't be registered.
    """

    name: str
    numbers: dict[str, str]
    new: int
    aliases: dict[str, str]
    without_program: list[str]

    def words(self, version: str) -> str:
        """Say what one version is called there."""
        if version not in self.numbers:
            return f"not registered: the version holds no {PROGRAM}"
        aliases = [alias for alias, bearer in self.aliases.items() if bearer == version]
        return f"{self.name}, version {self.numbers[version]}" + (f" ({', '.join(aliases)})" if aliases else "")


def tracking_of(preset: RunConfig) -> Tracking:
    """Return the tracking that runs of a preset use, an empty one's the default's, for commands outside Dagster."""
    tracking = Tracking(**{"uri": "", "experiment": EXPERIMENT} | resource_settings(preset, "tracking"))
    tracking.setup_for_execution(dg.build_init_resource_context())
    return tracking


def registered_name(dataset: str, model: str) -> str:
    """Return the name of the registered model: ``models:/NAME@champion`` is what MLflow loads."""
    return f"{CLASSIFIER}.{dataset}.{model}"


def describe(
    home: Home, tracking: Tracking, named: Publication, report: Publication | None = None
) -> dict[str, dg.MetadataValue[Any]]:
    """Register a version that is about to become current, or one that a new report is about; return what Dagster shows.

    MLflow that can't be reached fails nothing; `lens_pipeline registry` tells it later.

    Parameters
    ----------
    named : Publication
        A lens_classifier, or the scores of an ensemble.
    """
    card = describe_model(home, named, report)
    try:
        found = register(home, tracking, named.dataset, named.model, becoming=[named, report])
        words = found.words(named.version)
    except Exception as error:  # Whatever a server or its client throws must not cost a model that was trained.
        words = f"not told: {_first_line(error)}. Next: lens_pipeline registry --dataset {named.dataset}"
        words += "" if named.model == DEFAULT_MODEL else f" --model {named.model}"
    return {"model_card": dg.MetadataValue.md(as_markdown(card)), "registry": dg.MetadataValue.text(words)}


def register(
    home: Home, tracking: Tracking, dataset: str, model: str, *, becoming: Sequence[Publication | None] = ()
) -> Registered:
    """Bring MLflow's registry to what is published: versions that it lacks, cards, aliases.

    Parameters
    ----------
    becoming : sequence of Publication or None
        Versions whose checks are green and that become current next.

    Raises
    ------
    mlflow.exceptions.MlflowException, OSError
        If the server can't be reached.
    """
    from mlflow.tracking import MlflowClient

    asset = asset_of(home, dataset, model)
    versions, reports = (_green(home, dataset, model, one, becoming) for one in (asset, REPORT))
    name = registered_name(dataset, model)
    with _default_server(tracking.tracking_uri):
        client = MlflowClient(tracking.tracking_uri)
        _make(client, name)
        there = _versions(client, name, asset)
        able = [one for one in versions if is_ensemble(one) or PROGRAM in one.manifest.files]
        new = 0
        for named in able:
            report = report_of(reports, named)
            if named.version not in there:
                there[named.version] = _add(client, tracking.experiment, name, home, named, report)
                new += 1
            elif any(there[named.version].tags.get(tag, "") != of for tag, of in _card_of(home, named, report).items()):
                _refresh(client, name, there[named.version], home, named, report)
        numbers = {version: str(found.version) for version, found in there.items()}
        aliases = _set_aliases(client, name, numbers, _bearers(home, dataset, model, becoming))
    without = [one.version for one in versions if one not in able]
    return Registered(name, numbers, new, aliases, without)


def _green(
    home: Home, dataset: str, model: str, asset: str, becoming: Sequence[Publication | None]
) -> list[Publication]:
    found = {version.version: version for version in green_versions(home, dataset, asset, model)}
    for version in becoming:
        if version is not None and version.asset == asset:
            found.pop(version.version, None)
            found[version.version] = version
    return list(found.values())


def _bearers(home: Home, dataset: str, model: str, becoming: Sequence[Publication | None]) -> dict[str, str]:
    """Alias to version of the model, of the aliases that are borne."""
    found, asset = {}, asset_of(home, dataset, model)
    if home.has_current(dataset, asset, model=model):
        found[Alias.candidate.value] = home.open(dataset, asset, model=model).version
    # A report that becomes current is about a classifier that may have been replaced since: only a classifier alone moves it.
    if [version.asset for version in becoming if version is not None] == [CLASSIFIER]:
        found[Alias.candidate.value] = next(version.version for version in becoming if version is not None)
    champion = champion_version(home, dataset, model)
    return found | ({Alias.champion.value: champion} if champion else {})


def _make(client: "MlflowClient", name: str) -> None:
    """Make the registered model if it isn't there."""
    from mlflow.exceptions import MlflowException

    if not client.search_registered_models(f"name = '{name}'"):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            # Another step was first.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _versions(client: "MlflowClient", name: str, asset: str) -> dict[str, Any]:
    """Version of the model to what MLflow holds of it."""
    found: dict[str, Any] = {}
    token, tag = None, _version_tag(asset)
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found |= {version.tags[tag]: version for version in page if tag in version.tags}
        token = page.token
        if not token:
            return found


def _version_tag(asset: str) -> str:
    return f"lens_pipeline.{asset}"


def _add(
    client: "MlflowClient",
    experiment: str,
    name: str,
    home: Home,
    named: Publication,
    report: Publication | None,
) -> Any:
    experiment_id, tag = _experiment(client, experiment), _version_tag(named.asset)
    runs = client.search_runs([experiment_id], f"tags.`{tag}` = '{named.version}'", max_results=1)
    run_id = runs[0].info.run_id if runs else None
    logged = client.create_logged_model(experiment_id, name=CLASSIFIER, source_run_id=run_id, tags={tag: named.version})
    card = describe_model(home, named, report)
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-registry-") as folder:
        if is_ensemble(named):
            name_members(Path(folder), named, lambda member: _uri_of(client, named.dataset, member))
        else:
            lay_out_program(Path(folder), logged.model_id, named)
        write_card(Path(folder), card)
        client.log_model_artifacts(logged.model_id, folder)
    client.finalize_logged_model(logged.model_id, "READY")
    return client.create_model_version(
        name,
        source=f"models:/{logged.model_id}",
        run_id=run_id,
        model_id=logged.model_id,
        description=as_markdown(card)[:_DESCRIPTION],
        tags={
            tag: named.version,
            **_card_of(home, named, report),
            _MODEL_TAG: logged.model_id,
        },
    )


def _uri_of(client: "MlflowClient", dataset: str, member: dict[str, str]) -> str | None:
    """Address of a member's registered version; None where it isn't registered."""
    name = registered_name(dataset, member["model"])
    there = _versions(client, name, CLASSIFIER).get(member["version"])
    return f"models:/{name}/{there.version}" if there is not None else None


def _refresh(
    client: "MlflowClient",
    name: str,
    there: Any,
    home: Home,
    named: Publication,
    report: Publication | None,
) -> None:
    """Replace the card of a version that another report or other gates are about now."""
    card = describe_model(home, named, report)
    with tempfile.TemporaryDirectory(prefix="lens_pipeline-registry-") as folder:
        write_card(Path(folder), card)
        client.log_model_artifacts(there.tags[_MODEL_TAG], folder)
    client.update_model_version(name, str(there.version), as_markdown(card)[:_DESCRIPTION])
    for tag, of in _card_of(home, named, report).items():
        client.set_model_version_tag(name, str(there.version), tag, of)


def _card_of(home: Home, named: Publication, report: Publication | None) -> dict[str, str]:
    """Tag to version of what a card tells of beside the model."""
    gates = gates_of(home, named)
    return {_REPORT_TAG: report.version if report else "", _GATES_TAG: gates.version if gates else ""}


def _set_aliases(client: "MlflowClient", name: str, numbers: dict[str, str], bearers: dict[str, str]) -> dict[str, str]:
    """Set aliases that stand elsewhere, and take away those that nobody bears; return alias to version of the model."""
    now = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
    borne = {alias: version for alias, version in bearers.items() if version in numbers}
    for alias in Alias:
        wanted = numbers.get(borne.get(alias.value, ""))
        if wanted is None and alias.value in now:
            client.delete_registered_model_alias(name, alias.value)
        elif wanted is not None and now.get(alias.value) != wanted:
            client.set_registered_model_alias(name, alias.value, wanted)
    return borne


def _experiment(client: "MlflowClient", name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # A server keeps files where it likes; beside a database of ours they lie in the home.
    is_ours = client.tracking_uri.startswith("sqlite")
    location = (Home.from_environment().path / "mlflow_artifacts").as_uri() if is_ours else None
    return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def _default_server(uri: str) -> Iterator[None]:
    """Make a server the process's default for a while: a registry in a database asks that one for a logged model."""
    import mlflow

    before = os.environ.get(_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is not None:
            os.environ[_URI] = before


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:300]
