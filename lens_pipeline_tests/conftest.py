"""What all tests share: every test publishes into its own home, and real data are found or the test says why not."""

import os
from collections import Counter
from pathlib import Path

import pytest

from lens_pipeline_tests.s3_servers import moto_s3, moto_server, swift_s3, swift_server

__all__ = ["moto_s3", "moto_server", "swift_s3", "swift_server"]

ROOT = Path(__file__).parent.parent
# Minutes in one worker. Begun among the last, one of these would run on while the other worker has nothing left.
_BEGUN_FIRST = (
    "test_end_to_end.py",
    "test_remote_chain.py",
    "test_other_surveys.py",
    "test_tracking_server.py",
    "test_launcher_kills.py",
    "test_reproducible.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first and those of few tests last; `--no-loadscope-reorder` has workers take them in this order."""
    n_tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in _BEGUN_FIRST, -n_tests[item.path]))


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("LENS_PIPELINE_LOCAL", raising=False)
    monkeypatch.delenv("LENS_PIPELINE_PRESET", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real sky pixels; without it the test is skipped, saying where it was looked for."""
    folder = Path(os.environ.get("LENS_PIPELINE_REAL_DATA") or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set LENS_PIPELINE_REAL_DATA")
    return folder
