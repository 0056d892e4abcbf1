"""Which stamps are compared with their control: a matter of their keys, never of where they stand."""

from pathlib import Path

import pyarrow as pa

from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import parquet_writer, read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig, Source
from lens_pipeline.survey.fingerprints import no_fingerprints
from lens_pipeline.survey.stamp_pairs import Kind, PairReader
from lens_pipeline_tests import survey_like

from .conftest import Survey


def keys(reader: PairReader) -> set[tuple[str, str]]:
    return {(pair.row["task_id"], pair.control["task_id"]) for pair in reader.pairs()}


def turned_round(survey: Survey, stamps: Publication) -> Publication:
    """Publish stamps again with the rows of each file in the opposite order."""

    def build(staging: Staging) -> None:
        staging.attributes.update({**stamps.attributes, "fragments": []})
        for entry in stamps.attributes["fragments"]:
            table = read_parquet(stamps.path(entry["file"]))
            path: Path = staging.folder / entry["file"]
            with parquet_writer(path, table.schema) as writer:
                writer.write_table(pa.Table.from_pylist(table.to_pylist()[::-1], schema=table.schema))
            staging.attributes["fragments"].append({**entry, "sha256": sha256_of(path)})

    return survey._publish("stamps", [], build)


def test_the_injection_that_stands_for_a_galaxy_does_not_depend_on_the_order_of_rows(
    survey: Survey, small: dict[str, Publication]
) -> None:
    reader = PairReader(small["stamps"], 512)
    chosen = keys(reader)
    assert 6 < len(chosen) <= 12
    assert {row[-5:] for row, _ in chosen} == {"i0000", "i0001"}
    assert all(control == f"{row[:-6]}-c" for row, control in chosen)
    assert keys(PairReader(turned_round(survey, small["stamps"]), 512)) == chosen
    assert reader.seen == {Kind.injections: 24}


def test_every_stamp_of_a_galaxy_is_read_where_all_are_asked_and_one_stands_for_it(
    survey: Survey, small: dict[str, Publication]
) -> None:
    pairs = list(PairReader(small["stamps"], 512, every=True).pairs())
    galaxies = {pair.control["galaxy_id"] for pair in pairs}
    assert len(pairs) > len(galaxies)
    standing = {(pair.row["task_id"], pair.control["task_id"]) for pair in pairs if pair.stands_for_galaxy}
    assert standing == keys(PairReader(small["stamps"], 512))
    few = list(PairReader(small["stamps"], 2, every=True).pairs())
    assert sum(pair.stands_for_galaxy for pair in few) == 2


def test_rows_and_galaxies_are_dealt_out_over_a_users_files_and_those_left_out_are_counted(
    survey: Survey, tmp_path: Path
) -> None:
    folder = survey_like.write(tmp_path / "set", survey_like.rows(60, 12), n_files=10)
    parent = survey.parents(ParentSampleConfig(source=Source.external_stamps, folder=str(folder)))
    stamps = survey.stamps(parent, survey.manifest(parent))

    def read(most: int, most_rows: int) -> tuple[PairReader, set[int]]:
        """Return a reader and the files, of 6 galaxies each, whose pairs it read; always the same."""
        reader = PairReader(stamps, most, most_rows=most_rows)
        found = keys(reader)
        assert keys(PairReader(stamps, most, most_rows=most_rows)) == found
        assert len(found) <= most
        assert reader.n_rows <= most_rows
        return reader, {int(row.split("-")[1]) // 6 for row, _ in found}

    reader, files = read(512, 8192)
    assert (len(files), reader.n_files, reader.n_asked, reader.n_rows) == (10, 10, 10, 120)
    for most, most_rows in ((10, 8192), (512, 160)):
        reader, files = read(most, most_rows)
        assert (len(files), reader.n_asked) == (10, 10)
    reader, files = read(512, 48)
    assert (len(files), reader.n_files, reader.n_asked) == (3, 10, 3)
    reader, files = read(4, 8192)
    assert (len(files), reader.n_asked) == (4, 4)


def test_of_a_users_files_one_of_controls_alone_leaves_nothing_to_ask_and_one_of_injections_alone_does(
    survey: Survey, tmp_path: Path
) -> None:
    rows = survey_like.rows(30, 6)
    by_class = [[row for row in rows[20:] if (row["lens_model"] == "CONTROL") == alone] for alone in (True, False)]
    for number, part in enumerate((rows[:20], *by_class)):
        survey_like.write(tmp_path / f"{number}", part, n_files=1)
    (tmp_path / "set").mkdir()
    for number in range(3):
        (tmp_path / f"{number}" / "part-000.parquet").rename(tmp_path / "set" / f"{number}.parquet")
    parent = survey.parents(ParentSampleConfig(source=Source.external_stamps, folder=str(tmp_path / "set")))
    reader = PairReader(survey.stamps(parent, survey.manifest(parent)), 512)
    assert len(keys(reader)) == 10
    assert (reader.n_files, reader.n_asked) == (3, 2)


def test_a_stamp_that_cannot_be_read_is_counted_and_told(tmp_path: Path, small: dict[str, Publication]) -> None:
    survey = Survey(Home(tmp_path / "home"))
    stamps = small["stamps"]

    def build(staging: Staging) -> None:
        staging.attributes.update({**stamps.attributes, "fragments": []})
        for entry in stamps.attributes["fragments"]:
            rows = read_parquet(stamps.path(entry["file"]))
            path = staging.folder / entry["file"]
            broken = [
                {**row, "stamp_npz": b"no zip" if row["src_mag_r"] else row["stamp_npz"]} for row in rows.to_pylist()
            ]
            with parquet_writer(path, rows.schema) as writer:
                writer.write_table(pa.Table.from_pylist(broken, schema=rows.schema))
            staging.attributes["fragments"].append({**entry, "sha256": sha256_of(path)})

    published = survey._publish("stamps", [], build)
    reader = PairReader(published, 512)
    assert not list(reader.pairs())
    n = len(keys(PairReader(stamps, 512)))
    assert reader.unusable == {Kind.injections: n}
    check = no_fingerprints(published, small["parent_sample"])
    assert check.figures["pairs_that_cannot_be_read"] == n
    assert f"{n} pairs of injections can't be read" in check.what
