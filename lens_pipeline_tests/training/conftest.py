"""One small survey, and runs on it that several tests look at."""

from pathlib import Path

import pytest

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.folder import RunFolder
from lens_pipeline_tests.training.making import prepared, publish_splits, run_ranks, small_survey

Survey = tuple[Publication, Publication]


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """A lens and a control of each of 116 galaxies: 116 training rows, so that the last step of an epoch is short."""
    return small_survey(Home(tmp_path_factory.mktemp("survey")), n_galaxies=116)


@pytest.fixture(scope="session")
def larger_survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """The same with stamps that a model without batch normalisation takes."""
    return small_survey(
        Home(tmp_path_factory.mktemp("larger")), n_galaxies=116, contract=DatasetContract(stamp_size=32)
    )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, survey: Survey) -> RunFolder:
    """A run of two ranks that nobody disturbed."""
    folder = prepared(tmp_path_factory.mktemp("runs") / "finished", survey)
    assert run_ranks(folder) == [0, 0]
    return folder


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="session")
def uneven_survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    """Fewer controls than lenses to train on, and lenses of two strata, one of them rare."""
    home = Home(tmp_path_factory.mktemp("uneven"))
    store, _ = small_survey(home, n_galaxies=116, theta_e_of=lambda galaxy: 2.0 if galaxy % 6 == 0 else 1.1)

    def split_of(row: int) -> str:
        if row % 2 and row % 3 == 0:
            return "test"
        return "train" if row < 150 else "val_select"

    return store, publish_splits(home, store, split_of_row=split_of)
