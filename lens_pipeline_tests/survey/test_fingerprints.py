"""Whatever tells an injection from its control beside the arc is red; nothing else is."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from scipy import ndimage

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.stamps.decode import Stamp, decode_blob
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.stamps.fragments import BLOB
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.parquet import parquet_writer, read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.fingerprints import no_fingerprints
from lens_pipeline.survey.pair_evidence import Evidence
from lens_pipeline.survey.stamp_pairs import Kind
from lens_pipeline_tests import survey_like

from .conftest import Survey, real_config

CONTRACT = DatasetContract()
Row = dict[str, Any]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Publication]:
    """A galaxy needs an injection that leaves a tenth of its stamp dark, in one file with its control: of 130 some 100 have."""
    survey = Survey(Home(tmp_path_factory.mktemp("clean")))
    parent = survey.parents(ParentSampleConfig(n_galaxies=130, n_bricks=20))
    manifest = survey.manifest(parent, null_flux_share=0.6)
    return {"parent": parent, "manifest": manifest, "stamps": survey.stamps(parent, manifest, rows_per_fragment=100)}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Publication]:
    """Galaxies with a fake, a ring, or a control and nothing else."""
    survey = Survey(Home(tmp_path_factory.mktemp("mixed")))
    parent = survey.parents(ParentSampleConfig(n_galaxies=110, n_bricks=20))
    manifest = survey.manifest(parent, fake_blob_share=1.0, hard_ring_share=1.0, unpaired_control_share=0.3)
    return {"parent": parent, "manifest": manifest, "stamps": survey.stamps(parent, manifest)}


def is_injection(row: Row) -> bool:
    return row["src_mag_r"] is not None


def changed(
    survey: Survey,
    made: dict[str, Publication],
    change: Callable[[Row], Row],
    of: str = "fragments",
    which: Callable[[Row], bool] = is_injection,
) -> Check:
    """Publish stamps again with every injection, every probe without flux, or others, changed, and check them."""

    def rewrite(path: Path, folder: Path) -> dict[str, Any]:
        table = read_parquet(path)
        rows = [change(row) if which(row) else row for row in table.to_pylist()]
        with parquet_writer(folder / path.name, table.schema) as writer:
            writer.write_table(pa.Table.from_pylist(rows, schema=table.schema))
        return {"file": path.name, "rows": len(rows), "sha256": sha256_of(folder / path.name)}

    def build(staging: Staging) -> None:
        stamps = made["stamps"]
        staging.attributes.update(stamps.attributes)
        for name in ("fragments", "null_flux"):
            staging.attributes[name] = [
                rewrite(stamps.path(entry["file"]), staging.folder) if name == of else _copied(stamps, entry, staging)
                for entry in stamps.attributes[name]
            ]

    return no_fingerprints(survey._publish("stamps", [made["parent"]], build), made["parent"])


def _copied(stamps: Publication, entry: dict[str, Any], staging: Staging) -> dict[str, Any]:
    (staging.folder / entry["file"]).write_bytes(stamps.path(entry["file"]).read_bytes())
    return entry


def in_pixels(change: Callable[[Any, np.random.Generator], Any]) -> Callable[[Row], Row]:
    rng = np.random.default_rng(0)

    def of_row(row: Row) -> Row:
        stamp = decode_blob(row[BLOB], CONTRACT)
        assert isinstance(stamp, Stamp)
        return {**row, BLOB: encode_stamp(change(stamp.pixels, rng).astype(np.float32), CONTRACT)}

    return of_row


def louder(pixels: Any, rng: np.random.Generator) -> Any:
    sigma = 1.4826 * np.median(np.abs(pixels - np.median(pixels, axis=(1, 2), keepdims=True)), axis=(1, 2))
    return pixels + rng.standard_normal(pixels.shape) * sigma[:, None, None] * np.sqrt(1.02**2 - 1)


def distance(pixels: Any) -> Any:
    """Return how far each pixel stands from the stamp's centre, in pixels."""
    y, x = np.indices(pixels.shape[1:]) - (pixels.shape[-1] - 1) / 2
    return np.hypot(x, y)


def centre_times(factors: list[float], pixels: Any) -> Any:
    return pixels * np.where(distance(pixels) < 5, np.array(factors)[:, None, None], 1)


FINGERPRINTS: dict[str, Callable[[Row], Row]] = {
    "noise 2 % larger": in_pixels(louder),
    "half a pixel off": in_pixels(lambda pixels, _: ndimage.shift(pixels, (0, 0, 0.5), order=1, mode="nearest")),
    "rounded to float16": in_pixels(lambda pixels, _: pixels.astype(np.float16)),
    "a sky level of 0.1 sigma": in_pixels(lambda pixels, _: pixels + 2e-4),
    "written by numpy": lambda row: {**row, BLOB: survey_like.blob(decode_blob(row[BLOB], CONTRACT).pixels)},  # type: ignore[union-attr]
    "bad pixels counted otherwise": lambda row: {**row, "bad_pixel_frac": 0.01},
    "5 % brighter or fainter": in_pixels(lambda pixels, rng: pixels * (1 + 0.05 * rng.choice([-1, 1]))),
    "a host's centre 10 % brighter": in_pixels(lambda pixels, _: pixels * np.where(distance(pixels) < 5, 1.1, 1)),
    "a host's centre half as bright again in g": in_pixels(lambda pixels, _: centre_times([1.5, 1, 1], pixels)),
    "no host's centre in z": in_pixels(lambda pixels, _: centre_times([1, 1, 0], pixels)),
    "another name of the bands": lambda row: {**row, "bandset": "rgz"},
    "no name of the bands": lambda row: {**row, "bandset": None},
    "no extinction, but not a number": lambda row: {**row, "ebv": float("nan")},
}


def test_stamps_as_they_are_made_are_at_chance_and_the_check_says_what_it_would_have_seen(
    clean: dict[str, Publication],
) -> None:
    check = no_fingerprints(clean["stamps"], clean["parent"])
    assert check.passed, check.message()
    figures = {name: float(value) for name, value in check.figures.items() if value is not None}
    assert 90 < figures["galaxies"] + figures["arcs_that_fill_the_stamp"] <= 130
    assert figures["pairs"] == figures["galaxies"] + figures["arcs_that_fill_the_stamp"] + figures["no_flux_galaxies"]
    assert figures["no_flux_galaxies"] > 50
    assert figures["low"] < 0.5 < figures["high"] < figures["least_seen"] < 0.9
    assert "would have been seen" in check.what


@pytest.mark.parametrize("name", list(FINGERPRINTS))
def test_a_fingerprint_on_injections_is_red(survey: Survey, clean: dict[str, Publication], name: str) -> None:
    check = changed(survey, clean, FINGERPRINTS[name])
    assert not check.passed
    assert check.blocking
    assert check.first[0].startswith("injections: ")
    assert not any(found.startswith("probes") for found in check.first)


def test_the_finding_names_the_fact_or_the_features(survey: Survey, clean: dict[str, Publication]) -> None:
    column = changed(survey, clean, FINGERPRINTS["bad pixels counted otherwise"])
    assert re.search(r"bad_pixel_frac \(differs in (1[0-9]{2}) of \1 pairs\)", column.first[0])
    (lacking,) = changed(survey, clean, FINGERPRINTS["no name of the bands"]).first
    assert re.search(r"bandset \(differs in (1[0-9]{2}) of \1 pairs\)", lacking)
    written = changed(survey, clean, FINGERPRINTS["written by numpy"]).message()
    assert "npz" in written
    assert "auroc" not in written.lower()
    assert "share_of_round_numbers" in changed(survey, clean, FINGERPRINTS["rounded to float16"]).first[0]
    (no_centre,) = changed(survey, clean, FINGERPRINTS["no host's centre in z"]).first
    assert re.search(r"light in z beside the arc's \(more in \d+ and less in 1\d\d of 1\d\d pairs\)", no_centre)
    assert "light in g" not in no_centre
    either_way = changed(survey, clean, FINGERPRINTS["5 % brighter or fainter"])
    assert any("both halves of a stamp differ alike" in found and "brightness" in found for found in either_way.first)


def test_a_fingerprint_on_probes_without_flux_is_red_though_injections_have_none(
    survey: Survey, clean: dict[str, Publication]
) -> None:
    check = changed(survey, clean, FINGERPRINTS["noise 2 % larger"], of="null_flux")
    assert not check.passed
    assert check.first
    assert all(found.startswith("probes without flux: ") for found in check.first)


def test_fakes_hard_negatives_and_unpaired_controls_are_compared_too_and_counted(
    survey: Survey, mixed: dict[str, Publication]
) -> None:
    check = no_fingerprints(mixed["stamps"], mixed["parent"])
    assert check.passed, check.message()
    alone = mixed["manifest"].attributes["roles"]["unpaired_control"]
    assert re.search(rf"of {110 - alone} injections: .*of {110 - alone} fakes: .*of 110 hard negatives: ", check.what)
    assert f"{alone} unpaired controls beside {110 - alone} paired ones" in check.what


@pytest.mark.parametrize("role", ["control", "unpaired_control"])
def test_a_column_that_only_one_sort_of_controls_lacks_is_red(
    survey: Survey, mixed: dict[str, Publication], role: str
) -> None:
    check = changed(survey, mixed, FINGERPRINTS["no name of the bands"], which=lambda row: bool(row["role"] == role))
    assert "bandset (of unpaired controls)" in check.first
    assert any("bandset (differs in" in found for found in check.first)


@pytest.mark.parametrize("role", ["fake_blob", "hard_ring", "unpaired_control"])
def test_a_fingerprint_on_other_kinds_of_stamps_is_red(
    survey: Survey, mixed: dict[str, Publication], role: str
) -> None:
    names = {"fake_blob": "fakes: ", "hard_ring": "hard negatives: "}
    of_role = lambda row: bool(row["role"] == role)  # noqa: E731
    column = changed(survey, mixed, FINGERPRINTS["another name of the bands"], which=of_role)
    # A hard negative may have an unpaired control.
    assert any("bandset" in found and (names.get(role) or "of unpaired controls") in found for found in column.first)
    if role in names:
        assert column.count == 1
        pixels = changed(survey, mixed, FINGERPRINTS["rounded to float16"], which=of_role)
        assert pixels.count
        assert all(found.startswith(names[role]) for found in pixels.first)


GROSS: dict[str, Callable[[Row], Row]] = {
    "no host": in_pixels(lambda pixels, _: np.where(distance(pixels) < 10, 0, pixels)),
    "a host's centre half as bright again": in_pixels(
        lambda pixels, _: pixels * np.where(distance(pixels) < 5, 1.5, 1)
    ),
    "all 20 % brighter": in_pixels(lambda pixels, _: pixels * 1.2),
    "three pixels off": in_pixels(lambda pixels, _: np.roll(pixels, 3, axis=2)),
}


@pytest.mark.parametrize("name", list(GROSS))
def test_unpaired_controls_of_other_galaxies_than_the_catalogue_describes_are_red(
    survey: Survey, mixed: dict[str, Publication], name: str
) -> None:
    check = changed(survey, mixed, GROSS[name], which=lambda row: bool(row["role"] == "unpaired_control"))
    assert any(found.startswith("unpaired controls: probe's AUROC") for found in check.first), check.message()


def test_a_part_with_too_few_stamps_leaves_the_whole_undecided_and_one_without_any_is_not_asked(
    survey: Survey, clean: dict[str, Publication]
) -> None:
    manifest = survey.manifest(clean["parent"], null_flux_share=0.1)
    check = no_fingerprints(survey.stamps(clean["parent"], manifest), clean["parent"])
    assert (check.state, check.blocking) == ("undecided", False)
    assert re.match(r"(\d+) of \1 probes without flux can be compared", check.what)
    assert re.search(r"of 130 injections: probe's AUROC", check.what)
    assert "unpaired" not in check.message()


def test_few_unpaired_controls_are_undecided_and_not_green(survey: Survey, clean: dict[str, Publication]) -> None:
    manifest = survey.manifest(clean["parent"], unpaired_control_share=0.1)
    alone = manifest.attributes["roles"]["unpaired_control"]
    assert 0 < alone < 20
    check = no_fingerprints(survey.stamps(clean["parent"], manifest), clean["parent"])
    assert (check.state, check.blocking) == ("undecided", False)
    assert check.what.startswith(f"{alone} unpaired controls beside {130 - alone} paired ones can be compared")


def test_halves_of_too_few_stamps_are_undecided() -> None:
    seen = Evidence(Kind.injections, CONTRACT, shared=False, of=60, differences=[np.zeros(2)] * 60)
    seen.products = [np.zeros(2)] * 20
    assert seen.too_few() == ""
    seen.products = [np.zeros(2)] * 19
    assert seen.too_few() == "both halves of 19 of 60 injections can be compared"


def test_too_few_galaxies_are_undecided_and_block_nothing(small: dict[str, Publication]) -> None:
    check = no_fingerprints(small["stamps"], small["parent_sample"])
    assert (check.state, check.blocking) == ("undecided", False)
    assert check.message().startswith("no_fingerprints is undecided: ")
    assert " wrong)" not in check.message()


@pytest.fixture
def real(survey: Survey, cubes: Callable[..., Path]) -> dict[str, Publication]:
    """Three galaxies of cubes whose noise is 0.003 nanomaggy, with two injections each."""
    parent = survey.parents(real_config(cubes()))
    manifest = survey.manifest(parent, injections_per_galaxy=2, null_flux_share=1.0)
    return {"parent": parent, "manifest": manifest, "stamps": survey.stamps(parent, manifest)}


def test_real_pixels_must_equal_their_control_outside_the_arc(survey: Survey, real: dict[str, Publication]) -> None:
    check = no_fingerprints(real["stamps"], real["parent"])
    assert check.passed, check.message()
    assert "6 of 6 injections equal their controls outside the arc; 3 of 3 probes without flux equal" in check.what
    off = changed(survey, real, FINGERPRINTS["noise 2 % larger"])
    assert (off.passed, off.blocking, off.count) == (False, True, 6)
    assert "cutout-0000-i0000" in off.first[0]
    assert not changed(survey, real, FINGERPRINTS["half a pixel off"], of="null_flux").passed


G, R = (np.arange(3)[:, None, None] == band for band in (0, 1))


def brighter_in(band: Any, pixels: Any) -> Any:
    return pixels * np.where(band & (distance(pixels) < 5), 1.05, 1)


def two_in_a_corner(pixels: Any) -> Any:
    """Return light that two neighbours exchange in r, so that no sum or mean changes."""
    light = np.zeros_like(pixels)
    light[1, 2, 2:4] = 1, -1
    return light


ON_REAL_PIXELS: dict[str, tuple[Callable[[Row], Row], str, int]] = {
    "a host's centre 5 % brighter in r": (in_pixels(lambda x, _: brighter_in(R, x)), r"\+0.* nanomaggy in r beside", 6),
    "a host's centre 5 % brighter in g": (in_pixels(lambda x, _: brighter_in(G, x)), r"\+0.* nanomaggy in g beside", 1),
    "steps of 0.05 sigma": (in_pixels(lambda x, _: np.round(x / 1.5e-4) * 1.5e-4), "half of them by more than 0.01", 6),
    "a sky level of 0.01 sigma in r": (in_pixels(lambda x, _: x + R * 3e-5), "their mean by 0.01", 6),
    "two pixels in a corner": (in_pixels(lambda x, _: x + two_in_a_corner(x) * 0.006), r"the worst by 2(\.\d)?\)", 6),
    "rounded to float16": (FINGERPRINTS["rounded to float16"], "100% of them are round numbers", 6),
    "written by numpy": (FINGERPRINTS["written by numpy"], r"npz [a-z]+ \(differs in 6 of 6 pairs\)", 1),
    "another name of the bands": (FINGERPRINTS["another name of the bands"], r"bandset \(differs in 6 of 6 pairs\)", 1),
}


@pytest.mark.parametrize("name", list(ON_REAL_PIXELS))
def test_a_fingerprint_on_real_pixels_is_red_with_three_galaxies(
    survey: Survey, real: dict[str, Publication], name: str
) -> None:
    change, said, count = ON_REAL_PIXELS[name]
    check = changed(survey, real, change)
    assert (check.passed, check.blocking) == (False, True)
    assert check.count >= count
    assert any(found.startswith("injections: ") and re.search(said, found) for found in check.first), check.message()


def test_real_pixels_that_arcs_hide_in_most_stamps_are_undecided(survey: Survey, real: dict[str, Publication]) -> None:
    hide = lambda row: {**row, "src_reff_arcsec": None}  # noqa: E731
    check = changed(
        survey, real, hide, which=lambda row: is_injection(row) and not row["task_id"].startswith("cutout-0001")
    )
    assert (check.state, check.blocking) == ("undecided", False)
    assert "2 of 6 injections can be compared with the control of their galaxy (the light of 4 fills" in check.what


@pytest.mark.parametrize("role", ["control", "unpaired_control"])
def test_controls_of_real_galaxies_must_be_their_cutouts_to_the_bit(
    survey: Survey, cubes: Callable[..., Path], role: str
) -> None:
    parent = survey.parents(real_config(cubes()))
    manifest = survey.manifest(parent, unpaired_control_share=0.15)
    assert {"control", "unpaired_control"} <= manifest.attributes["roles"].keys()
    made = {"parent": parent, "manifest": manifest, "stamps": survey.stamps(parent, manifest)}
    assert "3 controls are their galaxies' cutouts to the bit" in no_fingerprints(made["stamps"], parent).message()

    def one_bit(pixels: Any, _: np.random.Generator) -> Any:
        return np.where(distance(pixels) < 1, np.nextafter(pixels, np.float32(np.inf)), pixels)

    off = changed(survey, made, in_pixels(one_bit), which=lambda row: bool(row["role"] == role))
    assert (off.passed, off.blocking, off.count) == (False, True, manifest.attributes["roles"][role])
    assert re.match(r"controls: cutout-000\d-c \(12 of 12,288 pixels aren't its cutout's, by up to ", off.first[0])
    written = changed(survey, made, FINGERPRINTS["written by numpy"], which=lambda row: bool(row["role"] == role))
    assert any("npz" in found for found in written.first), written.message()


@pytest.mark.real_data
def test_injections_into_real_galaxies_equal_their_controls_outside_the_arc(survey: Survey, real_data: Path) -> None:
    parent = survey.parents(real_config(real_data / "des_lrg_cutouts"))
    manifest = survey.manifest(parent, null_flux_share=1.0)
    check = no_fingerprints(survey.stamps(parent, manifest), parent)
    assert check.passed, check.message()
    assert "30 of 30 injections equal" in check.what


def test_rows_that_do_not_say_where_their_arc_is_are_undecided(survey: Survey, clean: dict[str, Publication]) -> None:
    check = changed(survey, clean, lambda row: {**row, "src_reff_arcsec": None})
    assert (check.state, check.blocking) == ("undecided", False)
    assert "rows lack columns" in check.what


def test_a_surveys_own_stamps_are_told_and_not_blocked(survey: Survey, tmp_path: Path) -> None:
    folder = survey_like.write(tmp_path / "own", survey_like.rows(60, 12))
    parent = survey.parents(ParentSampleConfig(source="external_stamps", folder=str(folder)))
    manifest = survey.manifest(parent)
    check = no_fingerprints(survey.stamps(parent, manifest), parent)
    assert not check.passed
    assert not check.blocking


@pytest.mark.parametrize("lacking", ["CONTROL", "SIE"])
def test_a_column_that_one_side_of_a_surveys_own_stamps_lacks_is_told_and_an_arcs_is_not(
    survey: Survey, tmp_path: Path, lacking: str
) -> None:
    rows = survey_like.rows(80, 20)
    for row in rows:
        row["psfdepth_r"] = None if row["lens_model"] == lacking else 400.0
    folder = survey_like.write(tmp_path / "own", rows, n_files=1)
    parent = survey.parents(ParentSampleConfig(source="external_stamps", folder=str(folder)))
    check = no_fingerprints(survey.stamps(parent, survey.manifest(parent)), parent)
    assert (check.state, check.blocking) == ("a warning", False)
    assert check.first == ("injections: psfdepth_r (differs in 80 of 80 pairs)",)


def test_a_users_file_of_which_nothing_could_be_asked_leaves_the_check_undecided_and_is_counted(
    survey: Survey, clean: dict[str, Publication], tmp_path: Path
) -> None:
    made = [clean["stamps"].path(entry["file"]) for entry in clean["stamps"].attributes["fragments"]]
    for path in made:
        (tmp_path / path.name).write_bytes(path.read_bytes())

    def asked() -> Check:
        parent = survey.parents(ParentSampleConfig(source="external_stamps", folder=str(tmp_path)))
        return no_fingerprints(survey.stamps(parent, survey.manifest(parent)), parent)

    whole = asked()
    assert whole.passed, whole.message()
    assert "files were asked" not in whole.message()
    rows = read_parquet(made[0])
    alone = rows.filter(pc.not_equal(rows["lens_model"], "CONTROL"))
    with parquet_writer(tmp_path / "injections.parquet", alone.schema) as writer:
        writer.write_table(alone)
    check = asked()
    assert (check.state, check.blocking) == ("undecided", False)
    assert f"{len(made)} of {len(made) + 1} files were asked" in check.what
    assert "into one file" in check.next_step
