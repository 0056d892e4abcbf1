"""What must hold of a store before anything downstream may eat it."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.catalogue import QUARANTINE, STAMP_STORE
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import FIRST_FEW, ContractError, StorageError
from lens_pipeline.stamps.config import StoreConfig
from lens_pipeline.stamps.previous import QUARANTINE_TABLE
from lens_pipeline.stamps.reasons import Reason
from lens_pipeline.stamps.rows import hash_keys, labels_of
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.publication import Publication

_LOOK = "read_table('stamp_store/quarantine', version=...) lists every row with its file, place, reason and detail"


def store_checks(store: Publication, stamps: Publication, config: StoreConfig) -> list[Check]:
    """Run every check of a store that was made from these stamps."""
    quarantine = store.read_table(QUARANTINE_TABLE)
    return [
        row_conservation(store, stamps, quarantine),
        quarantine_budget(quarantine, int(store.attributes["n_in"]), config.quarantine_budget),
        no_duplicated_fragments(store.read_table(), quarantine, stamps),
        schema_contract(store),
    ]


def row_conservation(store: Publication, stamps: Publication, quarantine: pa.Table) -> Check:
    """Check n_in = n_stored + n_quarantined + n_excluded, each counted where it can be counted anew."""
    n_in = sum(int(fragment["rows"]) for fragment in stamps.attributes["fragments"])
    n_stored = store.entry(f"{store.asset}.parquet").rows or 0
    n_excluded = int(pc.sum(quarantine["excluded"]).as_py() or 0)
    n_quarantined = quarantine.num_rows - n_excluded
    figures = {"n_in": n_in, "n_stored": n_stored, "n_quarantined": n_quarantined, "n_excluded": n_excluded}
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


def quarantine_budget(quarantine: pa.Table, n_in: int, budget: float) -> Check:
    """Check that the share of quarantined rows keeps within the budget; rows that the survey excluded don't count."""
    refused = quarantine.filter(pc.invert(quarantine["excluded"]))
    by_reason = Counter(refused["reason"].to_pylist())
    share = refused.num_rows / n_in if n_in else 0.0
    figures: dict[str, Any] = {"share": share, "budget": budget, **by_reason}
    listed = ", ".join(f"{reason} {count:,}" for reason, count in by_reason.most_common()) or "none"
    what = f"{refused.num_rows:,} of {n_in:,} rows quarantined ({share:.2%}; budget {budget:.2%}): {listed}"
    if share <= budget:
        return green("quarantine_budget", what, **figures)
    return red(
        "quarantine_budget",
        what,
        wrong=[_describe(row) for row in refused.slice(0, FIRST_FEW + 1).to_pylist()],
        count=refused.num_rows,
        why="so many refused rows are no accident of single rows, and what is left may no longer be a fair sample.",
        next_step=f"{_LOOK}; mend the input, or, if the loss is understood, raise stamp_store.quarantine_budget.",
        **figures,
    )


def no_duplicated_fragments(index: pa.Table, quarantine: pa.Table, stamps: Publication) -> Check:
    """Check that no file, no key and no pixels came twice; repeats of one galaxy's control are counted and allowed."""
    files = _repeated_files(stamps.attributes["fragments"])
    copies = quarantine.filter(pc.equal(quarantine["reason"], Reason.DUPLICATE_KEY.value))
    pixels, n_control_repeats = _repeated_pixels(index)
    figures = {
        "files": len(files),
        "rows_with_repeated_key": copies.num_rows,
        "stamps_shared": len(pixels),
        "control_repeats": n_control_repeats,
    }
    if not files and not copies.num_rows and not pixels:
        what = f"no file, key or stamp came twice among {index.num_rows:,} stored rows"
        repeats = f"; {n_control_repeats:,} repeats of a galaxy's own control" if n_control_repeats else ""
        return green("no_duplicated_fragments", what + repeats, **figures)
    keys = list(dict.fromkeys(f"task_id {key}" for key in copies["task_id"].to_pylist()))
    return red(
        "no_duplicated_fragments",
        f"{len(files):,} files came twice, {copies.num_rows:,} rows have a task_id that others have too, and {len(pixels):,} "
        "stamps stand under more than one galaxy or label, or repeat an injection",
        wrong=[*files, *keys, *pixels],
        count=len(files) + copies.num_rows + len(pixels),
        why="a stamp that comes twice weighs double, and if its copies fall into two splits, the test is no test.",
        next_step=f"remove the copies from the input and materialize stamps again; {_LOOK}.",
        **figures,
    )


def schema_contract(store: Publication) -> Check:
    """Check tables, keys, labels and segments against what the store says of itself."""
    contract = DatasetContract.model_validate(store.attributes["dataset_contract"])
    problems: list[str] = []
    try:
        index = store.read_table()
        STAMP_STORE.validate(index, where=f"the index of stamp_store {store.version}")
        QUARANTINE.validate(
            store.read_table(QUARANTINE_TABLE), where=f"the quarantine table of stamp_store {store.version}"
        )
        StampStore.open(store)
        problems += _wrong_index(index, contract)
    except (ContractError, StorageError) as error:
        problems.append(str(error))
    if not problems:
        what = f"index, quarantine table and {store.attributes['n_segments']} segments follow their contracts"
        return green("schema_contract", what, columns=index.num_columns, rows=index.num_rows)
    return red(
        "schema_contract",
        "the store doesn't follow its contracts",
        wrong=problems,
        why="whoever reads it would take a column, a label or a place for what it isn't.",
        next_step="materialize stamp_store again; if it stays red, the input or the dataset contract is at fault: see above.",
    )


def _wrong_index(index: pa.Table, contract: DatasetContract) -> list[str]:
    problems = []
    key_hash = np.frombuffer(b"".join(index["key_hash"].to_pylist()), dtype=">u8").reshape(-1, 2)
    if not np.array_equal(key_hash, hash_keys(index["task_id"].to_pylist())):
        problems.append("key_hash is not the hash of task_id")
    first, second = key_hash[:-1], key_hash[1:]
    ascending = (first[:, 0] < second[:, 0]) | ((first[:, 0] == second[:, 0]) & (first[:, 1] < second[:, 1]))
    if not ascending.all():
        problems.append(f"rows {np.flatnonzero(~ascending)[:FIRST_FEW].tolist()} are out of order by key_hash")
    wrong = np.flatnonzero(labels_of(index["lens_model"], contract) != index["label"].to_numpy())
    if wrong.size:
        keys = index["task_id"].take(pa.array(wrong[:FIRST_FEW])).to_pylist()
        problems.append(f"{wrong.size:,} rows have a label that is not that of their lens_model: {', '.join(keys)}")
    return problems


def _repeated_files(fragments: Sequence[dict[str, object]]) -> list[str]:
    by_hash: dict[object, list[str]] = {}
    for fragment in fragments:
        by_hash.setdefault(fragment["sha256"], []).append(str(fragment["file"]))
    return [" = ".join(names) for names in by_hash.values() if len(names) > 1]


def _repeated_pixels(index: pa.Table) -> tuple[list[str], int]:
    """Name groups of rows that share pixels and mustn't, and count the rows that are allowed repeats of a control."""
    counted = index.group_by("pixel_hash").aggregate([([], "count_all")])
    repeated = counted.filter(pc.greater(counted["count_all"], 1))["pixel_hash"]
    if not len(repeated):
        return [], 0
    shared = index.filter(pc.is_in(index["pixel_hash"], value_set=repeated.combine_chunks()))
    groups: dict[bytes, list[dict[str, object]]] = {}
    for row in shared.select(["pixel_hash", "task_id", "galaxy_id", "label"]).to_pylist():
        groups.setdefault(row["pixel_hash"], []).append(row)
    wrong, n_allowed = [], 0
    for rows in groups.values():
        if {row["label"] for row in rows} == {0} and len({row["galaxy_id"] for row in rows}) == 1:
            n_allowed += len(rows) - 1
        else:
            wrong.append(
                " = ".join(f"{row['task_id']} (galaxy {row['galaxy_id']}, label {row['label']})" for row in rows[:3])
            )
    return wrong, n_allowed


def _describe(row: dict[str, object]) -> str:
    return f"{row['task_id']} in {row['fragment']} row {row['fragment_row']}: {row['reason']} ({row['detail']})"
