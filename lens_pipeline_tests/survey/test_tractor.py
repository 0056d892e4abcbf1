"""Catalogue files as they come: read whole and in pieces, and refused where they are not what they say."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table

from lens_pipeline.contracts.errors import ConfigError, ContractError, StorageError
from lens_pipeline.survey.tractor import Catalogue, catalogue_files

from .catalogues import row, write_fits, write_parquet

NAMES = ("RELEASE", "BRICKID", "OBJID", "BRICKNAME", "TYPE", "RA", "FLUX_R", "MASKBITS")


def rows_of(path: Path, names: tuple[str, ...] = NAMES, rows: int = 1000) -> list[dict[str, Any]]:
    return pa.Table.from_batches(Catalogue.open(path).batches(names, rows=rows)).to_pylist()


def some_rows(n: int = 10) -> list[dict[str, Any]]:
    types = ["PSF", "REX", "DEV", "EXP", "SER"]
    return [row(OBJID=i, TYPE=types[i % 5], RA=0.01 * i, r=20 + 0.1 * i, MASKBITS=i) for i in range(n)]


@pytest.mark.parametrize("rows", [1, 3, 10, 1000])
def test_sweep_tractor_and_parquet_files_of_the_same_rows_read_the_same_in_pieces_of_any_size(
    tmp_path: Path, rows: int
) -> None:
    made = some_rows()
    wanted = [{name: one[name] for name in NAMES} for one in made]
    for path in (
        write_fits(tmp_path / "sweep-000m005-010p000.fits", made),
        write_fits(tmp_path / "tractor-0001p000.fits", made, lower=True),
        write_parquet(tmp_path / "rows.parquet", made),
    ):
        read = rows_of(path, rows=rows)
        assert [one["RA"] for one in read] == [one["RA"] for one in wanted]
        assert [one["FLUX_R"] for one in read] == pytest.approx([one["FLUX_R"] for one in wanted], rel=1e-6)
        for name in ("RELEASE", "BRICKID", "OBJID", "BRICKNAME", "TYPE", "MASKBITS"):
            assert [one[name] for one in read] == [one[name] for one in wanted], (path.name, name)


def test_a_compressed_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    plain = write_fits(tmp_path / "sweep.fits", some_rows())
    packed = tmp_path / "packed.fits.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert rows_of(packed) == rows_of(plain)


def test_logical_and_offset_columns_keep_their_values(tmp_path: Path) -> None:
    path = tmp_path / "tractor.fits"
    table = Table({"brick_primary": np.array([True, False]), "count": np.array([3, 60000], np.uint16)})
    table.write(path)
    assert rows_of(path, ("BRICK_PRIMARY", "COUNT")) == [
        {"BRICK_PRIMARY": True, "COUNT": 3},
        {"BRICK_PRIMARY": False, "COUNT": 60000},
    ]


def test_missing_columns_are_refused_by_name(tmp_path: Path) -> None:
    catalogue = Catalogue.open(write_fits(tmp_path / "sweep.fits", some_rows()))
    with pytest.raises(ContractError, match=r"lacks 2 of the columns that lrg_x needs: FLUX_W9, NOBS_Q"):
        catalogue.require(("FLUX_R", "FLUX_W9", "NOBS_Q"), why="lrg_x")


def test_a_file_that_was_cut_is_refused_with_the_row_where_it_ends(tmp_path: Path) -> None:
    path = write_fits(tmp_path / "sweep.fits", some_rows(200))
    whole = path.read_bytes()
    with fits.open(path) as hdus:
        start, length = hdus[1].fileinfo()["datLoc"], hdus[1].header["NAXIS1"]
    path.write_bytes(whole[: start + 77 * length + 5])
    with pytest.raises(ContractError, match=r"ends after 77 of 200 rows"):
        rows_of(path, rows=50)


def many_rows(folder: Path) -> bytes:
    """A FITS table, packed, of which no small part holds little."""
    noise = np.random.default_rng(0).normal(size=(3000, 8))
    Table({f"flux_{i}": noise[:, i] for i in range(8)}).write(folder / "plain.fits", overwrite=True)
    return gzip.compress((folder / "plain.fits").read_bytes())


@pytest.mark.parametrize("kept", [300, 900, 2000, 40_000, 160_000, -4])
def test_a_compressed_file_that_was_cut_anywhere_is_said_to_be_cut_and_not_to_hold_no_table(
    tmp_path: Path, kept: int
) -> None:
    path = tmp_path / "sweep.fits.gz"
    path.write_bytes(many_rows(tmp_path)[:kept])
    with pytest.raises(ContractError, match=r"can't be read as FITS|is cut or damaged") as refused:
        rows_of(path, ("FLUX_0",))
    assert "again" in str(refused.value)


def test_a_compressed_file_with_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    packed = many_rows(tmp_path)
    for place in range(5_000, len(packed), 40_000):
        broken = bytearray(packed)
        broken[place] ^= 4
        (tmp_path / "sweep.fits.gz").write_bytes(broken)
        with pytest.raises(ContractError, match=r"can't be read as FITS|is cut or damaged"):
            rows_of(tmp_path / "sweep.fits.gz", ("FLUX_0",))


@pytest.mark.parametrize("kept", [3000, 8000])
@pytest.mark.filterwarnings("ignore:Error validating header")
def test_a_plain_file_that_was_cut_in_its_tables_header_is_said_to_be_cut(tmp_path: Path, kept: int) -> None:
    path = write_fits(tmp_path / "sweep.fits", some_rows(200))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ContractError, match=r"breaks off before its table: it was cut or damaged"):
        Catalogue.open(path)


def test_a_damaged_parquet_of_the_user_is_his_to_fetch_and_no_assets_to_publish(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", some_rows(2000))
    broken = bytearray(path.read_bytes())
    broken[4:400] = bytes(396)
    path.write_bytes(broken)
    with pytest.raises(StorageError, match=r"The file is damaged. Fetch or write it again") as refused:
        rows_of(path)
    assert "Materialize" not in str(refused.value)


def test_columns_of_another_kind_are_refused_at_once_with_file_type_and_what_was_wanted(tmp_path: Path) -> None:
    made = [one | {"RA": str(one["RA"]), "BRICK_PRIMARY": "yes", "FLUX_R": [1.0]} for one in some_rows(2)]
    catalogue = Catalogue.open(write_parquet(tmp_path / "rows.parquet", made))
    with pytest.raises(ContractError, match=r"rows.parquet has 3 columns of another kind") as refused:
        catalogue.refuse_other_kinds(("RA", "DEC", "BRICK_PRIMARY", "FLUX_R", "TYPE", "NOT_THERE"))
    for said in ("RA is string, wanted numbers", "BRICK_PRIMARY is string, wanted true or false", "FLUX_R is list"):
        assert said in str(refused.value)


def test_a_fits_column_of_text_where_numbers_belong_is_refused_too(tmp_path: Path) -> None:
    Table({"ra": ["10.5", "11"], "dec": [1.0, 2.0]}).write(tmp_path / "t.fits")
    with pytest.raises(ContractError, match=r"t.fits has 1 columns .*RA is string, wanted numbers"):
        Catalogue.open(tmp_path / "t.fits").refuse_other_kinds(("RA", "DEC"))


def test_a_value_that_is_no_whole_number_or_no_flag_is_refused_with_its_column(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [{"MASKBITS": 1.5, "BRICK_PRIMARY": 2}])
    with pytest.raises(ContractError, match=r"rows.parquet: MASKBITS holds a value that the survey's doesn't"):
        rows_of(path, ("MASKBITS",))
    with pytest.raises(ContractError, match=r"BRICK_PRIMARY holds .* values from 2 to 2, wanted 0 and 1"):
        rows_of(path, ("BRICK_PRIMARY",))


@pytest.mark.parametrize("content", [b"SIMPLE  = broken", b"", b"PAR1 not really"])
@pytest.mark.parametrize("name", ["a.fits", "a.parquet"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ContractError, match=r"can't be read as|holds no binary table"):
        Catalogue.open(tmp_path / name)


def test_an_image_and_a_column_of_vectors_are_refused(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    with pytest.raises(ContractError, match="holds no binary table"):
        Catalogue.open(tmp_path / "image.fits")
    Table({"DCHISQ": np.zeros((2, 5))}).write(tmp_path / "vectors.fits")
    with pytest.raises(ContractError, match=r"DCHISQ has \(5,\) values a row"):
        rows_of(tmp_path / "vectors.fits", ("DCHISQ",))


def test_a_folder_lists_its_catalogues_by_name_and_refuses_links_and_emptiness(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        catalogue_files(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="holds no catalogue"):
        catalogue_files(str(tmp_path))
    second, first = write_fits(tmp_path / "b.fits", some_rows()), write_parquet(tmp_path / "a.parquet", some_rows())
    (tmp_path / "README.txt").write_text("not a catalogue")
    assert catalogue_files(str(tmp_path)) == [first, second]
    assert catalogue_files(str(second)) == [second]
    (tmp_path / "c.fits").symlink_to(second)
    with pytest.raises(ContractError, match="symbolic link"):
        catalogue_files(str(tmp_path))
