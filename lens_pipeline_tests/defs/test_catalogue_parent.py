"""A parent sample from catalogues as an asset: what people see of it, and that more files are taken in."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lens_pipeline.defs.assets import survey
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import Home
from lens_pipeline_tests.survey import coadds
from lens_pipeline_tests.survey.catalogues import row, write_fits


def galaxies(first: int, n: int) -> list[dict[str, Any]]:
    return [row(OBJID=first + i, RA=0.06 + 0.01 * i, DEC=-0.06 + 0.01 * first) for i in range(n)]


def materialize(folder: Path, *assets: dg.AssetsDefinition, **settings: Any) -> dg.ExecuteInProcessResult:
    config = {"source": "legacy_catalogue", "folder": str(folder), **settings}
    return dg.materialize(
        list(assets),
        resources={"workspace": Workspace(dataset="catalogue")},
        raise_on_error=False,
        run_config={"ops": {"parent_sample": {"config": config}}},
    )


def test_a_catalogue_is_described_grows_by_files_and_is_refused_where_pixels_are_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    near_border = row(OBJID=99, RA=0.1, DEC=0.124)
    write_fits(folder / "a.fits", [*galaxies(0, 4), near_border])
    made = materialize(folder, survey.parent_sample, excluded_maskbits=[5], morphologies=["DEV"])
    assert made.success
    metadata = made.asset_materializations_for_node("parent_sample")[0].metadata
    assert metadata["galaxies"].value == 4
    assert metadata["galaxies_per_deg2"].value == pytest.approx(5 / 0.0625, rel=1e-3)
    assert str(metadata["galaxies_per_deg2_interval"].value).startswith(
        "25.98 to 186.7, 95 % Poisson interval of 5 galaxies"
    )
    assert str(metadata["selection"].value).startswith("lrg_dr9_main: DESI's main survey on DR9: Zhou et al. 2023")
    assert "| maskbits | MASKBITS 5 not set | 0 |" in str(metadata["cuts"].value)
    assert "data:image/png" in str(metadata["sky_map"].value)
    write_fits(folder / "b.fits", galaxies(6, 3))
    assert materialize(folder, survey.parent_sample).success
    parent = Home.from_environment().open("catalogue", "parent_sample")
    assert parent.read_table().num_rows == 7
    refused = materialize(folder, survey.parent_sample, survey.injection_manifest, survey.stamps)
    failures = {
        e.step_key: e.step_failure_data.error for e in refused.all_events if e.event_type_value == "STEP_FAILURE"
    }
    assert list(failures) == ["stamps"]
    assert "comes from catalogues, which hold no pixels" in str(failures["stamps"])
    (folder / "a.fits").unlink()
    assert not materialize(folder, survey.parent_sample).success


def test_galaxies_that_could_not_be_cut_and_what_was_assumed_are_shown_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, ra, dec = coadds.brick_at(150.1, 2.3)
    coadds.write_brick(tmp_path / "dr10", 150.1, 2.3, coadds.galaxies_at((ra, dec)), scale=0.262)
    table = tmp_path / "galaxies.csv"
    table.write_text(f"galaxy_id,ra,dec\nhere,{ra},{dec}\nelsewhere,{ra},{dec + 5}\n")
    config = {"source": "real_cutouts", "folder": str(tmp_path / "dr10"), "catalogue": str(table), "stamp_size": 32}
    made = dg.materialize(
        [survey.parent_sample],
        resources={"workspace": Workspace(dataset="cut")},
        run_config={"ops": {"parent_sample": {"config": config}}},
    )
    metadata = made.asset_materializations_for_node("parent_sample")[0].metadata
    assert "| outside | 1 |" in str(metadata["left_out"].value)
    assert "no ebv" in str(metadata["assumed"].value)
    assert "1 galaxies were left out (outside 1)" in capfd.readouterr().err
