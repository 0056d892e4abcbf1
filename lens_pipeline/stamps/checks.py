"""What must hold of a store before anything downstream may eat it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lens_pipeline.contracts.catalogue import QUARANTINE, STAMP_STORE, STORED_FRAGMENTS
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import FIRST_FEW, ContractError, StorageError
from lens_pipeline.stamps.buckets import as_words
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.copies import shared_pixels
from lens_pipeline.stamps.previous import FRAGMENTS_TABLE, INDEX_TABLE, QUARANTINE_TABLE
from lens_pipeline.stamps.reasons import Reason
from lens_pipeline.stamps.rows import hash_keys, labels_of
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication

_READ_ROWS = 16_384
_LOOK = "read_table('stamp_store/quarantine', version=...) lists every row with its file, place, reason and detail"


@dataclass
class QuarantineCounts:
    """What the quarantine table holds, read once as a stream.

    Attributes
    ----------
    first_refused, first_copied : list of str
        The first few rows that we refused; the first few keys that stand on more than one row.
    """

    by_reason: Counter[str] = field(default_factory=Counter)
    n_excluded: int = 0
    first_refused: list[str] = field(default_factory=list)
    first_copied: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, store: Publication) -> "QuarantineCounts":
        """Read a store's quarantine table."""
        found = cls()
        for part in _stream(store, QUARANTINE_TABLE):
            found.n_excluded += pc.sum(part["excluded"]).as_py() or 0
            refused = part.filter(pc.invert(part["excluded"]))
            found.by_reason.update(refused["reason"].to_pylist())
            if len(found.first_refused) <= FIRST_FEW:
                found.first_refused += [_describe(row) for row in refused.slice(0, FIRST_FEW + 1).to_pylist()]
            if len(found.first_copied) <= FIRST_FEW:
                copies = refused.filter(pc.equal(refused["reason"], Reason.DUPLICATE_KEY.value))
                keys = [f"task_id {key}" for key in copies["task_id"].to_pylist()]
                found.first_copied = list(dict.fromkeys([*found.first_copied, *keys]))[: FIRST_FEW + 1]
        return found

    @property
    def n_refused(self) -> int:
        """Rows that we refused; the survey's own exclusions are apart."""
        return self.by_reason.total()

    @property
    def n_copied(self) -> int:
        """Rows whose key others have too."""
        return self.by_reason[Reason.DUPLICATE_KEY.value]


def store_checks(store: Publication, stamps: Publication, config: StoreConfig) -> list[Check]:
    """Run every check of a store that was made from these stamps; memory doesn't grow with its rows."""
    quarantine = QuarantineCounts.of(store)
    return [
        row_conservation(store, stamps, quarantine),
        quarantine_budget(quarantine, int(store.attributes["n_in"]), config.quarantine_budget),
        no_duplicated_fragments(store, quarantine, stamps),
        schema_contract(store),
    ]


def row_conservation(store: Publication, stamps: Publication, quarantine: QuarantineCounts) -> Check:
    """Check n_in = n_stored + n_quarantined + n_excluded, each counted where it can be counted anew."""
    n_in = sum(int(fragment["rows"]) for fragment in stamps.attributes["fragments"])
    n_stored = _n_stored(store)
    n_excluded, n_quarantined = quarantine.n_excluded, quarantine.n_refused
    figures: dict[str, Any] = {
        "n_in": n_in,
        "n_stored": n_stored,
        "n_quarantined": n_quarantined,
        "n_excluded": n_excluded,
    }
    said = {name: store.attributes[name] for name in figures}
    counts = f"{n_in:,} rows in, {n_stored:,} stored, {n_quarantined:,} quarantined, {n_excluded:,} excluded"
    lost = n_in - n_stored - n_quarantined - n_excluded
    if lost == 0 and said == figures:
        return green("row_conservation", counts, **figures)
    wrong = [
        f"{name} is {figures[name]:,}, the store says {said[name]:,}" for name in figures if said[name] != figures[name]
    ]
    return red(
        "row_conservation",
        f"{counts}: {abs(lost):,} rows are {'lost' if lost > 0 else 'there twice'}",
        wrong=wrong,
        count=max(abs(lost), len(wrong)),
        why="a row must end in the store or in the quarantine table; one that does neither was skipped in silence.",
        next_step="materialize stamp_store again; if it stays red, this is a fault of ours: report it with the counts.",
        **figures,
    )


def quarantine_budget(quarantine: QuarantineCounts, n_in: int, budget: float) -> Check:
    """Check that the share of quarantined rows keeps within the budget; rows that the survey excluded don't count."""
    refused = quarantine.n_refused
    share = refused / n_in if n_in else 0.0
    figures: dict[str, Any] = {"share": share, "budget": budget, **quarantine.by_reason}
    listed = ", ".join(f"{reason} {count:,}" for reason, count in quarantine.by_reason.most_common()) or "none"
    what = f"{refused:,} of {n_in:,} rows quarantined ({share:.2%}; budget {budget:.2%}): {listed}"
    if share <= budget:
        return green("quarantine_budget", what, **figures)
    return red(
        "quarantine_budget",
        what,
        wrong=quarantine.first_refused,
        count=refused,
        why="so many refused rows are no accident of single rows, and what is left may no longer be a fair sample.",
        next_step=f"{_LOOK}; mend the input, or, if the loss is understood, raise stamp_store.quarantine_budget.",
        **figures,
    )


def no_duplicated_fragments(store: Publication, quarantine: QuarantineCounts, stamps: Publication) -> Check:
    """Check that no file, no key and no pixels came twice; repeats of one galaxy's control are counted and allowed."""
    files = _repeated_files(stamps.attributes["fragments"])
    n_copied = quarantine.n_copied
    shared = shared_pixels(store)
    figures: dict[str, Any] = {
        "files": len(files),
        "rows_with_repeated_key": n_copied,
        "stamps_shared": shared.n,
        "control_repeats": shared.n_control_repeats,
    }
    if not files and not n_copied and not shared.n:
        what = f"no file, key or stamp came twice among {_n_stored(store):,} stored rows"
        repeats = (
            f"; {shared.n_control_repeats:,} repeats of a galaxy's own control" if shared.n_control_repeats else ""
        )
        return green("no_duplicated_fragments", what + repeats, **figures)
    return red(
        "no_duplicated_fragments",
        f"{len(files):,} files came twice, {n_copied:,} rows have a task_id that others have too, and {shared.n:,} "
        "stamps stand under more than one galaxy or label, or repeat an injection",
        wrong=[*files, *quarantine.first_copied, *shared.first],
        count=len(files) + n_copied + shared.n,
        why="a stamp that comes twice weighs double, and if its copies fall into two splits, the test is no test.",
        next_step="remove the copies from the input and materialize parent_sample and what follows (the removal is a change of "
        f"the source, which parent_sample.accept_changes_from accepts); {_LOOK}.",
        **figures,
    )


def schema_contract(store: Publication) -> Check:
    """Check tables, keys, labels and segments against what the store says of itself."""
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    problems: list[str] = []
    try:
        for table, declared, what in (
            (INDEX_TABLE, STAMP_STORE, "index"),
            (QUARANTINE_TABLE, QUARANTINE, "quarantine table"),
            (FRAGMENTS_TABLE, STORED_FRAGMENTS, "fragments table"),
        ):
            where = f"the {what} of stamp_store {store.version}"
            declared.validate_stream(_schema(store, table), _stream(store, table), where=where)
        StampStore.open(store)
        problems += _wrong_index(store, contract)
    except (ContractError, StorageError) as error:
        problems.append(str(error))
    if not problems:
        what = f"index, quarantine table and {store.attributes['n_segments']} segments follow their contracts"
        n_columns = len(store.entry(f"{INDEX_TABLE}.parquet").schema or {})
        return green("schema_contract", what, columns=n_columns, rows=_n_stored(store))
    return red(
        "schema_contract",
        "the store doesn't follow its contracts",
        wrong=problems,
        why="whoever reads it would take a column, a label or a place for what it isn't.",
        next_step="materialize stamp_store again; if it stays red, the input or the dataset contract is at fault: see above.",
    )


def _wrong_index(store: Publication, contract: DatasetContract) -> list[str]:
    wrong_hash = False
    unordered: list[int] = []
    mislabelled: list[str] = []
    n_mislabelled = 0
    last = np.zeros((0, 2), dtype=np.uint64)
    start = 0
    for part in _stream(store, INDEX_TABLE, ["key_hash", "task_id", "lens_model", "label"]):
        words = as_words(part["key_hash"])
        wrong_hash |= not np.array_equal(words, hash_keys(part["task_id"].to_pylist()))
        both = np.concatenate([last, words])
        first, second = both[:-1], both[1:]
        ascending = (first[:, 0] < second[:, 0]) | ((first[:, 0] == second[:, 0]) & (first[:, 1] < second[:, 1]))
        unordered += (start - len(last) + np.flatnonzero(~ascending)[:FIRST_FEW]).tolist()
        wrong = np.flatnonzero(labels_of(part["lens_model"], contract) != part["label"].to_numpy())
        n_mislabelled += len(wrong)
        mislabelled += part["task_id"].take(pa.array(wrong[:FIRST_FEW])).to_pylist()
        last, start = words[-1:], start + len(words)
    problems = ["key_hash is not the hash of task_id"] if wrong_hash else []
    if unordered:
        problems.append(f"rows {unordered[:FIRST_FEW]} are out of order by key_hash")
    if n_mislabelled:
        named = ", ".join(mislabelled[:FIRST_FEW])
        problems.append(f"{n_mislabelled:,} rows have a label that is not that of their lens_model: {named}")
    return problems


def _n_stored(store: Publication) -> int:
    return store.entry(f"{INDEX_TABLE}.parquet").rows or 0


def _schema(store: Publication, table: str) -> pa.Schema:
    return pq.read_schema(store.path(f"{table}.parquet"))


def _stream(store: Publication, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    path = store.path(f"{table}.parquet", verify=False)
    for batch in iterate_parquet(path, columns, rows=_READ_ROWS):
        yield pa.Table.from_batches([batch])


def _repeated_files(fragments: Sequence[dict[str, object]]) -> list[str]:
    by_hash: dict[object, list[str]] = {}
    for fragment in fragments:
        by_hash.setdefault(fragment["sha256"], []).append(str(fragment["file"]))
    return [" = ".join(names) for names in by_hash.values() if len(names) > 1]


def _describe(row: dict[str, object]) -> str:
    return f"{row['task_id']} in {row['fragment']} row {row['fragment_row']}: {row['reason']} ({row['detail']})"
