"""Why a row is not in the store: the closed list of reasons, and the verdict that carries one.

Belongs here: names and meanings of reasons. Finding them is for `npz.py`, `decode.py` and `rows.py`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Name of the reason as it stands in the quarantine table, and what it means.

    Attributes
    ----------
    meaning : str
        One sentence for people.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> "Reason":
        """Make a member that equals its name and carries its meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    # The row, before its blob is looked at.
    CUTOUT_NOT_OK = "cutout_not_ok", "the survey's own quality column is not 1 (excluded, not refused)"
    NULL_KEY = "null_key", "the row key is null or empty"
    DUPLICATE_KEY = "duplicate_key", "more than one row has this key; which one is right can't be told, so none is kept"
    UNKNOWN_LABEL = "unknown_label", "the label is null or a value that the dataset contract gives no class"
    BAD_VALUE = "bad_value", "a declared column is null, not finite, or out of its range"
    NO_GALAXY = "no_galaxy", "neither a galaxy name nor a position on the sky, so its split can't be kept clean"
    # The zip.
    NULL_BLOB = "null_blob", "there is no blob"
    TOO_LARGE = "too_large", "the blob, or what it claims to inflate to, is larger than any stamp of this contract"
    NOT_A_ZIP = "not_a_zip", "no zip directory where the blob ends: cut off, padded, or something else"
    BAD_ZIP = "bad_zip", "the zip's directory, member headers and bytes contradict one another"
    UNSUPPORTED_ZIP = (
        "unsupported_zip",
        "a zip feature that is not read (encryption, other methods, comments, zip64 end records, unknown extra fields)",
    )
    DUPLICATE_MEMBER = "duplicate_member", "two members have one name"
    OVERLAPPING_MEMBERS = "overlapping_members", "two members share bytes"
    MISSING_MEMBER = "missing_member", "a band is not there"
    EXTRA_MEMBER = "extra_member", "a member that is no band of this contract"
    BAD_DEFLATE = "bad_deflate", "a member doesn't inflate to the size it claims"
    BAD_CRC = "bad_crc", "a member's bytes don't have the checksum it claims"
    # The array.
    BAD_NPY_HEADER = "bad_npy_header", "a member is no .npy array of version 1.0, 2.0 or 3.0 as numpy writes it"
    PICKLED_OBJECT = "pickled_object", "a member holds pickled objects, which are never loaded"
    WRONG_DTYPE = "wrong_dtype", "a member is not float32"
    WRONG_SHAPE = "wrong_shape", "a member has not the contract's (y, x)"
    # The pixels.
    NOT_FINITE = "not_finite", "a pixel is NaN or infinite"
    BEYOND_FLOAT16 = (
        "beyond_float16",
        "pixels are too large for float16 (65504), or so faint that it would coarsen them",
    )
    CONSTANT_BAND = "constant_band", "all pixels of a band are equal"
    ZERO_MAD = "zero_mad", "more than half of a band's pixels are equal: masked or padded, and can't be scaled"


# Found by looking at the rows around or at columns; every other reason is found in the blob alone.
OF_THE_ROW = frozenset(
    {
        Reason.CUTOUT_NOT_OK, Reason.NULL_KEY, Reason.DUPLICATE_KEY, Reason.UNKNOWN_LABEL, Reason.BAD_VALUE,
        Reason.NO_GALAXY,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Quarantine:
    """A row that is not stored.

    Attributes
    ----------
    reason : Reason
        From the closed list.
    detail : str
        What was found, for people.
    """

    reason: Reason
    detail: str


class RefusedError(Exception):
    """Carries a verdict out of nested parsing; never leaves this package's decoder."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.verdict = Quarantine(reason, detail)
