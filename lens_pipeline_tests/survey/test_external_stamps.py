from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, Source
from lens_pipeline.survey.manifest import build_manifest
from lens_pipeline_tests.stamps.making import make_store

from .conftest import Survey


@pytest.fixture
def folder(tmp_path: Path, small: dict[str, Publication]) -> Path:
    """The simulated stamps as somebody else's three files, which name no galaxies and no weights."""
    out = tmp_path / "theirs"
    out.mkdir()
    ours = [
        read_parquet(small["stamps"].path(fragment["file"])) for fragment in small["stamps"].attributes["fragments"]
    ]
    table = pa.concat_tables(ours).drop_columns(["galaxy_id", "weight"])
    for number in range(3):
        pq.write_table(table.slice(16 * number, 16), out / f"fragment-{number:05d}.parquet", row_group_size=5)
    return out


def config(folder: Path) -> ParentSampleConfig:
    return ParentSampleConfig(source=Source.external_stamps, folder=str(folder))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def test_a_folder_of_files_is_used_where_it_is_and_hashed_whole(survey: Survey, folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    parent = survey.parents(config(folder))
    stamps = survey.stamps(parent, survey.manifest(parent))
    groups = ([5, 5, 5, 1], [5, 5, 5, 1], [4])
    assert stamps.attributes["fragments"] == [
        {
            "file": str(path),
            "rows": sum(lengths),
            "row_groups": lengths,
            "schema": 0,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
        }
        for path, lengths in zip(sorted(folder.iterdir()), groups, strict=True)
    ]
    assert len(parent.attributes["schemas"]) == 1
    assert [path.name for path in stamps.folder.rglob("*.parquet")] == []
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_galaxies_are_matched_on_the_sky_where_rows_name_none(
    survey: Survey, folder: Path, small: dict[str, Publication]
) -> None:
    def jitter(table: pa.Table) -> pa.Table:
        moved = pa.array([dec + 0.3 / 3600 * (i % 2) for i, dec in enumerate(table["dec"].to_pylist())])
        return table.set_column(table.column_names.index("dec"), "dec", moved)

    rewrite(folder / "fragment-00000.parquet", jitter)
    parent = survey.parents(config(folder))
    assert parent.read_table().num_rows == 12
    manifest = survey.manifest(parent).read_table()
    ours = small["injection_manifest"].read_table()
    galaxy = dict(zip(ours["task_id"].to_pylist(), ours["galaxy_id"].to_pylist(), strict=True))
    named = zip(manifest["task_id"].to_pylist(), manifest["galaxy_id"].to_pylist(), strict=True)
    assert len({(galaxy[key], name) for key, name in named}) == 12
    assert set(manifest["galaxy_id"].to_pylist()) == set(parent.read_table()["galaxy_id"].to_pylist())


def test_an_unnamed_row_beside_a_named_galaxy_is_of_that_galaxy(
    survey: Survey, folder: Path, small: dict[str, Publication]
) -> None:
    name = "fragment-00000.parquet"
    pq.write_table(read_parquet(small["stamps"].path(name)).slice(0, 1), folder / "a-named.parquet")
    first = read_parquet(small["stamps"].path(name)).slice(0, 1)["galaxy_id"][0].as_py()
    rewrite(folder / name, lambda table: table.slice(1, 2))
    manifest = survey.manifest(survey.parents(config(folder))).read_table()
    assert manifest["galaxy_id"].to_pylist()[:3] == [first] * 3


def test_a_name_that_a_row_gives_is_kept_whatever_its_position(
    survey: Survey, folder: Path, small: dict[str, Publication]
) -> None:
    def name_two(table: pa.Table) -> pa.Table:
        return table.append_column("galaxy_id", pa.array(["upper", "lower"] * (table.num_rows // 2)))

    for path in folder.iterdir():
        rewrite(path, name_two)
    parent = survey.parents(config(folder))
    assert sorted(parent.read_table()["galaxy_id"].to_pylist()) == ["lower", "upper"]
    torn = parent.attributes["galaxies_in_more_than_one_region"]
    assert [name.split(" in ")[0] for name in torn] == ["upper", "lower"]
    assert all(" and " in name for name in torn)
    assert survey.manifest(parent).read_table()["galaxy_id"].to_pylist()[:3] == ["upper", "lower", "upper"]


def test_the_manifest_is_the_rows_without_pixels_under_our_names(survey: Survey, folder: Path) -> None:
    parent = survey.parents(config(folder))
    manifest = survey.manifest(parent)
    table = manifest.read_table()
    assert table.num_rows == 36
    assert "stamp_npz" not in table.column_names
    assert "psfsize_r" in table.column_names
    assert set(table["weight"].to_pylist()) == {1.0}


def test_columns_of_another_width_and_rows_without_position_are_taken_as_they_are(survey: Survey, folder: Path) -> None:
    def narrow(table: pa.Table) -> pa.Table:
        for name, dtype in (
            ("theta_e_arcsec", pa.float32()),
            ("cutout_ok", pa.int32()),
            ("lens_model", pa.large_string()),
        ):
            table = table.set_column(table.column_names.index(name), name, table[name].cast(dtype))
        for name in ("ra", "dec"):
            table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows, pa.float64()))
        return table

    rewrite(folder / "fragment-00002.parquet", narrow)
    parent = survey.parents(config(folder))
    manifest = survey.manifest(parent).read_table()
    unplaced = [name for name in manifest["galaxy_id"].to_pylist() if name.startswith("unplaced-")]
    assert len(unplaced) == 4
    assert manifest.schema.field("theta_e_arcsec").type == pa.float64()


def test_a_file_of_controls_whose_arc_columns_hold_no_value_is_taken_beside_the_others(
    survey: Survey, folder: Path
) -> None:
    def controls(table: pa.Table) -> pa.Table:
        table = table.filter(pc.equal(table["lens_model"], "CONTROL"))
        for name in ("arc_snr", "magnification"):
            table = table.set_column(table.column_names.index(name), name, pa.nulls(table.num_rows))
        return table

    rewrite(folder / "fragment-00001.parquet", controls)
    parent = survey.parents(config(folder))
    stamps = survey.stamps(parent, survey.manifest(parent))
    store, _ = make_store(survey.home, stamps)
    index = store.read_table()
    assert index.num_rows == sum(fragment["rows"] for fragment in stamps.attributes["fragments"])
    assert index["arc_snr"].null_count == pc.sum(pc.equal(index["lens_model"], "CONTROL")).as_py()


def test_classes_of_negatives_that_a_user_names_are_stored_as_what_they_are(survey: Survey, folder: Path) -> None:
    def name_kinds(table: pa.Table) -> pa.Table:
        models = table["lens_model"].to_pylist()
        controls = [row for row, model in enumerate(models) if model == "CONTROL"]
        models[controls[0]], models[controls[1]] = "RING", "ARTEFACT"
        return table.set_column(table.column_names.index("lens_model"), "lens_model", pa.array(models))

    rewrite(folder / "fragment-00000.parquet", name_kinds)

    def kinds(**settings: Any) -> dict[str, int]:
        parent = survey.parents(config(folder).model_copy(update=settings))
        store, _ = make_store(survey.home, survey.stamps(parent, survey.manifest(parent)))
        index = store.read_table()
        return dict(zip(index["lens_model"].to_pylist(), index["label"].to_pylist(), strict=True))

    assert kinds().keys().isdisjoint({"RING", "ARTEFACT"})
    found = kinds(no_lens_models=["RING", "ARTEFACT"])
    assert (found["RING"], found["ARTEFACT"], found["CONTROL"]) == (0, 0, 0)
    with pytest.raises(ValueError, match="belongs to two classes"):
        kinds(no_lens_models=["RING", "SIE"])


def drop(name: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([name])


def retype(table: pa.Table) -> pa.Table:
    place = table.column_names.index("theta_e_arcsec")
    return table.set_column(place, "theta_e_arcsec", table["theta_e_arcsec"].cast(pa.string()))


def rename(table: pa.Table) -> pa.Table:
    return table.rename_columns(["brick" if name == "region_id" else name for name in table.column_names])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (drop("cutout_ok"), r"fragment-00001.parquet does not follow .*column 'cutout_ok' is missing"),
        (rename, r"fragment-00001.parquet does not follow .*column 'region_id' is missing"),
        (retype, r"fragment-00001.parquet does not follow .*column 'theta_e_arcsec' is string, wanted double"),
    ],
)
def test_a_column_missing_renamed_or_retyped_in_any_file_is_refused_before_any_work(
    survey: Survey, folder: Path, change: Callable[[pa.Table], pa.Table], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(folder / "fragment-00001.parquet", change)

    def no_work(*_: Any, **__: Any) -> str:
        raise AssertionError("a file was read through before all footers were checked")

    monkeypatch.setattr("lens_pipeline.survey.external_files.Inspector.inspect", no_work)
    with pytest.raises(ContractError, match=said):
        survey.parents(config(folder))


def test_a_file_that_is_no_parquet_is_named_with_every_other_bad_one(survey: Survey, folder: Path) -> None:
    (folder / "fragment-00000.parquet").write_bytes(b"not parquet")
    rewrite(folder / "fragment-00002.parquet", drop("lens_model"))
    with pytest.raises(ContractError, match=r"2 of 3 files can't be used.*fragment-00000.*fragment-00002"):
        survey.parents(config(folder))


def test_an_absent_folder_an_empty_one_and_links_are_refused(survey: Survey, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        survey.parents(config(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \*.parquet file; it holds nothing"):
        survey.parents(config(tmp_path / "empty"))
    (folder / "link.parquet").symlink_to(folder / "fragment-00000.parquet")
    with pytest.raises(ContractError, match=r"link.parquet is a symbolic link"):
        survey.parents(config(folder))
    (folder / "link.parquet").unlink()
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(ContractError, match="linked is a symbolic link"):
        survey.parents(config(tmp_path / "linked"))


def test_a_value_that_fits_no_column_of_ours_is_refused_naming_its_file(survey: Survey, folder: Path) -> None:
    def huge(table: pa.Table) -> pa.Table:
        values = pa.array([2**60 + 1] * table.num_rows)
        return table.set_column(table.column_names.index("psfsize_r"), "psfsize_r", values)

    rewrite(folder / "fragment-00001.parquet", huge)
    with pytest.raises(ContractError, match=r"fragment-00001.parquet.*\b1152921504606846977\b"):
        survey.parents(config(folder))


def test_a_file_with_a_text_of_a_megabyte_is_refused_by_name_and_nothing_is_published(
    survey: Survey, folder: Path
) -> None:
    def swell(table: pa.Table) -> pa.Table:
        text = pa.array(["a" * (1 << 20)] * table.num_rows)
        return table.set_column(table.column_names.index("pair_id"), "pair_id", text)

    rewrite(folder / "fragment-00001.parquet", swell)
    with pytest.raises(ContractError, match=r"1 of 3 files can't be used.*fragment-00001.*1,048,576 bytes long"):
        survey.parents(config(folder))
    assert survey.home.versions("test", "parent_sample") == []


def test_a_file_that_changes_between_the_parent_sample_and_its_manifest_is_refused(
    survey: Survey, folder: Path
) -> None:
    parent = survey.parents(config(folder))
    rewrite(folder / "fragment-00001.parquet", lambda table: table.slice(1))
    with pytest.raises(StorageError, match=r"fragment-00001.parquet has changed since"):
        survey.manifest(parent)


def test_rows_of_null_or_unknown_lens_model_are_counted_and_not_taken_for_lenses(survey: Survey, folder: Path) -> None:
    def spoil(table: pa.Table) -> pa.Table:
        models = table["lens_model"].to_pylist()
        models[1], models[2] = None, "BANANA"
        return table.set_column(table.column_names.index("lens_model"), "lens_model", pa.array(models))

    rewrite(folder / "fragment-00000.parquet", spoil)
    parent = survey.parents(config(folder))
    with survey.home.stage("test", "injection_manifest", inputs=[parent]) as staging:
        result = build_manifest(InjectionConfig(), parent, staging)
        manifest = staging.commit()
    assert (result.n_rows, result.n_unlabelled, result.n_injections + result.n_controls) == (36, 2, 34)
    assert manifest.read_table()["lens_model"].to_pylist()[1:3] == [None, "BANANA"]
