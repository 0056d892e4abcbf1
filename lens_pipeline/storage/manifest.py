"""The manifest of a version: every file with its hash, what it was made from, and the hash of it all as its name."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.atomic import safe_name

MANIFEST_NAME = "manifest.json"
FORMAT = 1
VERSION_LENGTH = 16


@dataclass(frozen=True)
class FileEntry:
    """One published file. `rows` and `schema` are given for tables."""

    sha256: str
    size: int
    rows: int | None = None
    schema: dict[str, str] | None = None


@dataclass(frozen=True)
class Manifest:
    """What a version holds.

    Attributes
    ----------
    inputs : dict
        Upstream asset to the version that was read.
    attributes : dict
        What the asset says of itself; part of the version's hash.
    provenance : dict
        Who made it when and with which settings; not part of the hash, so that the same content has the same name.
    """

    dataset: str
    asset: str
    model: str
    files: dict[str, FileEntry]
    inputs: dict[str, str]
    attributes: dict[str, Any]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the content."""
        content = {
            "format": FORMAT,
            "dataset": self.dataset,
            "asset": self.asset,
            "model": self.model,
            "files": {name: entry.sha256 for name, entry in self.files.items()},
            "inputs": self.inputs,
            "attributes": self.attributes,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:VERSION_LENGTH]

    def to_json(self) -> bytes:
        """Serialize, version included."""
        content = {"format": FORMAT, "version": self.version, **asdict(self)}
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Manifest":
        """Parse a manifest.

        Raises
        ------
        ValueError
            If it isn't one of ours, its content doesn't hash to the version it claims, or a file's name could leave its folder.
        """
        loaded = json.loads(content)
        if not isinstance(loaded, dict) or loaded.get("format") != FORMAT:
            raise ValueError(f"format {FORMAT} was expected")
        claimed = loaded.pop("version", None)
        loaded.pop("format")
        try:
            loaded["files"] = {name: FileEntry(**entry) for name, entry in loaded["files"].items()}
            manifest = cls(**loaded)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a field is missing or unknown: {error}") from error
        try:
            for name in manifest.files:
                published_name(name)
        except StorageError as error:
            raise ValueError(str(error)) from error
        if manifest.version != claimed:
            raise ValueError(f"its content hashes to {manifest.version}, not to {claimed}")
        return manifest


def published_name(name: str) -> str:
    """Return a file's name, relative to its version's folder, if it can't lead out of it.

    Raises
    ------
    StorageError
        If a part of it, between slashes, is no plain name.
    """
    return "/".join(safe_name(part, what="part of a published file's name") for part in name.split("/"))
