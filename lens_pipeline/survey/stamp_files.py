"""Which files of stamps are looked at, in which order, and which of their columns are read.

Belongs here: whole files. Which rows of them are compared is in `stamp_pairs.py`.
"""

from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from lens_pipeline.stamps.fragments import Fragment, Fragments
from lens_pipeline.survey.randomness import stream

# Fewer rows of a file hold too few pairs to be worth opening it.
_LEAST_ROWS = 16
_IS_SCALAR = (
    pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_string, pa.types.is_large_string,
)  # fmt: skip


def files_to_look_at(fragments: Fragments, most_rows: int) -> list[Fragment]:
    """Order files as a hash of their names does; a user's own, which all have a share, by their rows, smallest first.

    What a small file leaves of its share so goes to larger ones. Of a user's own files one for every 16 of `most_rows`
    are kept at most.
    """
    drawn = sorted(fragments.fragments, key=lambda fragment: float(stream(0, "looked at", fragment.name).random()))
    if not drawn or drawn[0].is_own:
        return drawn
    return sorted(drawn[: max(1, most_rows // _LEAST_ROWS)], key=lambda fragment: fragment.n_rows)


def with_all_columns(fragment: Fragment, *, undeclared: bool) -> Fragment:
    """Let a fragment be read with the columns that no contract declares as well: ours with all, a user's own with plain values.

    Parameters
    ----------
    undeclared : bool
        Whether those of a user's own are wanted.
    """
    if not fragment.is_own and not undeclared:
        return fragment
    with fragment.source.lend(fragment.sha256) as path:
        schema = pq.read_schema(path)
    known = set(fragment.columns.values())
    names = [
        field.name
        for field in schema
        if fragment.is_own or (field.name not in known and any(is_kind(field.type) for is_kind in _IS_SCALAR))
    ]
    return replace(fragment, columns={name: name for name in names} | fragment.columns)
