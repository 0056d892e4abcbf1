"""Names of objects: s3://bucket/some/key."""

import re
import unicodedata
from dataclasses import dataclass

from lens_pipeline.contracts.errors import ConfigError

_SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_LONGEST_KEY = 1024


@dataclass(frozen=True, order=True)
class Address:
    """The name of one object, or of all objects whose keys start with it and a slash; an empty key is the whole bucket.

    Raises
    ------
    ConfigError
        If the bucket or the key couldn't be one: no empty, '.' or '..' parts, no control characters, at most 1,024 bytes.
    """

    bucket: str
    key: str = ""

    def __post_init__(self) -> None:
        if problem := _problem(self.bucket, self.key):
            raise ConfigError(
                f"{_SCHEME}{self.bucket}/{self.key!s} can't be an address: {problem}.".replace("\n", "\\n")
            )

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``s3://bucket/some/key``; ``S3://`` is the same, and one slash at the end is allowed and dropped.

        Raises
        ------
        ConfigError
            If it isn't an address.
        """
        if not is_address(text):
            raise ConfigError(f"{text!r} is no address of an object: write s3://BUCKET/KEY.")
        bucket, _, key = text[len(_SCHEME) :].partition("/")
        return cls(bucket, key.removesuffix("/"))

    def __truediv__(self, part: str) -> "Address":
        return Address(self.bucket, f"{self.key}/{part}" if self.key else part)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"

    @property
    def name(self) -> str:
        """The part after the last slash."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True)
class ObjectInfo:
    """What the server said of an object: its size in bytes and its ETag without quotes."""

    address: Address
    size: int
    etag: str


def is_address(text: str) -> bool:
    """Whether a text is meant as an address, not as a path."""
    return text[: len(_SCHEME)].lower() == _SCHEME


def refuse_as_folder(text: str, what: str, *, or_address: bool = False) -> None:
    """Refuse what is no path: as one, ``gs://bucket`` would quietly become the folder ``gs:`` in the working folder.

    Parameters
    ----------
    what : str
        The setting, for the message.
    or_address : bool
        Whether an s3:// address could stand there instead.

    Raises
    ------
    ConfigError
        If it is of the form ``SCHEME://``, and not an s3:// address that could stand there.
    """
    if "://" in text and not (or_address and is_address(text)):
        allowed = "a folder on this machine" + (" or an s3:// address" if or_address else "")
        raise ConfigError(f"{what} is {text!r}, and must be {allowed}.")


def _problem(bucket: str, key: str) -> str | None:
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        return f"{bucket!r} can't be a bucket's name (2 to 255 of A-Z a-z 0-9 . _ -, a letter or digit first, no '..')"
    if not key:
        return None
    if not key.isprintable() and any(unicodedata.category(character) in ("Cc", "Cs") for character in key):
        return "its key holds control characters or half a character"
    if len(key.encode()) > _LONGEST_KEY:
        return f"its key has {len(key.encode()):,} bytes, {_LONGEST_KEY:,} are the most"
    parts = key.split("/")
    if bad := [part for part in parts if part in ("", ".", "..")]:
        return f"its key has the part {bad[0]!r}"
    return None
