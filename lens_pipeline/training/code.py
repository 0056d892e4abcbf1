"""A hash of the code that a training runs, so that changed code never passes off an earlier run's model as its own."""

from lens_pipeline.contracts import code

_ROOMS = ("contracts", "stamps", "batches", "training")
_LIBRARIES = ("torch", "timm", "numpy")


def code_sha256() -> str:
    """Hash the rooms that training runs through, and the versions of the libraries under it."""
    return code.code_sha256(_ROOMS, _LIBRARIES)
