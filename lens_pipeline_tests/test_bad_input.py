"""What each kind of bad input does, from a user's own parquet through the assets: quarantined, red, or refused; never eaten."""

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from lens_pipeline.defs.assets import dataset, survey
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline_tests import survey_like

NAME = "theirs"
Rows = list[dict[str, Any]]


class Outcome:
    """What a run of the survey and dataset assets over some rows came to."""

    def __init__(self, result: dg.ExecuteInProcessResult) -> None:
        self.success = result.success
        self.checks = {
            (e.asset_key.to_user_string(), e.check_name): (e.passed, str(e.metadata["finding"].value))
            for e in result.get_asset_check_evaluations()
        }
        self.failures = {
            str(e.step_key): str(
                e.step_failure_data.user_failure_data.description
                if e.step_failure_data.user_failure_data
                else e.step_failure_data.error
            )
            for e in result.all_events
            if e.event_type_value == "STEP_FAILURE"
        }
        self.current = {a for a in ("parent_sample", "stamps", "stamp_store", "region_splits") if _current(a)}

    @property
    def red(self) -> dict[tuple[str, str], str]:
        """Findings of checks that aren't green, but for one that so few galaxies leave undecided."""
        return {
            name: finding
            for name, (passed, finding) in self.checks.items()
            if not passed and not (name == ("stamps", "no_fingerprints") and "is undecided: " in finding)
        }


def _current(asset: str) -> bool:
    return Home.from_environment().has_current(NAME, asset)


@pytest.fixture(scope="session")
def sound_rows() -> Rows:
    return survey_like.rows(80, 40)


@pytest.fixture
def take_in(tmp_path: Path) -> Callable[..., Outcome]:
    """Write rows as a survey's parquet and materialize everything up to the splits."""

    def run(rows: Rows, *, budget: float = 0.2, then: Callable[[Path], None] = lambda folder: None) -> Outcome:
        folder = survey_like.write(tmp_path / "survey", rows)
        then(folder)
        assets = dg.load_assets_from_modules([survey, dataset])
        result = dg.materialize(
            assets,
            resources={"workspace": Workspace(dataset=NAME)},
            raise_on_error=False,
            run_config={
                "ops": {
                    "parent_sample": {"config": {"source": "external_stamps", "folder": str(folder)}},
                    "stamp_store": {"config": {"quarantine_budget": budget}},
                    "region_splits": {"config": {"floor_rows": 1}},
                }
            },
        )
        return Outcome(result)

    return run


def quarantine() -> dict[str, str]:
    table = Home.from_environment().open(NAME, "stamp_store").read_table("quarantine")
    return dict(zip(table["task_id"].to_pylist(), table["reason"].to_pylist(), strict=True))


def changed(rows: Rows, place: int, **values: Any) -> Rows:
    return [{**row, **values} if i == place else row for i, row in enumerate(rows)]


def members(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def images(dtype: str = "f4", size: int = 64) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {f"image_{band}": random.normal(0, 1, (size, size)).astype(dtype) for band in "grz"}


def pickled() -> bytes:
    arrays = {**images(), "image_z": np.array([{"a": 1}], dtype=object)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for band in "grz":
            archive.writestr(f"image_{band}.npy", b"\0" * 200_000_000)
    return buffer.getvalue()


def with_nan() -> bytes:
    arrays = images()
    arrays["image_r"][3, 4] = np.nan
    return members(**arrays)


def flipped() -> bytes:
    sound = bytearray(members(**images()))
    sound[len(sound) // 2] ^= 8
    return bytes(sound)


def test_a_sound_survey_is_taken_in_unchanged_with_its_own_split(
    take_in: Callable[..., Outcome], sound_rows: Rows
) -> None:
    before: dict[str, bytes] = {}
    outcome = take_in(sound_rows, then=lambda folder: before.update({p.name: p.read_bytes() for p in folder.iterdir()}))
    assert (outcome.success, outcome.red) == (True, {})
    home = Home.from_environment()
    store = home.open(NAME, "stamp_store").read_table()
    assert sorted(store["task_id"].to_pylist()) == sorted(row["task_id"] for row in sound_rows)
    own = {row["task_id"]: row["region_split"] for row in sound_rows}
    split = home.open(NAME, "region_splits").read_table("rows").to_pylist()
    assert all(row["split"].startswith(own[row["task_id"]]) for row in split)
    folder = Path(home.open(NAME, "parent_sample").attributes["folder"])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_was_stored_is_bit_for_bit_what_numpy_reads(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    from lens_pipeline.stamps.store import StampStore

    take_in(sound_rows)
    store = StampStore.open(Home.from_environment().open(NAME, "stamp_store"))
    keys = store.index["task_id"].to_pylist()
    stored = store.take(np.arange(len(keys)))
    by_key = {row["task_id"]: row["stamp_npz"] for row in sound_rows}
    for place in (0, 7, len(keys) - 1):
        with np.load(io.BytesIO(by_key[keys[place]])) as arrays:
            expected = np.stack([arrays[f"image_{band}"] for band in "grz"])
        assert np.array_equal(stored.pixels[place], expected.astype(np.float16))
        assert np.array_equal(stored.median[place], np.median(expected, axis=(1, 2)))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda: members(**images())[:-40], "zip"),
        (flipped, "crc|deflate|inflate|corrupt"),
        (lambda: members(**images(size=32)), "shape"),
        (lambda: members(**images("f8")), "dtype"),
        (lambda: members(**{k: v for k, v in images().items() if k != "image_z"}), "member"),
        (with_nan, "finite"),
        (pickled, "pickle|object|dtype"),
        (bomb, "size|large|bomb"),
        (lambda: members(**{**images(), "image_g": np.zeros((64, 64), "f4")}), "constant|mad"),
        (lambda: None, "null|missing"),
        (lambda: b"not a zip at all", "zip"),
    ],
    ids=["truncated", "flipped", "shape", "dtype", "missing", "nan", "pickle", "bomb", "constant", "null", "garbage"],
)
def test_a_bad_stamp_is_quarantined_with_its_reason_and_the_run_goes_on(
    take_in: Callable[..., Outcome], sound_rows: Rows, content: Callable[[], bytes | None], reason: str
) -> None:
    outcome = take_in(changed(sound_rows, 5, stamp_npz=content()))
    assert (outcome.success, outcome.red) == (True, {})
    found = quarantine()
    assert list(found) == [sound_rows[5]["task_id"]]
    assert re.search(reason, found[sound_rows[5]["task_id"]]), found
    passed, finding = outcome.checks["stamp_store", "row_conservation"]
    assert passed
    assert "160 rows in, 159 stored, 1 quarantined, 0 excluded" in finding


def test_more_quarantined_rows_than_the_budget_are_red_and_publish_nothing(
    take_in: Callable[..., Outcome], sound_rows: Rows
) -> None:
    outcome = take_in(changed(sound_rows, 5, stamp_npz=b"broken"), budget=0.001)
    assert set(outcome.red) == {("stamp_store", "quarantine_budget")}
    finding = outcome.red["stamp_store", "quarantine_budget"]
    assert sound_rows[5]["task_id"] in finding
    assert "Next:" in finding
    assert outcome.current == {"parent_sample", "stamps"}


@pytest.mark.parametrize("value", [None, "sie", "UNKNOWN"])
def test_a_null_or_unknown_lens_model_is_quarantined_and_never_a_positive(
    take_in: Callable[..., Outcome], sound_rows: Rows, value: str | None
) -> None:
    outcome = take_in(changed(sound_rows, 3, lens_model=value))
    assert (outcome.success, outcome.red) == (True, {})
    assert quarantine() == {sound_rows[3]["task_id"]: "unknown_label"}


def test_rows_that_the_survey_calls_unusable_are_excluded_and_counted_apart(
    take_in: Callable[..., Outcome], sound_rows: Rows
) -> None:
    outcome = take_in(changed(changed(sound_rows, 3, cutout_ok=0), 4, cutout_ok=0), budget=0.0)
    assert outcome.success
    assert "158 stored, 0 quarantined, 2 excluded" in outcome.checks["stamp_store", "row_conservation"][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: [{k: v for k, v in row.items() if k != "theta_e_arcsec"} for row in rows],
            "'theta_e_arcsec' is missing",
        ),
        (
            lambda rows: [{("id" if k == "task_id" else k): v for k, v in row.items()} for row in rows],
            "'task_id' is missing",
        ),
        (
            lambda rows: [{**row, "cutout_ok": str(row["cutout_ok"])} for row in rows],
            "'cutout_ok' is string, wanted int64",
        ),
    ],
    ids=["missing", "renamed", "retyped"],
)
def test_a_column_that_is_missing_renamed_or_retyped_is_refused_before_any_work(
    take_in: Callable[..., Outcome], sound_rows: Rows, change: Callable[[Rows], Rows], message: str
) -> None:
    outcome = take_in(change(sound_rows))
    assert message in outcome.failures["parent_sample"]
    assert "part-000.parquet" in outcome.failures["parent_sample"]
    assert outcome.current == set()


def test_one_bad_file_among_many_is_named(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    def spoil(folder: Path) -> None:
        (folder / "part-003.parquet").write_bytes(b"PAR1 this is no parquet PAR1")

    outcome = take_in(sound_rows, then=spoil)
    assert "part-003.parquet" in outcome.failures["parent_sample"]


def test_a_key_that_stands_twice_is_red(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    outcome = take_in(changed(sound_rows, 6, task_id=sound_rows[2]["task_id"]))
    assert not outcome.success
    told = " ".join([*outcome.failures.values(), *outcome.red.values()])
    assert sound_rows[2]["task_id"] in told
    assert "stamp_store" not in outcome.current


def test_a_fragment_given_twice_is_red(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    def copy(folder: Path) -> None:
        (folder / "part-009.parquet").write_bytes((folder / "part-001.parquet").read_bytes())

    outcome = take_in(sound_rows, then=copy)
    assert not outcome.success
    told = " ".join([*outcome.failures.values(), *outcome.red.values()])
    assert "part-009.parquet" in told or "more than one row" in told
    assert "stamp_store" not in outcome.current


def test_the_same_pixels_under_two_galaxies_are_red(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    outcome = take_in(changed(sound_rows, 20, stamp_npz=sound_rows[0]["stamp_npz"]))
    assert set(outcome.red) == {("stamp_store", "no_duplicated_fragments")}
    finding = outcome.red["stamp_store", "no_duplicated_fragments"]
    assert sound_rows[20]["task_id"] in finding
    assert sound_rows[0]["task_id"] in finding


def test_the_same_pixels_under_two_labels_are_red(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    outcome = take_in(changed(sound_rows, 1, stamp_npz=sound_rows[0]["stamp_npz"]))
    assert set(outcome.red) == {("stamp_store", "no_duplicated_fragments")}


@pytest.mark.parametrize(
    "values",
    [{"theta_e_arcsec": 1.2}, {"arc_snr": 9.0}, {"lens_model": "SIE"}],
    ids=["control with an Einstein radius", "control with an arc", "control called a lens"],
)
def test_a_label_that_disagrees_with_its_own_row_is_red(
    take_in: Callable[..., Outcome], sound_rows: Rows, values: dict[str, Any]
) -> None:
    outcome = take_in(changed(sound_rows, 4, **values))
    assert ("injection_manifest", "label_alignment") in outcome.red
    assert sound_rows[4]["task_id"] in outcome.red["injection_manifest", "label_alignment"]
    assert "stamp_store" not in outcome.current


def test_a_region_in_two_splits_is_refused(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    outcome = take_in(changed(sound_rows, 0, region_split="test"))
    assert "region-000" in outcome.failures["region_splits"]
    assert "region_splits" not in outcome.current


def test_a_galaxy_that_stands_in_two_regions_of_two_splits_is_red(
    take_in: Callable[..., Outcome], sound_rows: Rows
) -> None:
    elsewhere = {name: sound_rows[6][name] for name in ("ra", "dec")}
    both = changed(changed(sound_rows, 0, **elsewhere), 1, **elsewhere)
    assert sound_rows[0]["region_split"] != sound_rows[6]["region_split"]
    outcome = take_in(both)
    assert ("parent_sample", "galaxies_are_unique") in outcome.red
    assert outcome.current == set()


def test_a_survey_without_controls_is_refused_not_scored_zero(
    take_in: Callable[..., Outcome], sound_rows: Rows
) -> None:
    from lens_pipeline.contracts.errors import TrainingError
    from lens_pipeline.training.config import TrainingConfig
    from lens_pipeline.training.run import prepare_run

    outcome = take_in([row for row in sound_rows if row["lens_model"] != "CONTROL"])
    assert outcome.success
    home = Home.from_environment()
    store, splits = home.open(NAME, "stamp_store"), home.open(NAME, "region_splits")
    with pytest.raises(TrainingError, match=r"train has no row of class control"):
        prepare_run(TrainingConfig(), store, splits, home.path / "run")


def test_a_store_whose_pixels_were_changed_is_not_trained_on(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    from lens_pipeline.contracts.errors import StorageError
    from lens_pipeline.stamps.store import refuse_damaged
    from lens_pipeline.training.config import TrainingConfig
    from lens_pipeline.training.run import prepare_run

    assert take_in(sound_rows).success
    home = Home.from_environment()
    store, splits = home.open(NAME, "stamp_store"), home.open(NAME, "region_splits")
    refuse_damaged(store)
    segment = next(store.folder.glob("*.f16"))
    damaged = bytearray(segment.read_bytes())
    damaged[-7] ^= 1
    segment.write_bytes(damaged)
    with pytest.raises(StorageError, match=r"(?s)not what was published.*segment-00000\.f16"):
        prepare_run(TrainingConfig(), store, splits, home.path / "run")


def test_another_source_under_the_same_name_is_refused(take_in: Callable[..., Outcome], sound_rows: Rows) -> None:
    assert take_in(sound_rows).success
    result = dg.materialize(
        [survey.parent_sample],
        resources={"workspace": Workspace(dataset=NAME)},
        raise_on_error=False,
        run_config={"ops": {"parent_sample": {"config": {"n_galaxies": 10, "n_bricks": 2}}}},
    )
    assert "was made from the source external_stamps, not simulated" in str(Outcome(result).failures)


def test_an_empty_folder_and_a_folder_that_is_not_there_are_refused(take_in: Callable[..., Outcome]) -> None:
    def empty(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()

    outcome = take_in([], then=empty)
    assert "parquet" in outcome.failures["parent_sample"]
