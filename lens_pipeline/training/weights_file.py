"""A file of pretrained weights: the one that the settings name, by its SHA-256, and safetensors. No torch here."""

from pathlib import Path

from safetensors import SafetensorError, safe_open

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.atomic import sha256_of


def refuse_other_weights(path: Path, sha256: str) -> None:
    """Refuse a file of weights that isn't the one that was meant, before anything reads a number of it.

    Raises
    ------
    ConfigError
        If it isn't there, has another SHA-256, or isn't safetensors.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no file of pretrained weights {path.absolute()}. Weights are never fetched: put the safetensors file "
            "there, or leave pretrained out."
        )
    found = sha256_of(path)
    if found != sha256:
        raise ConfigError(
            f"{path} has the SHA-256 {found}, pretrained_sha256 says {sha256}: it is another file, or was changed. Get the "
            "file that was meant, or state the SHA-256 of this one if you trust it."
        )
    try:
        with safe_open(path, framework="np") as file:
            file.keys()
    except SafetensorError as error:
        raise ConfigError(
            f"{path} isn't a safetensors file ({error}). Other formats may run code when they are read, so none is: save "
            "the state dict with safetensors.torch.save_file."
        ) from error
