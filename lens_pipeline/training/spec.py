"""run.json: what a run trains, on which versions, with which settings. Written by the step, read by every rank."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.storage.atomic import write_atomically
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.code import code_sha256
from lens_pipeline.training.config import HANDLING, TrainingConfig
from lens_pipeline.training.sealed import seal, unseal

FORMAT = 4


@dataclass(frozen=True)
class RunSpec:
    """A run's specification.

    Attributes
    ----------
    config : TrainingConfig
        Every setting; the same object is logged and used.
    contract : DatasetContract
        What the stamps are.
    store, splits : str
        Folders of the published versions to read.
    store_version, splits_version : str
        Their versions, checked again by every rank.
    code_sha256 : str
        Hash of the code that trains (`lens_pipeline.training.code`).
    class_counts : tuple of int
        Training rows of each class; empty where they weren't counted yet.
    """

    config: TrainingConfig
    contract: DatasetContract
    store: str
    store_version: str
    splits: str
    splits_version: str
    code_sha256: str
    class_counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: TrainingConfig, store: Publication, splits: Publication) -> "RunSpec":
        """Specify a run of this code; its classes are not counted yet."""
        return cls(
            # A section that another layer mixed its own base into is reduced to what is written down and used.
            config=TrainingConfig.model_validate(config.model_dump(mode="json")),
            contract=DatasetContract.model_validate(store.attributes["dataset_contract"]),
            store=str(store.folder.absolute()),
            store_version=store.version,
            splits=str(splits.folder.absolute()),
            splits_version=splits.version,
            code_sha256=code_sha256(),
        )

    @property
    def name(self) -> str:
        """Name of the run's work folder; the number of ranks is in it, since it moves bits."""
        return hashlib.sha256(f"{self.sha256()}:{self.config.world_size}".encode()).hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """Return what makes this run this run: settings and versions, not the places they lie at, nor how many ranks.

        Another number of ranks goes on in the same order of rows; its sums round otherwise, so it isn't the same bits.
        """
        return {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json", exclude={"world_size", "pretrained", *HANDLING}),
            "contract": self.contract.sha256(),
            "store_version": self.store_version,
            "splits_version": self.splits_version,
            "code_sha256": self.code_sha256,
        }

    def differences(self, before: "RunSpec") -> list[str]:
        """Say what another run has otherwise: each setting or version, from its value to this run's."""
        then, now = before.identity(), self.identity()
        old, new = then.pop("config"), now.pop("config")
        changed = [f"{name} {old.get(name)} -> {value}" for name, value in new.items() if old.get(name) != value]
        return changed + [f"{name} {then[name]} -> {value}" for name, value in now.items() if then[name] != value]

    def sha256(self) -> str:
        """Hash of the identity."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Write run.json; a specification of another run that stands there already is refused.

        Raises
        ------
        TrainingError
            Naming what differs.
        """
        if path.exists() and (changed := self.differences(RunSpec.read(path))):
            raise TrainingError(
                f"{path.parent} holds another run, and it can't be resumed as this one: {'; '.join(changed)}. "
                "Give this run a folder of its own."
            )
        content = {"format": FORMAT, **asdict(self)}
        content["config"] = self.config.model_dump(mode="json")
        content["contract"] = self.contract.model_dump(mode="json")
        write_atomically(path, seal(content))

    @classmethod
    def read(cls, path: Path) -> "RunSpec":
        """Read run.json.

        Raises
        ------
        TrainingError
            If it isn't there, is damaged, or was changed by hand.
        """
        try:
            loaded = unseal(path.read_bytes(), format=FORMAT)
            del loaded["format"]
            if set(loaded) != {field.name for field in fields(cls)}:
                raise ValueError(f"it has the fields {sorted(loaded)}")
            loaded["config"] = TrainingConfig.model_validate(loaded["config"])
            loaded["contract"] = DatasetContract.model_validate(loaded["contract"])
            loaded["class_counts"] = tuple(loaded["class_counts"])
            spec = cls(**loaded)
        except FileNotFoundError as error:
            raise TrainingError(f"there is no run specification {path}. Next: materialize lens_classifier.") from error
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{path} is not a run specification that can be used: {error}. Remove its folder and materialize "
                "lens_classifier again."
            ) from error
        return spec

    def open_inputs(self) -> tuple[Publication, Publication]:
        """Open store and splits, and refuse other versions than the run was made for."""
        store, splits = Publication.open(Path(self.store)), Publication.open(Path(self.splits))
        for publication, wanted in ((store, self.store_version), (splits, self.splits_version)):
            if publication.version != wanted:
                raise TrainingError(
                    f"{publication.folder} holds version {publication.version}, this run is about {wanted}. "
                    "Materialize lens_classifier again."
                )
        return store, splits
