"""A digest of each score, made in the process that scores: which row, which pixels, which weights, which bits. No torch here.

Scores that stand beside other rows than the model gave them to (swapped, shifted, sorted, of a part of the rows) break it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lens_pipeline.stamps.buckets import as_words
from lens_pipeline.stamps.permutation import Draws
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.metrics import score_of

COLUMN = "digest"
_ROWS_TOGETHER = 65_536

Singles = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]


def published_logits(heads: Singles) -> Singles:
    """Logits as the table SCORES has them: `logit`, and with more than one output each of them beside it.

    Parameters
    ----------
    heads : (row, output) float32 array
    """
    score = score_of(heads.astype(np.float64)).astype(np.float32)[:, None]
    return score if heads.shape[1] == 1 else np.hstack([score, heads])


def row_words(store: Publication) -> Words:
    """64 bits of the key and the pixels of each stored row, by logical number.

    Streamed: eight bytes a row stay in memory.
    """
    words = np.zeros(store.attributes["n_stored"], np.uint64)
    path = store.path(f"{store.asset}.parquet")
    for part in iterate_parquet(path, ["logical", "key_hash", "pixel_hash"], rows=_ROWS_TOGETHER):
        hashes = np.hstack([as_words(part.column(name)) for name in ("key_hash", "pixel_hash")])
        words[part.column("logical").to_numpy()] = _chained(b"row", hashes)
    return words


def score_digests(rows: Words, logits: Singles, classifiers: Sequence[Publication]) -> Words:
    """Digest of each row's score, 64 bits.

    The word of a row and the bits of each logit are chained through a keyed function of 64 bits (as CBC-MAC chains
    blocks; Bellare, Kilian & Rogaway 2000, J. Comput. Syst. Sci. 61, 362), whose key is the SHA-256 of the weights. Made against
    accidents: who can run this code can make digests too.

    Parameters
    ----------
    rows : (row,) uint64 array
        As `row_words` gives them, of the rows that the logits are of.
    logits : (row, column) float32 array
        As `published_logits` gives them.
    """
    bits = np.ascontiguousarray(logits, np.float32).view(np.uint32).astype(np.uint64)
    weights = sorted(classifier.entry("model.safetensors").sha256 for classifier in classifiers)
    return _chained("".join(weights).encode(), np.column_stack([rows, bits]))


def _chained(key: bytes, words: Words) -> Words:
    draws = Draws(key)
    state = np.zeros(len(words), np.uint64)
    for column in words.T:
        state = draws.bits((state ^ column).view(np.int64))
    return state
