"""Where everything is published: HOME/dataset/asset/model/version, and which version is current.

HOME is a folder, or an s3:// address with a local folder that holds the same tree: there versions are staged and read, and
unfinished work stays.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.errors import StorageError, first_few
from lens_pipeline.storage.atomic import disk_errors, fsync_folder, locked, safe_name, write_atomically
from lens_pipeline.storage.manifest import MANIFEST_NAME
from lens_pipeline.storage.publication import SHARED, VERDICT_NAME, Publication
from lens_pipeline.storage.remote import Remote, refuse_copies
from lens_pipeline.storage.remote_log import current_version
from lens_pipeline.storage.s3_address import is_address, refuse_as_folder
from lens_pipeline.storage.staging import Staging

DEFAULT_MODEL = "default"
MODEL_ASSETS = frozenset(
    {
        "lens_classifier",
        "scores",
        "operating_point",
        "completeness",
        "evaluation_report",
        "champion",
        "sweep",
        "doctor",
        "real_lens_recovery",
    }
)
_CURRENT = "current.json"
_ENVIRONMENT = "LENS_PIPELINE_HOME"
_LOCAL = "LENS_PIPELINE_LOCAL"
_DEFAULT = ".lens_pipeline"


@dataclass(frozen=True)
class Home:
    """The folder that every version of every asset is published under.

    Attributes
    ----------
    remote : Remote or None
        What the folder is a copy of; it alone says what is published and what is current.
    """

    path: Path
    remote: Remote | None = None

    @classmethod
    def from_environment(cls) -> "Home":
        """Home named by LENS_PIPELINE_HOME, else ``.lens_pipeline`` in the working folder.

        For an s3:// address LENS_PIPELINE_LOCAL names the local folder, else it is ``.lens_pipeline``.

        Raises
        ------
        ConfigError
            If the address or its credentials aren't sound, or the folder belongs to another home.
        """
        named = os.environ.get(_ENVIRONMENT) or _DEFAULT
        if is_address(named):
            folder = os.environ.get(_LOCAL) or _DEFAULT
            refuse_as_folder(folder, _LOCAL)
            local = Path(folder).absolute()
            return cls(local, Remote.open(named, local))
        refuse_as_folder(named, _ENVIRONMENT, or_address=True)
        path = Path(named).absolute()
        refuse_copies(path)
        return cls(path)

    def __str__(self) -> str:
        return str(self.path if self.remote is None else self.remote.root)

    def shelf(self, dataset: str, asset: str, model: str | None = None) -> Path:
        """Folder that an asset's versions stand in; it may not exist yet."""
        model = (model or DEFAULT_MODEL) if asset in MODEL_ASSETS else SHARED
        return (
            self.path
            / safe_name(dataset, what="the name of a dataset")
            / safe_name(asset, what="the name of an asset")
            / safe_name(model, what="the name of a model")
        )

    def stage(
        self,
        dataset: str,
        asset: str,
        *,
        model: str | None = None,
        inputs: Sequence[Publication] = (),
        provenance: dict[str, Any] | None = None,
    ) -> Staging:
        """Start writing a new version."""
        shelf = self.shelf(dataset, asset, model)
        return Staging(
            shelf,
            dataset=dataset,
            asset=asset,
            model=shelf.name,
            inputs=list(inputs),
            provenance=provenance,
            remote=self.remote,
        )

    def open(self, dataset: str, asset: str, *, model: str | None = None, version: str | None = None) -> Publication:
        """Open a version, by default the current one.

        Raises
        ------
        StorageError
            If nothing was published, or the version isn't there or is damaged.
        """
        shelf = self.shelf(dataset, asset, model)
        if version is None:
            version = self._current(shelf, dataset, asset)
        folder = shelf / safe_name(version, what="a version")
        there = folder.is_dir() if self.remote is None else self.remote.bring_manifest(folder)
        if not there:
            have = [path.name for path in self._versions(shelf)]
            where = shelf if self.remote is None else self.remote.address(shelf)
            raise StorageError(
                f"{asset} of {dataset!r} has no version {version!r}; it has {first_few(have) or 'none'} in {where}."
            )
        return self.open_folder(folder)

    def open_folder(self, folder: Path) -> Publication:
        """Open the version whose folder this is, refusing one that stands under another's name.

        Raises
        ------
        StorageError
            If it isn't there or is damaged.
        """
        if self.remote is not None:
            self.remote.bring_manifest(folder)
        publication = Publication.open(folder, self.remote)
        if publication.version != folder.name:
            raise StorageError(f"{folder} holds version {publication.version}: it was moved by hand. Move it back.")
        return publication

    def folders(self, dataset: str | None = None, *, local: bool = True) -> list[Path]:
        """Folders of every version, of every dataset or of one.

        Parameters
        ----------
        local : bool
            False for every version at the s3:// address; else those of which something stands on this machine.
        """
        if self.remote is not None and not local:
            found = self.remote.folders()
        else:
            found = [path.parent for path in self.path.glob(f"*/*/*/[!.]*/{MANIFEST_NAME}")]
        return sorted(folder for folder in found if dataset in (None, folder.relative_to(self.path).parts[0]))

    def has_current(self, dataset: str, asset: str, *, model: str | None = None) -> bool:
        """Whether a green version was ever published."""
        shelf = self.shelf(dataset, asset, model)
        if self.remote is not None:
            return current_version(self.remote.log.events(self.remote.shelf(shelf))) is not None
        return (shelf / _CURRENT).exists()

    def versions(self, dataset: str, asset: str, *, model: str | None = None) -> list[Publication]:
        """Every committed version, green or red, oldest first."""
        folders = self._versions(self.shelf(dataset, asset, model))
        if self.remote is not None:
            there = [folder for folder in folders if self.remote.bring_manifest(folder)]
            return [Publication.open(folder, self.remote) for folder in there]
        return [Publication.open(folder) for folder in sorted(folders, key=lambda path: path.stat().st_mtime_ns)]

    def datasets_with(self, asset: str, version: str | None = None) -> list[str]:
        """Names of the datasets that have a current version of an asset, or that have the version asked for."""
        if version is None:
            shelves = self._current_shelves()
        elif self.remote is not None:
            # Not from the log: a version may stand without a verdict.
            shelves = [path.relative_to(self.path).parts for path in self.remote.folders() if path.name == version]
        else:
            found = self.path.glob(f"*/*/*/{safe_name(version, what='a version')}")
            shelves = [path.relative_to(self.path).parts for path in found]
        return sorted({shelf[0] for shelf in shelves if shelf[1] == asset})

    def assets(self) -> list[str]:
        """Names of the assets that have a current version in any dataset."""
        return sorted({shelf[1] for shelf in self._current_shelves()})

    def conclude(self, publication: Publication, checks: Sequence[Check]) -> bool:
        """Record a committed version's checks, and make it the current one if all that block are green.

        Returns
        -------
        bool
            Whether it is now current. A red version stays readable by its id; if the same content was current, having
            passed under other settings, it is so no more, and readers are refused until a green version comes.

        Raises
        ------
        StorageError
            If the disk refuses. What was current stands, or the version is current, whole; concluding again mends it.
        """
        passed = all(check.passed or not check.blocking for check in checks)
        verdict = {"passed": passed, "checks": [asdict(check) for check in checks]}
        shelf = publication.folder.parent
        if self.remote is not None:
            self.remote.log.append(self.remote.shelf(shelf), publication.version, verdict)
            return passed
        content = json.dumps(verdict, indent=1, sort_keys=True, default=str).encode()
        stands = f"It is committed as {publication.version}, and what readers get is whole, that version or the one before it."
        with disk_errors(f"the verdict on {publication.asset}", shelf, stands=stands), locked(shelf):
            # In this order a crash in between leaves nothing current that isn't green.
            if not passed and self._is_current(publication):
                (shelf / _CURRENT).unlink()
                fsync_folder(shelf)
            write_atomically(publication.folder / VERDICT_NAME, content)
            if passed:
                write_atomically(shelf / _CURRENT, json.dumps({"version": publication.version}).encode())
        return passed

    @staticmethod
    def _is_current(publication: Publication) -> bool:
        path = publication.folder.parent / _CURRENT
        return path.exists() and json.loads(path.read_bytes()).get("version") == publication.version

    def work_folder(self, dataset: str, asset: str, name: str, *, model: str | None = None) -> Path:
        """Make and return a folder for unfinished work that later runs may resume; readers never look there."""
        folder = self.shelf(dataset, asset, model) / ".work" / safe_name(name, what="the name of a work folder")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _current(self, shelf: Path, dataset: str, asset: str) -> str:
        if self.remote is not None:
            version = current_version(self.remote.log.events(self.remote.shelf(shelf)))
            if version is None:
                raise self._never_published(shelf, dataset, asset)
            return version
        path = shelf / _CURRENT
        try:
            return str(json.loads(path.read_bytes())["version"])
        except FileNotFoundError as error:
            raise self._never_published(shelf, dataset, asset) from error
        except (ValueError, KeyError) as error:
            raise StorageError(
                f"{path} is damaged: {error}. The versions beside it are untouched: read one by its id, or materialize {asset}."
            ) from error

    def _current_shelves(self) -> list[tuple[str, ...]]:
        """Dataset, asset and model of whatever has a current version."""
        if self.remote is not None:
            return [shelf for shelf, events in self.remote.log.all_events().items() if current_version(events)]
        return [path.parts[-4:-1] for path in self.path.glob(f"*/*/*/{_CURRENT}")]

    def _never_published(self, shelf: Path, dataset: str, asset: str) -> StorageError:
        red = [folder.name for folder in self._versions(shelf)]
        why = f" Versions that did not pass their checks: {first_few(red)}." if red else ""
        named = "" if shelf.name == SHARED else f", model {shelf.name!r},"
        models = sorted(model for *of, model in self._current_shelves() if named and of == [dataset, asset])
        known = f"model: {first_few(models)}" if models else first_few(self.datasets_with(asset))
        there = f" It was published for {known}." if known else ""
        return StorageError(
            f"{asset} of dataset {dataset!r}{named} was never published in {self}.{why}{there} "
            f"Next: dagster asset materialize --select {asset} -m lens_pipeline.definitions -c PRESET"
        )

    def _versions(self, shelf: Path) -> list[Path]:
        if self.remote is not None:
            return [shelf / version for version in self.remote.versions(shelf)]
        if not shelf.is_dir():
            return []
        return [path for path in shelf.iterdir() if path.is_dir() and not path.name.startswith(".")]
