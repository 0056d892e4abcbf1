"""A hash of the code that a training runs, so that changed code never passes off an earlier run's model as its own."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

_ROOMS = ("contracts", "stamps", "batches", "training")
_LIBRARIES = ("torch", "timm", "numpy")


@cache
def code_sha256() -> str:
    """Hash every source file of the rooms that training runs through, and the versions of the libraries under it."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(path for room in _ROOMS for path in (package / room).glob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(",".join(f"{name}=={version(name)}" for name in _LIBRARIES).encode())
    return digest.hexdigest()
