"""What is published while things break: each scenario prepares a home, publishes into it, and says what a reader may see.

Belongs here: the work that is disturbed, and a reader's view of it. Used by every subject that disturbs publishing.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import synthetic
from lens_pipeline.contracts.catalogue import SCORES
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.ingest import build_store
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import MANIFEST_NAME, Publication

DATASET = "bench"  # As the synthetic stamps name theirs.
NOTHING = "nothing is current"
_STORE = StoreConfig.model_validate({"workers": 1, "segment_bytes": 1 << 20})
GREEN = [green("sound", "fine")]
RED = [red("sound", "broken", wrong=["a"], why="a test", next_step="mend")]


@dataclass(frozen=True)
class Scenario:
    """Something that publishes.

    Attributes
    ----------
    prepare : callable
        Brings a fresh home to where the publication begins, undisturbed.
    publish : callable
        What is disturbed; running it again must end as if nothing had happened.
    """

    name: str
    prepare: Callable[[Home], None]
    publish: Callable[[Home], None]
    asset: str = "scores"


def publish_scores(home: Home, n_rows: int, checks: list[Check] | None = None) -> Publication:
    """Publish a table, a second table, JSON, bytes and a file in a folder of its own; n_rows makes the content."""
    with home.stage(DATASET, "scores") as staging:
        staging.write_table(None, _scores(n_rows), SCORES)
        staging.write_table("more", pa.table({"row": np.arange(n_rows)}))
        staging.write_json("summary.json", {"n": n_rows})
        staging.write_bytes("pixels.bin", _bytes(3 * n_rows))
        (staging.folder / "part").mkdir()
        (staging.folder / "part" / "00000.bin").write_bytes(_bytes(n_rows))
        staging.attributes["n"] = n_rows
        publication = staging.commit()
    home.conclude(publication, GREEN if checks is None else checks)
    return publication


def look(home: Home, asset: str) -> str:
    """Read the current version as a user would, every byte, and return a digest of what was seen.

    Raises
    ------
    AssertionError
        If what is current is not whole.
    """
    try:
        publication = home.open(DATASET, asset)
    except StorageError as error:
        if "was never published" in str(error):
            return NOTHING
        raise
    problems = publication.verify()
    if problems:
        raise AssertionError(f"the current version is not whole: {problems[:3]}")
    table = publication.read_table()
    return f"{publication.version} of {table.num_rows} rows, {_digest(publication)}"


def is_red(home: Home, asset: str) -> str | None:
    """Say so if what is current has not passed its checks; only when nobody is publishing, as it takes two reads."""
    if not home.has_current(DATASET, asset):
        return None
    verdict = home.open(DATASET, asset).verdict
    return None if verdict and verdict["passed"] else f"the current version's verdict is {verdict}"


def tree(home: Home) -> dict[str, str]:
    """Every file and folder under a home with its hash; random parts of names and how long things took are left out."""
    found = {}
    for path in sorted(home.path.rglob("*")):
        name = path.relative_to(home.path).as_posix()
        if ".damaged-" in name:
            folder, _, rest = name.partition(".damaged-")
            name = f"{folder}.damaged-{rest[:16]}{rest[25:]}"
        found[name] = hashlib.sha256(_without_provenance(path)).hexdigest() if path.is_file() else "folder"
    return found


def _without_provenance(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name != MANIFEST_NAME:
        return content
    return json.dumps({**json.loads(content), "provenance": {}}, sort_keys=True).encode()


def _over(home: Home) -> None:
    publish_scores(home, 400)


def _damage(home: Home) -> None:
    publish_scores(home, 300)
    ruined = publish_scores(home, 400)
    publish_scores(home, 300)
    (ruined.folder / "pixels.bin").write_bytes(b"ruined")


def _concluded_red(home: Home) -> None:
    publish_scores(home, 400, RED)


def _stamps(home: Home, n: int) -> None:
    home.conclude(synthetic.publish(home, n, rows_per_file=8), GREEN)


def _store(home: Home) -> None:
    stamps = home.open(DATASET, "stamps")
    previous = home.open(DATASET, "stamp_store") if home.has_current(DATASET, "stamp_store") else None
    with home.stage(DATASET, "stamp_store", inputs=[stamps]) as staging:
        build_store(_STORE, stamps, staging, previous)
        publication = staging.commit()
    home.conclude(publication, GREEN)


def _grown_stamps(home: Home) -> None:
    _stamps(home, 16)
    _store(home)
    _stamps(home, 24)


def _nothing(home: Home) -> None:
    home.path.mkdir(exist_ok=True)


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("new_version", lambda home: _over(home), lambda home: _publish(home, 500)),
        Scenario("first_version", _nothing, lambda home: _publish(home, 400)),
        Scenario("same_content", _over, _over),
        Scenario("turned_red", _over, _concluded_red),
        Scenario("was_damaged", _damage, _over),
        Scenario("store", lambda home: _stamps(home, 20), _store, "stamp_store"),
        Scenario("grown_store", _grown_stamps, _store, "stamp_store"),
    )
}


def _publish(home: Home, n_rows: int) -> None:
    publish_scores(home, n_rows)


def _scores(n: int) -> pa.Table:
    random = np.random.default_rng(n)
    return pa.table(
        {
            "task_id": [f"t{row:06d}" for row in range(n)],
            "logical": np.arange(n),
            "split": ["test"] * n,
            "label": np.arange(n) % 2,
            "logit": random.normal(size=n).astype(np.float32),
        }
    )


def _bytes(n: int) -> bytes:
    return np.random.default_rng(n).bytes(n)


def _digest(publication: Publication) -> str:
    digest = hashlib.sha256()
    for name in sorted(publication.manifest.files):
        digest.update(name.encode() + Path(publication.folder / name).read_bytes())
    return digest.hexdigest()[:16]
