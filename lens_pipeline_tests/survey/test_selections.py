"""Published selections: what they keep of real targets, and on which side of each published edge a row falls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.survey.selections import SELECTIONS, selection_named
from lens_pipeline.survey.tractor import Catalogue, catalogue_files

from .catalogues import NORTH, SOUTH, flux, row

_NEAR = 1e-4

Move = Callable[[float], dict[str, Any]]
Edge = tuple[str, str, int, str, Move]


def _edges_of_dr8(release: int) -> Iterator[tuple[str, Move]]:
    """Rows by their distance d (mag) inside each edge of the DR8 cuts; the numbers are those of the publication."""
    south = release == SOUTH
    star, g_w1, g_r, r_w1 = (0.6, 2.6, 1.4, 1.8) if south else (0.65, 2.67, 1.45, 1.85)
    zero_1, zero_2 = (16.83, 13.80) if south else (16.69, 13.68)
    yield "non_stellar", lambda d: {"z": 19.5, "r": 21.0, "w1": 19.5 - (0.8 * 1.5 - star) - d}
    yield "low_z", lambda d: {"z": 19.0, "r": 20.2, "w1": 18.5, "g": 20.2 + g_r + d}
    yield "low_z", lambda d: {"z": 18.0, "r": 18.86, "w1": 17.8, "g": 17.8 + g_w1 + d}
    yield "low_z", lambda d: {"z": 19.0, "r": 20.3, "w1": 20.3 - r_w1 - d, "g": 21.0}
    yield "sliding_1", lambda d: {"z": 19.5, "r": 19.5 + (19.5 - zero_1) * 0.45 + d, "w1": 17.9}
    yield "sliding_2", lambda d: {"z": 18.0, "r": 18.0 + (18.0 - zero_2) * 0.19 + d, "w1": 17.5, "g": 21.0}
    yield "red", lambda d: {"z": 16.5, "r": 17.2 + d, "w1": 15.9, "g": 19.0}
    yield "faint_limit", lambda d: {"zfiber": 21.5 - d}
    yield "measured", lambda d: {"FLUX_IVAR_W1": (4 / flux(18.0, "w1")) ** 2 * (1 + d)}


def _edges_of_dr9(release: int) -> Iterator[tuple[str, Move]]:
    """The same of the main survey's cuts (Zhou et al. 2023)."""
    south = release == SOUTH
    g_w1 = 2.9 if south else 2.97
    zero, slope, offset, red = (17.14, 1.8, 16.33, 3.3) if south else (17.13, 1.83, 16.31, 3.4)
    yield "non_stellar", lambda d: {"z": 18.0, "r": 19.5, "w1": 18.0 - (0.8 * 1.5 - 0.6) - d}
    yield "low_z", lambda d: {"z": 18.0, "r": 19.0, "w1": 17.5, "g": 17.5 + g_w1 + d}
    yield "low_z", lambda d: {"z": 18.0, "r": 19.3, "w1": 17.5 - d, "g": 19.5}
    yield "sliding", lambda d: {"z": 19.5, "w1": 18.5, "r": 18.5 + (18.5 - zero) * slope + d}
    yield "sliding", lambda d: {"z": 18.0, "w1": 17.5, "r": 17.5 + (17.5 - offset) + d, "g": 21.0}
    yield "sliding", lambda d: {"z": 20.6, "w1": 19.2, "r": 19.2 + red + d}
    yield "faint_limit", lambda d: {"zfiber": (21.60 if south else 21.61) - d}
    yield "no_bright_star", lambda d: {"GAIA_PHOT_G_MEAN_MAG": 18.0 + d}
    yield "no_bright_fibre", lambda d: {"zfibertot": 17.5 + d}


EDGES: list[Edge] = [
    (name, cut, release, f"{name}-{cut}-{number}-{'south' if release == SOUTH else 'north'}", move)
    for name, edges in (("lrg_dr8_2020", _edges_of_dr8), ("lrg_dr9_main", _edges_of_dr9))
    for release in (SOUTH, NORTH)
    for number, (cut, move) in enumerate(edges(release))
]


def judged(name: str, **columns: Any) -> dict[str, bool]:
    """Which cuts a row meets."""
    return SELECTIONS[name].passed(pl.DataFrame([row(**columns)])).to_dicts()[0]


@pytest.mark.parametrize(
    ("name", "cut", "release", "move"), [(*edge[:3], edge[4]) for edge in EDGES], ids=[edge[3] for edge in EDGES]
)
def test_a_row_just_inside_a_published_edge_is_kept_and_one_just_outside_fails_that_cut_alone(
    name: str, cut: str, release: int, move: Move
) -> None:
    inside = judged(name, RELEASE=release, **move(_NEAR))
    outside = judged(name, RELEASE=release, **move(-_NEAR))
    assert all(inside.values())
    assert [failed for failed, met in outside.items() if not met] == [cut]


@pytest.mark.parametrize("name", SELECTIONS)
def test_every_cut_of_the_colours_has_an_edge_in_these_tests(name: str) -> None:
    tried = {edge[1] for edge in EDGES if name.startswith(edge[0])}
    untried = {cut.name for cut in SELECTIONS[name].cuts} - tried
    assert untried <= {"extinction_known", "positive_flux", "measured", "observed", "unmasked"}


@pytest.mark.parametrize("name", ["lrg_dr8_2020", "lrg_dr9_main"])
@pytest.mark.parametrize(
    ("columns", "cut"),
    [
        ({"FLUX_IVAR_R": 0.0}, "measured"),
        ({"FLUX_IVAR_W1": float("nan")}, "measured"),
        ({"FLUX_IVAR_Z": None}, "measured"),
        ({"NOBS_G": 0}, "observed"),
        ({"NOBS_Z": 0}, "observed"),
        ({"MASKBITS": 1 << 1}, "unmasked"),
        ({"MASKBITS": 1 << 12}, "unmasked"),
        ({"MASKBITS": (1 << 13) + 1}, "unmasked"),
    ],
)
def test_a_row_of_bad_quality_is_left_out_by_the_cut_that_says_so(name: str, columns: dict[str, Any], cut: str) -> None:
    assert [failed for failed, met in judged(name, **columns).items() if not met] == [cut]


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("band", ["R", "Z", "W1"])
@pytest.mark.parametrize("value", [0.0, -1.0, None, float("nan"), float("inf")])
def test_a_flux_that_is_no_positive_number_is_never_kept(name: str, band: str, value: float | None) -> None:
    assert not all(judged(name, **{f"FLUX_{band}": value}).values())


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_galaxy_too_red_to_be_seen_in_g_is_kept_but_not_one_without_a_measurement_in_g(name: str) -> None:
    assert all(judged(name, FLUX_G=-0.05).values())
    faint_in_w1 = {"z": 18.0, "r": 19.0, "w1": 17.5}
    assert all(judged(name, **faint_in_w1, FLUX_G=0.0).values())
    assert not all(judged(name, **faint_in_w1, FLUX_G=float("nan")).values())


@pytest.mark.parametrize(("name", "bits"), [("lrg_dr8_2020", (1, 5, 6, 7, 11, 12, 13)), ("lrg_dr9_main", (1, 12, 13))])
def test_the_published_mask_bits_and_no_others_take_a_row_away(name: str, bits: tuple[int, ...]) -> None:
    for bit in range(31):
        assert judged(name, MASKBITS=1 << bit)["unmasked"] == (bit not in bits)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("band", ["G", "R", "Z", "W1"])
@pytest.mark.parametrize("value", [0.0, -0.5, None, float("nan"), float("inf")])
def test_a_row_whose_extinction_is_unknown_fails_the_cut_that_says_so_and_no_cut_on_magnitudes(
    name: str, band: str, value: float | None
) -> None:
    assert next(iter(judged(name))) == "extinction_known"
    met = judged(name, **{f"MW_TRANSMISSION_{band}": value})
    assert [failed for failed, kept in met.items() if not kept] == ["extinction_known"]


def test_an_unknown_selection_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no selection 'lrg'. There are: lrg_dr8_2020, .*lrg_dr9_main"):
        selection_named("lrg")


def read_all(path: Path, columns: tuple[str, ...]) -> pl.DataFrame:
    frame = pl.from_arrow(pa.Table.from_batches(Catalogue.open(path).batches(columns)))
    assert isinstance(frame, pl.DataFrame)
    return frame


@pytest.mark.real_data
def test_the_dr8_cuts_give_every_lrg_bit_of_the_real_targets_and_no_other_row(real_data: Path) -> None:
    selection = SELECTIONS["lrg_dr8_2020_colours"]
    targets = read_all(real_data / "desi_targets" / "targets.fits", (*selection.columns, "DESI_TARGET"))
    is_lrg = (targets["DESI_TARGET"] & 1) == 1
    assert is_lrg.sum() == 182
    assert (selection.keeps(targets) == is_lrg).all()


@pytest.mark.real_data
def test_the_main_survey_cuts_give_121_of_the_real_lrg_bits_and_7_other_rows(real_data: Path) -> None:
    selection = SELECTIONS["lrg_dr9_main_colours"]
    targets = read_all(real_data / "desi_targets" / "targets.fits", (*selection.columns, "DESI_TARGET"))
    is_lrg = (targets["DESI_TARGET"] & 1) == 1
    kept = selection.keeps(targets)
    assert ((kept & is_lrg).sum(), (kept & ~is_lrg).sum()) == (121, 7)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("lrg_dr8_2020", {"321640-69", "321640-99", "331689-21", "331689-32"}),
        ("lrg_dr9_main", {"321640-99", "331689-21", "331689-32"}),
    ],
)
def test_the_full_cuts_run_on_real_sweep_and_tractor_rows(real_data: Path, name: str, kept: set[str]) -> None:
    found = set()
    for path in catalogue_files(str(real_data / "desi_targets")):
        if path.name == "targets.fits":
            continue
        rows = read_all(path, tuple(dict.fromkeys((*SELECTIONS[name].columns, "BRICKID", "OBJID"))))
        chosen = rows.filter(SELECTIONS[name].keeps(rows))
        found |= {f"{brick}-{number}" for brick, number in zip(chosen["BRICKID"], chosen["OBJID"], strict=True)}
    assert found == kept
