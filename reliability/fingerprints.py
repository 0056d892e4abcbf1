"""The check `no_fingerprints` on simulated surveys, one a case: as they are made, and with a fingerprint put on their injections.

As it is made a survey must not be red: of each question that is asked of a kind of stamps one in two thousand may be by chance.
With noise 2 % larger on the injections alone, these rounded to float16, or each 5 % brighter or fainter, it must be. How often
weaker fingerprints are seen is counted.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.fragments import BLOB
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import parquet_writer, read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig
from lens_pipeline.survey.fingerprints import no_fingerprints
from lens_pipeline.survey.manifest import build_manifest
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.stamps import build_stamps
from reliability.subject import Case, Subject

_GALAXIES = 200
_CONTRACT = DatasetContract()
_SHARES = {"null_flux_share": 0.5, "fake_turned_share": 0.5, "hard_ring_share": 0.4, "unpaired_control_share": 0.15}

# Of the check on a survey as it is made.
_LARGEST = {"auroc as made": "auroc", "agreement of halves as made": "halves"}

Pixels = Any
Change = Callable[[Pixels, Pixels, np.random.Generator], Pixels]

# Of pixels, their bands' sigmas and random numbers.
_MUST_BE_SEEN: dict[str, Change] = {
    "noise 2 % larger": lambda x, sigma, rng: x + rng.standard_normal(x.shape) * sigma * np.sqrt(1.02**2 - 1),
    "rounded to float16": lambda x, sigma, rng: x.astype(np.float16),
    "5 % brighter or fainter": lambda x, sigma, rng: x * (1 + 0.05 * rng.choice([-1, 1])),
}
_COUNTED: dict[str, Change] = {
    "all times 1.02": lambda x, sigma, rng: 1.02 * x,
    "sky 0.02 sigma higher": lambda x, sigma, rng: x + 0.02 * sigma,
    "sky 0.05 sigma higher or lower": lambda x, sigma, rng: x + 0.05 * rng.choice([-1, 1]) * sigma,
}


def survey(number: int) -> Case:
    """Try a survey of its own seeds."""
    with TemporaryDirectory() as folder:
        home = Home(Path(folder))
        parent = _publish(home, "parent_sample", [], lambda staging: build_parent_sample(
            ParentSampleConfig(n_galaxies=_GALAXIES, n_bricks=40, seed=number), staging))  # fmt: skip
        manifest = _publish(home, "injection_manifest", [parent], lambda staging: build_manifest(
            InjectionConfig(seed=number, **_SHARES), parent, staging))  # fmt: skip
        stamps = _publish(home, "stamps", [parent, manifest], lambda staging: build_stamps(
            StampsConfig(seed=number, workers=1), parent, manifest, staging))  # fmt: skip
        clean = no_fingerprints(stamps, parent)
        problem = None if clean.passed or not clean.blocking else f"as it is made: {clean.message()}"
        counts = {"galaxies compared": int(clean.figures.get("galaxies") or 0)}
        for name, change in (_MUST_BE_SEEN | _COUNTED).items():
            rng = np.random.default_rng(number)
            changed = _publish(home, "stamps", [parent, manifest], lambda s: _change(stamps, change, rng, s))  # noqa: B023
            seen = no_fingerprints(changed, parent)
            is_red = seen.blocking and not seen.passed
            counts[f"{name}: seen"] = int(is_red)
            if name in _MUST_BE_SEEN and not is_red:
                problem = f"{name}: {seen.message()}"
    largest = {name: float(clean.figures[figure] or 0) for name, figure in _LARGEST.items()}
    return Case(problem=problem, n=1, largest=largest, counts=counts)


def _publish(home: Home, asset: str, inputs: list[Publication], build: Callable[[Any], Any]) -> Publication:
    with home.stage("fingerprints", asset, inputs=inputs) as staging:
        build(staging)
        return staging.commit()


def _change(stamps: Publication, change: Change, rng: np.random.Generator, staging: Any) -> None:
    """Write stamps again with the pixels of injections changed, and without probes."""
    staging.attributes.update({**stamps.attributes, "null_flux": [], "fragments": []})
    for entry in stamps.attributes["fragments"]:
        table = read_parquet(stamps.path(entry["file"]))
        rows = [_changed(row, change, rng) if row["src_mag_r"] is not None else row for row in table.to_pylist()]
        path = staging.folder / entry["file"]
        with parquet_writer(path, table.schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
        staging.attributes["fragments"].append({"file": path.name, "rows": len(rows), "sha256": sha256_of(path)})


def _changed(row: dict[str, Any], change: Change, rng: np.random.Generator) -> dict[str, Any]:
    stamp = decode_blob(row[BLOB], _CONTRACT)
    assert isinstance(stamp, Stamp)
    sigma = 1.4826 * stamp.mad[:, None, None].astype(float)
    return {**row, BLOB: encode_stamp(np.asarray(change(stamp.pixels, sigma, rng), np.float32), _CONTRACT)}


SUBJECT = Subject(
    name="fingerprints",
    question=f"a simulated survey of {_GALAXIES} galaxies has no fingerprint as it is made, and is red with noise 2 % larger, "
    "float16, or 5 % more or less light on its injections",
    unit="surveys",
    goal=200,
    case=survey,
)
