"""What stands beside a version on a page was made from that very version."""

from pathlib import Path

import pytest

from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication


def test_what_was_said_of_older_thresholds_is_not_about_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LENS_PIPELINE_HOME", str(tmp_path))
    workspace = Workspace(dataset="tried")

    def published(asset: str, *inputs: Publication, says: str = "") -> Publication:
        with workspace.stage(asset, list(inputs), {}) as staging:
            staging.attributes["says"] = says
            return staging.commit()

    scores = published("scores")
    old, new = (published("operating_point", scores, says=says) for says in ("old", "new"))
    recovery = published("real_lens_recovery", scores, old)
    assert workspace.newest_about("real_lens_recovery", scores, old) == recovery
    assert workspace.newest_about("real_lens_recovery", scores, new) is None
    later = published("real_lens_recovery", scores, old, says="later")
    assert workspace.newest_about("real_lens_recovery", scores, old) == later
    assert workspace.newest_about("real_lens_recovery", scores) == later
