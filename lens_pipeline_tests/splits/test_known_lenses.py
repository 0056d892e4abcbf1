"""Which rows of lenscat are galaxy-scale lenses, how they were found, and which galaxies they lie on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.splits.known_lenses import KnownLenses, read_known_lenses

HEADER = "name,RA [deg],DEC [deg],zlens,type,grading,ref\n"
NETWORK = "Huang et al. (2021) - arXiv:2005.04730"
SPECTROSCOPY = "Talbot et al. (2020) - arXiv:2007.09006"
COMPILATION = "Moustakas et al. (2012) - adsabs:2012hst..prop12833M"
CLUSTERS = "Lopes et al. (2004) - doi:10.1086/423038"
QUASARS = "https://research.ast.cam.ac.uk/lensedquasars/index.html"


def lenscat(folder: Path, *lines: str) -> str:
    path = folder / "lenscat.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines))
    return str(path)


def by_name(lenses: KnownLenses) -> dict[str, dict[str, Any]]:
    return {row["lens_name"]: row for row in lenses.rows}


def test_a_row_is_a_lens_by_its_references_and_not_by_its_type_alone(tmp_path: Path) -> None:
    lenses = read_known_lenses(
        lenscat(
            tmp_path,
            f"a,10,1,0.4,galaxy,confident,{NETWORK}",
            f"b,11,1,0.4,galaxy,probable,{CLUSTERS}",
            f"c,12,1,0.4,cluster,confident,{NETWORK}",
            f"d,13,1,-,galaxy,confident,{QUASARS}",
            f"e,14,1,-,galaxy,probable,{CLUSTERS} | {SPECTROSCOPY}",
        )
    )
    assert set(by_name(lenses)) == {"a", "e"}
    told = {name: lenses.report[name] for name in ("rows", "not_of_type_galaxy", "lenses", "confident")}
    assert told == {"rows": 5, "not_of_type_galaxy": 1, "lenses": 2, "confident": 1}
    assert lenses.report["galaxy_without_a_galaxy_scale_reference"] == 2
    assert lenses.report["references_that_do_not_count"] == {CLUSTERS: 1, QUASARS: 1}


def test_entries_of_one_system_are_one_lens_with_all_its_methods_and_the_better_grade(tmp_path: Path) -> None:
    arcsec = 1 / 3600
    lenses = read_known_lenses(
        lenscat(
            tmp_path,
            f"a,10,60,0.4,galaxy,probable,{NETWORK}",
            f"a again,{10 + 1.5 * arcsec / 0.5},60,0.4,galaxy,confident,{SPECTROSCOPY}",
            f"a once more,{10 + 3.0 * arcsec / 0.5},60,0.4,galaxy,probable,{COMPILATION}",
            f"b,{10 + 9 * arcsec / 0.5},60,0.4,galaxy,probable,{NETWORK}",
            f"c,20,60,0.4,galaxy,probable,{COMPILATION}",
            f"d,359.9999,0,0.4,galaxy,probable,{NETWORK}",
            f"e,0.0001,0,0.4,galaxy,probable,{NETWORK}",
        )
    )
    found = by_name(lenses)
    assert set(found) == {"a", "b", "c", "d"}
    assert (found["a"]["grade"], found["a"]["methods"]) == ("confident", "compilation, network, spectroscopy")
    assert [found[name]["independent_of_networks"] for name in "abc"] == [True, False, None]
    assert lenses.report["repeated"] == 3


def test_the_nearest_lens_within_the_radius_is_found_everywhere_on_the_sky(tmp_path: Path) -> None:
    lenses = read_known_lenses(
        lenscat(tmp_path, f"a,0,80,-,galaxy,probable,{NETWORK}", f"b,200,-5,-,galaxy,probable,{NETWORK}")
    )
    arcsec = 1 / 3600
    ra = [0.0, 360 - 2.9 * arcsec / np.cos(np.radians(80)), 0.0, 200.0]
    dec = [80 + 2.9 * arcsec, 80.0, 80 + 3.1 * arcsec, -5 - 1 * arcsec]
    place, distance = lenses.match(ra, dec, 3.0)
    assert place.tolist() == [0, 0, -1, 1]
    assert distance[[0, 1, 3]] == pytest.approx([2.9, 2.9, 1.0], abs=1e-3)
    assert np.isinf(distance[2])
    assert KnownLenses([], {}).match(ra, dec, 3.0)[0].tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("ra,dec\n1,2\n", "wanted lenscat's"),
        ("", "wanted lenscat's"),
        (HEADER + "a,1,2\n", "line 2 has 3 fields, wanted 7"),
        (HEADER + f"a,nan,2,-,galaxy,probable,{NETWORK}\n", "1 lenses have no position .* first: a"),
        (HEADER + f"a,1,200,-,galaxy,probable,{NETWORK}\n", "1 lenses have no position"),
        (HEADER + f"a,somewhere,2,-,galaxy,probable,{NETWORK}\n", "1 lenses have no position"),
    ],
)
def test_a_table_of_another_layout_or_without_positions_is_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "lenses.csv"
    path.write_text(content)
    with pytest.raises(ContractError, match=said):
        read_known_lenses(str(path))


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"parent_sample.known_lenses: there is no file"):
        read_known_lenses(str(tmp_path / "none.csv"))


@pytest.mark.real_data
def test_lenscat_keeps_its_galaxy_scale_lenses_and_leaves_cluster_catalogues_and_quasars_out(real_data: Path) -> None:
    lenses = read_known_lenses(str(real_data / "catalogs" / "lenscat.csv"))
    report = lenses.report
    assert (report["rows"], report["not_of_type_galaxy"]) == (32838, 1083)
    assert report["galaxy_without_a_galaxy_scale_reference"] > 13322 + 220
    assert report["references_that_do_not_count"][CLUSTERS] == 9951
    assert report["references_that_do_not_count"][QUASARS] == 220
    assert 15_000 < report["lenses"] < 19_000
    assert report["independent_of_networks"] < report["lenses"] / 2
    assert {row["grade"] for row in lenses.rows} == {"confident", "probable"}
    # SLACS J0946+1006, found in spectra, is one system whatever the lists call it.
    place, _ = lenses.match([146.6541], [10.1137], 3.0)
    assert "spectroscopy" in lenses.rows[place[0]]["methods"]
    assert lenses.rows[place[0]]["independent_of_networks"]
