from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.parquet import write_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.parts import Part, cut

from .conftest import Survey

MOST = 50


@pytest.fixture
def parent(survey: Survey) -> Publication:
    return survey.table("parent_sample", [{"galaxy_id": f"g{number:05d}", "mag_r": 20.0} for number in range(5000)], {})


def parts_of(folder: Path, parent: Publication, galaxies: list[int], made_with: str = "") -> list[Part]:
    rows = [{"task_id": f"g{g:05d}-{kind}", "galaxy_id": f"g{g:05d}"} for g in galaxies for kind in "ci"]
    write_parquet(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return list(cut(folder / "rows.parquet", parent, MOST, made_with))


def test_every_row_is_in_one_part_in_order_with_its_galaxy(tmp_path: Path, parent: Publication) -> None:
    parts = parts_of(tmp_path, parent, list(range(0, 5000, 2)))
    assert [part.number for part in parts] == list(range(len(parts)))
    keys = [row["task_id"] for part in parts for row in part.rows]
    assert keys == [f"g{g:05d}-{kind}" for g in range(0, 5000, 2) for kind in "ci"]
    assert all({row["galaxy_id"] for row in part.rows} == set(part.galaxies) for part in parts)
    assert len({part.key for part in parts}) == len(parts)


def test_parts_are_never_larger_than_asked_for_and_on_average_043_times_as_large(
    tmp_path: Path, parent: Publication
) -> None:
    sizes = [len(part.rows) for part in parts_of(tmp_path, parent, list(range(5000)))]
    assert max(sizes) == MOST
    # (1 - exp(-2)) / 2; of 460 parts the mean is known to 0.02.
    assert sum(sizes) / len(sizes) / MOST == pytest.approx(0.432, abs=0.06)


@pytest.mark.parametrize("place", [0, 1, 777, 2499])
def test_a_galaxy_that_comes_in_anywhere_changes_a_part_or_two(tmp_path: Path, parent: Publication, place: int) -> None:
    before = list(range(0, 5000, 2))
    keys = {part.key for part in parts_of(tmp_path, parent, before)}
    after = parts_of(tmp_path, parent, sorted([*before, 2 * place + 1]))
    changed = [part for part in after if part.key not in keys]
    assert 1 <= len(changed) <= 6
    assert all(b.number == a.number + 1 for a, b in pairwise(changed))


def test_what_all_are_made_with_is_in_every_key(tmp_path: Path, parent: Publication) -> None:
    one, other = (parts_of(tmp_path, parent, list(range(200)), made_with) for made_with in ("seed 1", "seed 2"))
    assert not {part.key for part in one} & {part.key for part in other}
    assert [part.rows for part in one] == [part.rows for part in other]


@pytest.mark.parametrize("galaxies", [[3, 7000], [7, 3]])
def test_a_row_whose_galaxy_is_not_there_or_out_of_order_is_an_error(
    tmp_path: Path, parent: Publication, galaxies: list[int]
) -> None:
    with pytest.raises(StorageError, match=r"the manifest names galaxy g0\d+, which parent_sample .* has not"):
        parts_of(tmp_path, parent, galaxies)
