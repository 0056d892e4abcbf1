"""What a report rests on, as hashes: data, splits, settings, code, models and the environment it was made in."""

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions

from lens_pipeline.contracts.code import code_sha256
from lens_pipeline.storage.publication import Publication

_ROOMS = ("evaluation", "storage", "contracts")
_LIBRARIES = ("numpy", "scipy", "scikit-learn", "polars", "pyarrow", "matplotlib", "astropy")
# Of a SHA-256; as many as versions have.
_SHOWN = 16


@dataclass(frozen=True)
class Source:
    """A published version that was read.

    Attributes
    ----------
    name, version : str
        Asset (and model, where there are several), and the hash of its content.
    settings : str or None
        Hash of the settings that it was made with; None where none were written down.
    code : str or None
        Hash of the code that trained it, of a model.
    """

    name: str
    version: str
    settings: str | None
    code: str | None


def sources_of(publications: Sequence[Publication]) -> list[Source]:
    """Describe what was read, by name."""
    models = {one.model for one in publications if one.asset == "lens_classifier"}
    return sorted(
        (
            Source(
                name=f"{one.asset} {one.model}" if one.asset == "lens_classifier" and len(models) > 1 else one.asset,
                version=one.version,
                settings=_hash(one.manifest.provenance["config"]) if "config" in one.manifest.provenance else None,
                code=str(one.manifest.provenance.get("code_sha256", ""))[:_SHOWN] or None,
            )
            for one in publications
        ),
        key=lambda source: source.name,
    )


@cache
def made_by() -> dict[str, str]:
    """Say what the report itself was made by: code, Python, machine, and all packages that are installed."""
    packages = sorted(f"{one.metadata['Name']}=={one.version}" for one in distributions())
    return {
        "code of the report (SHA-256 of its source and of the versions of its libraries)": code_sha256(
            _ROOMS, _LIBRARIES
        )[:_SHOWN],
        "Python": platform.python_version(),
        "machine": f"{platform.system()}, {platform.machine()}",
        f"{len(packages)} installed packages (SHA-256 of their names and versions)": _hash(packages),
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_SHOWN]
