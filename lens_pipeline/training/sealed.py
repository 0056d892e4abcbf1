"""JSON files that a run goes on from, sealed: a bit that changed since they were written is noticed, whatever it says now."""

import hashlib
import json
from typing import Any


def seal(content: dict[str, Any]) -> bytes:
    """Write down an object with a SHA-256 of all that it says.

    Raises
    ------
    ValueError
        If a number in it is infinite or nan, which JSON has no word for.
    """
    return json.dumps({**content, "seal": _digest(content)}, indent=1, allow_nan=False).encode()


def unseal(written: bytes, *, format: int) -> dict[str, Any]:
    """Read what `seal` wrote, without its seal.

    Parameters
    ----------
    format : int
        What ``format`` must say; a file of another one may be sealed otherwise, so it is asked for first.

    Raises
    ------
    ValueError
        If it is no JSON object, of another format, or not what was written.
    """
    content = json.loads(written)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    if (found := content.get("format")) != format:
        raise ValueError(f"it has format {found}, and this package reads format {format}")
    if content.pop("seal", None) != _digest(content):
        raise ValueError("it was changed after it was written")
    return content


def _digest(content: dict[str, Any]) -> str:
    # Through JSON and back, so that tuples are the lists that will be read.
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()
