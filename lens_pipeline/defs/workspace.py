"""The resource that says where assets publish and read, and that refuses a bad configuration before the first step."""

from typing import Any

import dagster as dg
from pydantic import Field

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.defs.sections import validate_run_config
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging


class Workspace(dg.ConfigurableResource):
    """Home, dataset and model that a run works on."""

    dataset: str = Field(
        "simulated", description="name of the dataset; another source or another split needs another name"
    )
    model: str = Field(
        DEFAULT_MODEL, description="name of the model; another name keeps another model beside the first"
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Validate every section of the run's configuration before any step starts."""
        if context.run is not None:
            validate_run_config(context.run.run_config)

    @property
    def home(self) -> Home:
        """Home named by the environment."""
        return Home.from_environment()

    def open(self, asset: str) -> Publication:
        """Open the current version of an asset."""
        return self.home.open(self.dataset, asset, model=self.model)

    def open_if_there(self, asset: str) -> Publication | None:
        """Open the current version of an asset, or None if it was never published."""
        if not self.home.has_current(self.dataset, asset, model=self.model):
            return None
        return self.open(asset)

    def open_version(self, asset: str, version: str) -> Publication:
        """Open one version of an asset."""
        return self.home.open(self.dataset, asset, model=self.model, version=version)

    def open_made_from(self, asset: str, source: str, version: str) -> Publication:
        """Open the current version of an asset, refusing one that was made from another version of its source.

        Raises
        ------
        StorageError
            Naming both versions and the command that mends it.
        """
        publication = self.open(asset)
        found = publication.inputs.get(source)
        if found != version:
            raise StorageError(
                f"the current {asset} ({publication.version}) was made from {source} {found}, but the current {source} is "
                f"{version}: they don't belong together. "
                f"Next: dagster asset materialize --select '{source}*' -m lens_pipeline.definitions -c PRESET"
            )
        return publication

    def newest_about(self, asset: str, *sources: Publication) -> Publication | None:
        """Open the newest version of an asset, green or red, that was made from these versions of others; else None."""
        versions = self.home.versions(self.dataset, asset, model=self.model)
        made = (one for one in reversed(versions) if all(one.version_read(read) == read.version for read in sources))
        return next(made, None)

    def of_model(self, model: str) -> "Workspace":
        """Return the same workspace for another model: what belongs to no model is the same."""
        return Workspace(dataset=self.dataset, model=model)

    def open_scored(self, scores: Publication) -> list[Publication]:
        """Open the classifiers that made some scores: the model's own, or the members of the ensemble."""
        if members := scores.attributes.get("members"):
            return [self.of_model(m["model"]).open_version("lens_classifier", m["version"]) for m in members]
        return [self.open_version("lens_classifier", scores.inputs["lens_classifier"])]

    def stage(self, asset: str, inputs: list[Publication], provenance: dict[str, Any]) -> Staging:
        """Start writing a new version of an asset."""
        return self.home.stage(self.dataset, asset, model=self.model, inputs=inputs, provenance=provenance)
