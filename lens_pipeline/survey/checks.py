"""Checks of the survey assets: labels agree with parameters, no row was lost, pairs belong together, galaxies stand once.

Belongs here: reading what is about to become current and saying what is wrong with it. Pixels are judged by the store.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import FIRST_FEW
from lens_pipeline.stamps.fragments import Fragments
from lens_pipeline.storage.parquet import iterate_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.roles import ARC_COLUMNS, NO_LENS

_MEASURES = ("arc_snr", "arc_snr_matched", "magnification", "total_injected_flux_r")
_LABEL_COLUMNS = ("task_id", "lens_model", "theta_e_arcsec", "is_control", *ARC_COLUMNS, *_MEASURES)
_BATCH = 16384


def galaxies_are_unique(parent: Publication) -> Check:
    """Red where a galaxy stands on two rows or in two regions."""
    name = "galaxies_are_unique"
    ids = parent.read_table(columns=["galaxy_id", "region_id"])
    counted = ids.group_by("galaxy_id").aggregate([([], "count_all")])
    twice = counted.filter(pc.greater(counted["count_all"], 1))["galaxy_id"].to_pylist()
    torn: list[str] = parent.attributes.get("galaxies_in_more_than_one_region", [])
    if twice or torn:
        return red(
            name,
            f"{len(twice)} of {counted.num_rows:,} galaxies stand on more than one row and {len(torn)} in more than one region",
            wrong=[*sorted(twice), *torn],
            why="A galaxy in two regions can come into two splits, and then a model is tested on what it was trained on.",
            next_step="give each galaxy one region_id (that of its control), or a region_id that isn't cut at brick borders.",
        )
    return green(name, f"{counted.num_rows:,} galaxies, each on one row and in one region", galaxies=counted.num_rows)


def label_alignment(rows: Publication) -> Check:
    """Red where a row's class disagrees with its Einstein radius, its arc columns or is_control.

    A row whose lens_model is null or unknown has no class: it is never a positive, and it is counted here because the store
    quarantines it.

    Parameters
    ----------
    rows : Publication
        An injection manifest or stamps; only their columns without pixels are streamed.
    """
    contract = DatasetContract.model_validate(rows.attributes["dataset_contract"])
    n_rows = n_unlabelled = n_wrong = 0
    first: list[str] = []
    per_class = dict.fromkeys(contract.class_names, 0)
    for batch in stream_metadata(rows, _LABEL_COLUMNS):
        label = _labels(batch, contract)
        for number, class_name in enumerate(contract.class_names):
            per_class[class_name] += pc.sum(pc.equal(label, number)).as_py() or 0
        n_rows += batch.num_rows
        n_unlabelled += label.null_count
        for what, mask in _disagreements(batch, label, binary=contract.n_outputs == 1).items():
            mask = pc.fill_null(mask, False)
            n_wrong += pc.sum(mask).as_py() or 0
            first += [f"{key} ({what})" for key in batch["task_id"].filter(mask).slice(0, FIRST_FEW).to_pylist()]
    if n_wrong:
        return red(
            "label_alignment",
            f"labels disagree with the row's own parameters in {rows.asset}",
            wrong=first,
            count=n_wrong,
            why="A column was shifted, joined by position or filled by hand; a model trained on it learns wrong labels.",
            next_step="look at these task_ids in the source of the rows; lens_model, theta_e_arcsec and the arc columns of one "
            "row must come from one injection. What isn't known is null or NaN: 99, -99 and inf are values.",
            unlabelled=n_unlabelled,
        )
    said = ", ".join(f"{n:,} {class_name}" for class_name, n in per_class.items())
    return green(
        "label_alignment",
        f"{n_rows:,} rows agree with their parameters: {said}; {n_unlabelled:,} without a known lens_model have no label",
        rows=n_rows,
        unlabelled=n_unlabelled,
    )


def _labels(batch: pa.RecordBatch, contract: DatasetContract) -> pa.Array:
    """Integer label of each row, null where lens_model is null or unknown."""
    known = contract.label_of
    place = pc.index_in(pc.cast(batch["lens_model"], pa.string()), pa.array(list(known), pa.string()), skip_nulls=True)
    return pa.array(list(known.values()), pa.int64()).take(place)


def _disagreements(batch: pa.RecordBatch, label: pa.Array, *, binary: bool) -> dict[str, pa.Array]:
    """Rows that disagree, by what is wrong with them."""
    negative, positive = pc.equal(label, 0), pc.greater(label, 0)
    theta_e = _number(batch, "theta_e_arcsec")
    found = {
        "a control with theta_e that is not 0": pc.and_(negative, pc.fill_null(pc.not_equal(theta_e, 0), True)),
    }
    arc_names = [name for name in (*ARC_COLUMNS, *_MEASURES) if name in batch.schema.names]
    if arc_names:
        known = [pc.is_valid(_number(batch, name)) for name in arc_names]
        any_known = known[0]
        for more in known[1:]:
            any_known = pc.or_(any_known, more)
        found["a control with arc parameters"] = pc.and_(negative, any_known)
        if binary:
            found["a lens without any arc parameter"] = pc.and_(positive, pc.invert(any_known))
    if binary:
        # With more classes some are neither control nor lens (spirals, mergers), and have no Einstein radius.
        found["a lens whose theta_e is not above 0"] = pc.and_(positive, pc.fill_null(pc.less_equal(theta_e, 0), True))
    if "is_control" in batch.schema.names:
        said = pc.not_equal(pc.cast(batch["is_control"], pa.int64()), 0)
        found["is_control says otherwise"] = pc.xor(negative, said)
    return found


def _number(batch: pa.RecordBatch, name: str) -> pa.Array:
    """Return a column as float64 with NaN, which pandas writes for unknown, as null."""
    values = pc.cast(batch[name], pa.float64())
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def manifest_conservation(stamps: Publication, manifest: Publication) -> Check:
    """Red where a row of the manifest has no stamp, a stamp no row, or either more than one."""
    asked, made = _keys(manifest), _keys(stamps)
    lost = asked.filter(pc.invert(pc.is_in(asked, value_set=made)))
    extra = made.filter(pc.invert(pc.is_in(made, value_set=asked)))
    n_wrong = len(lost) + len(extra) + abs(len(asked) - len(made) - len(lost) + len(extra))
    if n_wrong:
        return red(
            "manifest_conservation",
            f"{len(asked):,} rows of the manifest became {len(made):,} stamps: {len(lost):,} have none, {len(extra):,} stamps "
            f"belong to no row",
            wrong=[*lost.slice(0, FIRST_FEW).to_pylist(), *extra.slice(0, FIRST_FEW).to_pylist()],
            count=n_wrong,
            why="Rows were lost or doubled while rendering, or the files changed after the manifest was read from them.",
            next_step="dagster asset materialize --select 'injection_manifest,stamps' -m lens_pipeline.definitions -c PRESET",
        )
    return green("manifest_conservation", f"each of {len(asked):,} manifest rows has its one stamp", rows=len(asked))


def _keys(rows: Publication) -> pa.Array:
    chunks = [pc.cast(batch["task_id"], pa.string()) for batch in stream_metadata(rows, ("task_id",))]
    return pa.chunked_array(chunks, pa.string()).combine_chunks() if chunks else pa.array([], pa.string())


def pairs_are_sound(manifest: Publication) -> Check:
    """Red where a pair_id names no row, no control, or the control of another galaxy or region; fake_of likewise.

    A fake imitates an injection of its own galaxy, and is nobody's pair.
    """
    columns = ("task_id", "pair_id", "fake_of", "galaxy_id", "region_id", "lens_model")
    batches = list(stream_metadata(manifest, columns))
    rows = pa.Table.from_batches(batches) if batches else pa.table({})
    if "pair_id" not in rows.column_names:
        return green("pairs_are_sound", "the rows name no pairs", pairs=0)
    contract = DatasetContract.model_validate(manifest.attributes["dataset_contract"])
    no_lens = contract.classes[0].label_values
    controls = pa.array([name for name in no_lens if name not in NO_LENS], pa.string())
    mates = rows.select(["task_id", "galaxy_id", "region_id", "lens_model"])
    paired = mates.append_column("pair_id", rows["pair_id"]).filter(pc.is_valid(rows["pair_id"]))
    joined = paired.join(mates, keys="pair_id", right_keys="task_id", right_suffix="_of_pair", use_threads=False)
    mate_is_control = pc.is_in(joined["lens_model_of_pair"], value_set=controls)
    wrong = {
        "names no row": pc.is_null(joined["region_id_of_pair"]),
        "is not a control": pc.and_(pc.is_valid(joined["region_id_of_pair"]), pc.invert(mate_is_control)),
        "is of another galaxy": pc.not_equal(joined["galaxy_id"], joined["galaxy_id_of_pair"]),
        "is in another region": pc.not_equal(joined["region_id"], joined["region_id_of_pair"]),
        "stands on a control itself": pc.is_in(joined["lens_model"], value_set=pa.array(no_lens, pa.string())),
    }
    first: list[str] = []
    any_wrong = pa.chunked_array([pa.array([False] * joined.num_rows)])
    for what, mask in wrong.items():
        mask = pc.fill_null(mask, False)
        any_wrong = pc.or_(any_wrong, mask)
        first += [f"{key} (its pair {what})" for key in sorted(joined["task_id"].filter(mask).to_pylist())[:FIRST_FEW]]
    n_wrong = pc.sum(any_wrong).as_py() or 0
    loose = _loose_fakes(rows, no_lens)
    if n_wrong or loose:
        return red(
            "pairs_are_sound",
            f"{n_wrong:,} of {joined.num_rows:,} pair_id don't name a control of the same galaxy, and {len(loose):,} fakes "
            "no injection of theirs",
            wrong=[*first, *loose],
            count=n_wrong + len(loose),
            why="Paired thresholds compare an injection with its own galaxy, and a pair in two regions leaks between splits.",
            next_step="set pair_id to the task_id of the galaxy's control, or to null; fake_of to an injection of its galaxy.",
        )
    return green(
        "pairs_are_sound",
        f"{joined.num_rows:,} injections name one of {len(joined['pair_id'].unique()):,} controls of their own galaxy",
        pairs=joined.num_rows,
    )


def _loose_fakes(rows: pa.Table, no_lens: Sequence[str]) -> list[str]:
    """Fakes that imitate no injection of their own galaxy, each with what is wrong."""
    if "fake_of" not in rows.column_names or rows["fake_of"].null_count == rows.num_rows:
        return []
    fakes = rows.filter(pc.is_valid(rows["fake_of"])).select(["task_id", "fake_of", "galaxy_id"])
    twins = rows.select(["task_id", "galaxy_id", "lens_model"])
    joined = fakes.join(twins, keys="fake_of", right_keys="task_id", right_suffix="_of_twin", use_threads=False)
    is_lens = pc.invert(pc.is_in(joined["lens_model"], value_set=pa.array(no_lens, pa.string())))
    same = pc.fill_null(pc.equal(joined["galaxy_id"], joined["galaxy_id_of_twin"]), False)
    sound = pc.and_(same, pc.and_(pc.is_valid(joined["lens_model"]), is_lens))
    return [
        f"{key} (a fake of no injection of its galaxy)"
        for key in sorted(joined["task_id"].filter(pc.invert(sound)).to_pylist())
    ]


def stream_metadata(rows: Publication, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Stream columns, those that are there, of a manifest or of stamps without their pixels."""
    if "fragments" in rows.attributes:
        for fragment in Fragments.open(rows).fragments:
            yield from fragment.batches(columns, rows=_BATCH)
        return
    file = f"{rows.asset}.parquet"
    schema = rows.entry(file).schema or {}
    yield from iterate_parquet(rows.path(file), [name for name in columns if name in schema], rows=_BATCH)
