"""What an arc's light does to a galaxy's colours: the share of lens systems that the cuts keep."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lens_pipeline.survey.host_sample import HostSample
from lens_pipeline.survey.parent_completeness import (
    ARC_COLOURS,
    ARC_MAGS_R,
    BLENDED_SHARES,
    ArcColour,
    parent_completeness,
    with_arc,
)
from lens_pipeline.survey.selections import SELECTIONS, magnitude

from .catalogues import row
from .test_selections import read_all

KEEPS = SELECTIONS["lrg_dr9_main"].keeps


def shares(table: pl.DataFrame, colour: str, blended: float) -> dict[float, float]:
    chosen = table.filter((pl.col("source_colour") == colour) & (pl.col("blended_share") == blended))
    return dict(zip(chosen["arc_mag_r"], chosen["share_kept"], strict=True))


def mags(rows: pl.DataFrame) -> dict[str, float]:
    return rows.select(magnitude(band).alias(band) for band in ("g", "r", "z", "w1")).to_dicts()[0]


def test_an_arc_adds_its_light_after_extinction_in_every_band() -> None:
    host = pl.DataFrame([row(g=23.0, r=21.0, z=19.5, w1=18.0)])
    colour = ArcColour("test", "", g_r=0.5, r_z=0.3, z_w1=1.0)
    found = mags(with_arc(host, colour, 21.0, 1.0))
    arc = {"g": 21.5, "r": 21.0, "z": 20.7, "w1": 19.7}
    for band, mag in mags(host).items():
        wanted = -2.5 * np.log10(10 ** (-0.4 * mag) + 10 ** (-0.4 * arc[band]))
        assert found[band] == pytest.approx(wanted, abs=1e-5)
    half = mags(with_arc(host, colour, 21.0, 0.5))
    assert half["r"] == pytest.approx(-2.5 * np.log10(1.5) + 21.0, abs=1e-5)
    assert mags(with_arc(host, colour, 21.0, 0.0)) == pytest.approx(mags(host))


def test_a_faint_arc_loses_nothing_and_a_bright_blue_one_everything() -> None:
    rng = np.random.default_rng(1)
    hosts = pl.DataFrame([row(OBJID=i, r=float(r)) for i, r in enumerate(rng.uniform(20.9, 21.1, 60))])
    table = pl.DataFrame(parent_completeness(KEEPS, hosts))
    assert table.height == len(ARC_COLOURS) * len(BLENDED_SHARES) * len(ARC_MAGS_R)
    flat = shares(table, "flat", 1.0)
    assert (flat[18.0], flat[26.0]) == (0.0, 1.0)
    assert set(table["n"]) == {60}
    sound = table.filter((pl.col("low") <= pl.col("share_kept")) & (pl.col("share_kept") <= pl.col("high")))
    assert sound.height == table.height
    # Wilson's interval at 0 of 60, so that "nothing was lost" isn't taken for "nothing can be".
    assert table.filter(pl.col("n_kept") == 0)["high"].to_list()[0] == pytest.approx(0.0602, abs=1e-4)


def test_without_hosts_no_share_is_known() -> None:
    table = pl.DataFrame(parent_completeness(KEEPS, pl.DataFrame([row()]).clear()))
    assert set(table["n"]) == {0}
    assert table.select(pl.col("share_kept", "low", "high").null_count()).row(0) == (table.height,) * 3


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n", "kept", "kept_by_half"), [("lrg_dr8_2020", 182, 0.423, 0.544), ("lrg_dr9_main", 128, 0.703, 0.758)]
)
def test_of_real_lrgs_with_a_blue_arc_of_r_22_the_older_cuts_keep_less_than_half(
    real_data: Path, name: str, n: int, kept: float, kept_by_half: float
) -> None:
    selection = SELECTIONS[f"{name}_colours"]
    targets = read_all(real_data / "desi_targets" / "targets.fits", selection.columns)
    hosts = targets.filter(selection.keeps(targets))
    table = pl.DataFrame(parent_completeness(selection.keeps, hosts))
    assert table["n"][0] == n
    assert shares(table, "star_forming", 1.0)[22.0] == pytest.approx(kept, abs=1e-3)
    assert shares(table, "star_forming", 0.5)[22.0] == pytest.approx(kept_by_half, abs=1e-3)
    for colour in ("flat", "star_forming"):
        for blended in BLENDED_SHARES:
            rising = [share for _, share in sorted(shares(table, colour, blended).items())]
            assert rising == sorted(rising)


def test_the_sample_of_hosts_is_the_same_in_any_order_and_not_the_first_of_a_file() -> None:
    rows = pl.DataFrame([row(OBJID=i) for i in range(300)])
    together, in_parts = HostSample(20), HostSample(20)
    together.add(rows)
    for start in (200, 0, 100):
        in_parts.add(rows[start : start + 100])
    assert in_parts.table.equals(together.table)
    assert together.table.height == 20
    assert 100 < float(np.mean(together.table["OBJID"].to_numpy())) < 200
