"""A hash of code, so that what changed code makes never passes for what it made before."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def code_sha256(rooms: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Hash every source file of some of the package's folders, and the versions of the libraries under it."""
    digest = hashlib.sha256()
    package = Path(__file__).parent.parent
    for path in sorted(path for room in rooms for path in (package / room).glob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(",".join(f"{name}=={version(name)}" for name in libraries).encode())
    return digest.hexdigest()
