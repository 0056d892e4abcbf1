"""Classifiers trained by two real ranks, published, and opened."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from safetensors.numpy import save_file

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.scoring.config import ScoringConfig
from lens_pipeline.scoring.export import export
from lens_pipeline.scoring.model import Classifier, open_classifier
from lens_pipeline.scoring.run import score_store
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.run import collect
from lens_pipeline_tests.stamps.making import OTHER_SURVEY
from lens_pipeline_tests.training.making import CONTRACT, prepared, run_ranks, small_survey


@dataclass(frozen=True)
class Trained:
    """A published classifier with what it was made from."""

    home: Home
    store: Publication
    splits: Publication
    classifier: Publication
    _scores: list[Publication] = field(default_factory=list)

    def scored(self) -> Publication:
        """Scores of every row, made once: the process that makes them costs more than most tests."""
        if not self._scores:
            inputs = [self.classifier, self.store, self.splits]
            with self.home.stage("tried", "scores", inputs=inputs) as staging:
                score_store(ScoringConfig(), [self.classifier], self.store, self.splits, staging)
                self._scores.append(staging.commit())
        return self._scores[0]

    def opened(self) -> tuple[Classifier, StampStore]:
        return open_classifier(self.classifier), StampStore.open(self.store)


def _train(tmp_path_factory: pytest.TempPathFactory, name: str, contract: DatasetContract, n_galaxies: int) -> Trained:
    folder = tmp_path_factory.mktemp(name)
    home = Home(folder / "home")
    store, splits = small_survey(home, n_galaxies=n_galaxies, contract=contract)
    run = prepared(folder / "run", (store, splits), epochs=2, class_weighting="balanced", validation_batch_size=16)
    assert run_ranks(run) == [0, 0]
    with home.stage("tried", "lens_classifier", inputs=[store, splits]) as staging:
        collect(run.path, staging)
        return Trained(home, store, splits, staging.commit())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two classes, three bands, 16 pixels; both ranks validate, after a full step that made their batch statistics differ."""
    return _train(tmp_path_factory, "trained", CONTRACT, 96)


@dataclass(frozen=True)
class Folded:
    """A cross-validation of two folds, each a model by name, with what they were made from."""

    home: Home
    store: Publication
    splits: Publication
    folds: tuple[Publication, Publication]
    _scores: dict[tuple[str, bool], Publication] = field(default_factory=dict)

    def scored(self, model: str = "main.folds-2", *, tta: bool = False) -> Publication:
        """Publish scores of the mean, green; each model's once."""
        if (model, tta) not in self._scores:
            self._scores[model, tta] = self._score(model, tta)
        return self._scores[model, tta]

    def _score(self, model: str, tta: bool) -> Publication:
        config = ScoringConfig(members=[fold.model for fold in self.folds], tta=tta)
        inputs = [*self.folds, self.store, self.splits]
        with self.home.stage("tried", "scores", model=model, inputs=inputs) as staging:
            score_store(config, self.folds, self.store, self.splits, staging)
            made = staging.commit()
        self.home.conclude(made, [])
        return made


@pytest.fixture(scope="session")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    """Two classes, three bands, 16 pixels."""
    folder = tmp_path_factory.mktemp("folded")
    home = Home(folder / "home")
    store, splits = small_survey(home, n_galaxies=96)
    made = []
    for fold in range(2):
        run = prepared(folder / f"run-{fold}", (store, splits), epochs=2, folds=2, fold=fold, world_size=1)
        assert run_ranks(run, world=1) == [0]
        model = f"main.fold-{fold}-of-2"
        with home.stage("tried", "lens_classifier", model=model, inputs=[store, splits]) as staging:
            collect(run.path, staging)
            made.append(staging.commit())
    return Folded(home, store, splits, (made[0], made[1]))


@pytest.fixture(scope="session")
def trained_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Three classes, five bands, 48 pixels, another name for the key and the label."""
    return _train(tmp_path_factory, "elsewhere", OTHER_SURVEY, 64)


def republished(trained: Trained, tensors: dict[str, Any], about: object = None) -> Publication:
    """Publish the classifier with other tensors or another description."""
    with Home(trained.home.path / "changed").stage("tried", "lens_classifier") as staging:
        save_file(tensors, staging.folder / "model.safetensors")
        staging.write_json("model.json", about or trained.classifier.read_json("model.json"))
        return staging.commit()


def exported(trained: Trained, folder: str = "exported") -> Publication:
    """Publish the classifier's model together with the program that is made of it."""
    with Home(trained.home.path / folder).stage("tried", "lens_classifier") as staging:
        for name in ("model.json", "model.safetensors"):
            staging.adopt(trained.classifier, name, name)
        export(trained.store, staging)
        return staging.commit()
