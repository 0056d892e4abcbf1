"""A home to publish into."""

from pathlib import Path

import pytest

from lens_pipeline.storage.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
