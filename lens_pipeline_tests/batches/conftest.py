"""A small store with a known signal in it."""

from pathlib import Path

import pytest

from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.training.making import small_survey


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> StampStore:
    published, _ = small_survey(Home(Path(tmp_path_factory.mktemp("batches"))), n_galaxies=60)
    return StampStore.open(published)
