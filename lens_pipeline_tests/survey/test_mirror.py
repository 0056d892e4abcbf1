from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.survey.galaxy_images import CutoutRefusedError, GalaxyImage, Quarantine
from lens_pipeline.survey.mirror import Galaxy, Mirror
from lens_pipeline.survey.regions import brick_ids, brick_names
from lens_pipeline_tests.s3_servers import Bucket

from .coadds import SCALE_ARCSEC, SIGMA, N, brick_at, corner_of, grid_of, noise_of, write_brick
from .test_measured_psf import gaussian_as_pixels_see_it

SIZE = 16
BANDS = ("g", "r", "z")


def mirror(root: Path | str, **settings: Any) -> Mirror:
    return Mirror(
        **{"root": str(root), "bands": BANDS, "stamp_size": SIZE, "pixel_scale_arcsec": SCALE_ARCSEC, **settings}
    )


def where_it_is(band: str, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """A sky that says of itself where it is: declination in g, right ascension in r, their sum in z, degrees."""
    return {"g": dec, "r": (ra + 180) % 360 - 180, "z": ra + dec}[band]


def around_corner(ra: float, dec: float) -> list[tuple[float, float]]:
    """A place in each of the bricks that meet at a brick's north-eastern corner, the brick's own first."""
    east, north = corner_of(ra, dec)
    return [(east + dx, north + dy) for dx in (-0.03, 0.03) for dy in (-0.03, 0.03)]


def test_a_cutout_in_the_middle_of_a_brick_is_its_pixels_to_the_nearest_whole_one(tmp_path: Path) -> None:
    name = write_brick(tmp_path, 150.1, 2.3)
    _, ra0, dec0 = brick_at(150.1, 2.3)
    with mirror(tmp_path) as coadds:
        cut = coadds.cut(ra0 + 3.3 / 360, dec0 - 2.2 / 360)
    # The brick's centre is pixel 48 from 0; the place is 3.3 pixels east, which is left, and 2.2 down: (44.70, 45.80).
    assert cut.offset_arcsec == pytest.approx(np.array([[44.70 - 44.5, 45.80 - 45.5]] * 3) * 10, abs=0.03)
    for i, band in enumerate(BANDS):
        assert np.array_equal(cut.pixels[i], noise_of(name, band).astype(np.float32)[38:54, 37:53])
        assert cut.ivar is not None
        assert cut.ivar[i] == pytest.approx(SIGMA[band] ** -2)
    assert cut.psf_fwhm_arcsec == (pytest.approx(1.3),) * 3
    assert cut.pixel_scale_arcsec == pytest.approx(SCALE_ARCSEC)
    assert cut.electrons_per_nanomaggy == (None,) * 3
    assert cut.assumed == ()


@pytest.mark.parametrize("dec", [2.3, -63.0])
@pytest.mark.parametrize("suffix", [".fz", ""])
def test_a_cutout_over_a_corner_of_four_bricks_shows_the_sky_where_it_is(
    tmp_path: Path, dec: float, suffix: str
) -> None:
    names = {write_brick(tmp_path, *place, where_it_is, suffix=suffix) for place in around_corner(150.1, dec)}
    # Bricks of the next row stand beside each other elsewhere: three or four meet at a corner.
    assert len(names) >= 3
    ra, north = corner_of(150.1, dec)
    ra, north = ra - 0.003, north - 0.003
    with mirror(tmp_path) as coadds:
        cut = coadds.cut(ra, north)
    home, ra0, dec0 = brick_at(ra, north)
    # The home brick's own grid says where each pixel should be.
    wcs = grid_of(ra0, dec0)
    x, y = (float(v) for v in wcs.world_to_pixel_values(ra, north))
    columns, rows = np.meshgrid(round(x - 7.5) + np.arange(SIZE), round(y - 7.5) + np.arange(SIZE))
    wanted = wcs.pixel_to_world_values(columns, rows)
    off = np.hypot((cut.pixels[1] - wanted[0]) * np.cos(np.radians(north)), cut.pixels[0] - wanted[1]) * 360
    beyond = (columns >= N) | (rows >= N) | (columns < 0) | (rows < 0)
    assert beyond.sum() > 60
    # Float32 of degrees keeps a thousandth of these pixels.
    assert off[~beyond].max() < 0.01
    assert off[beyond].max() < np.sqrt(0.5) + 0.02
    # The neighbours' grids are turned and shifted against this one.
    assert off[beyond].max() > 0.05
    assert len(cut.assumed) == len(names) - 1
    owners = brick_names(brick_ids(wanted[0][beyond], wanted[1][beyond]))
    for other in names - {home}:
        assert any(f"{owners.count(other)} of 256 pixels are brick {other}'s" in text for text in cut.assumed)


def test_masks_weights_and_noise_come_over_the_edge_too(tmp_path: Path) -> None:
    def change(kind: str, band: str, hdu: Any) -> None:
        if kind == "maskbits":
            hdu.data[:] = 1 << 6  # flagged in every r exposure
        if kind == "invvar" and band == "z":
            hdu.data[:48] = 0

    other = write_brick(tmp_path, 149.95, 2.25, change=change)
    home = write_brick(tmp_path, 150.05, 2.25)
    with mirror(tmp_path) as coadds:
        cut = coadds.cut(150.003, 2.25)
    assert home == brick_at(150.003, 2.25)[0]
    # East is left: the western brick's pixels are on the right, beyond the home brick's last column.
    beyond = cut.bad[1].all(axis=0).tolist()
    assert beyond == cut.bad[1].any(axis=0).tolist() == [False] * 13 + [True] * 3
    assert not cut.bad[0].any()
    assert cut.bad[2].any(axis=0).tolist() == beyond
    assert not cut.bad[2].all(axis=0).any()
    assert np.isin(cut.pixels[0][:, beyond], noise_of(other, "g").astype(np.float32)).all()
    assert np.isin(cut.pixels[0][:, :13], noise_of(home, "g").astype(np.float32)).all()


@pytest.mark.parametrize("bit", [3, 6])
def test_a_mask_bit_of_one_band_hides_that_band_alone(tmp_path: Path, bit: int) -> None:
    def change(kind: str, _: str, hdu: Any) -> None:
        if kind == "maskbits":
            hdu.data[48, 50] = 1 << bit
            hdu.data[:] |= 1 << 0 | 1 << 1  # NPRIMARY and BRIGHT say nothing of a pixel's worth

    write_brick(tmp_path, 150.1, 2.3, change=change)
    _, ra0, dec0 = brick_at(150.1, 2.3)
    with mirror(tmp_path) as coadds:
        cut = coadds.cut(ra0, dec0)
    assert [int(bad.sum()) for bad in cut.bad] == [0, 1, 0]


def test_a_psf_image_of_the_brick_is_taken_before_its_seeing(tmp_path: Path) -> None:
    name = write_brick(tmp_path, 150.1, 2.3)
    pixels = gaussian_as_pixels_see_it(1.8, 1.5)
    path = tmp_path / "coadd" / name[:3] / name / f"legacysurvey-{name}-psf-r.fits"
    fits.PrimaryHDU(pixels).writeto(path)
    with mirror(tmp_path) as coadds:
        cut = coadds.cut(150.1, 2.3)
    assert cut.psf[0] is cut.psf[2] is None
    assert cut.psf[1] is not None
    assert cut.psf[1].pixels == pytest.approx(pixels)
    fits.PrimaryHDU(5 * pixels).writeto(path, overwrite=True)
    with mirror(tmp_path) as coadds, pytest.raises(ContractError, match="isn't normalised"):
        coadds.cut(150.1, 2.3)


def test_places_that_the_mirror_lacks_are_refused_naming_the_bricks(tmp_path: Path) -> None:
    home = write_brick(tmp_path, 150.05, 2.25)
    with mirror(tmp_path) as coadds:
        with pytest.raises(CutoutRefusedError, match=r"lacks brick 2001p022") as refused:
            coadds.cut(200.1, 2.3)
        assert refused.value.reason == "outside"
        lacking = brick_at(149.99, 2.25)[0]
        with pytest.raises(CutoutRefusedError, match=f"lacks brick {lacking}, which holds a part of the cutout"):
            coadds.cut(150.003, 2.25)
        assert isinstance(coadds.cut(150.03, 2.25), GalaxyImage)
    assert home == brick_at(150.003, 2.25)[0]
    with pytest.raises(ConfigError, match="there is no folder"):
        mirror(tmp_path / "elsewhere")


def test_every_galaxy_is_cut_or_stands_in_the_quarantine_with_its_reason(tmp_path: Path) -> None:
    def change(kind: str, band: str, hdu: Any) -> None:
        if (kind, band) == ("image", "r"):
            hdu.data[18, 20] = np.nan

    ra0, dec0 = brick_at(150.1, 2.3)[1:]
    write_brick(tmp_path, 150.1, 2.3, change=change)
    write_brick(tmp_path, 151.1, 2.3, bands="gr")
    hole = grid_of(ra0, dec0).pixel_to_world_values(20, 18)
    galaxies = [
        Galaxy("no-z", 151.1, 2.3),
        Galaxy("sound", ra0, dec0),
        Galaxy("hole", float(hole[0]), float(hole[1])),
        Galaxy("nowhere", 10.0, 10.0),
        Galaxy("again", ra0 + 0.5 / 3600, dec0),
    ]
    quarantine = Quarantine()
    with mirror(tmp_path) as coadds:
        cut = [(galaxy.galaxy_id, image) for galaxy, image in coadds.cut_each(galaxies, quarantine)]
    assert [name for name, _ in cut] == ["sound"]
    assert {row["galaxy_id"]: row["reason"] for row in quarantine.rows} == {
        "no-z": "missing_band",
        "hole": "centre_masked",
        "nowhere": "outside",
        "again": "same_place",
    }
    assert quarantine.counts == {"centre_masked": 1, "missing_band": 1, "outside": 1, "same_place": 1}


def test_an_id_for_two_galaxies_and_a_place_off_the_sky_are_refused(tmp_path: Path) -> None:
    write_brick(tmp_path, 150.1, 2.3)
    with mirror(tmp_path) as coadds:
        twice = [Galaxy("4431", 150.1, 2.3), Galaxy("4431", 151.1, 2.3), Galaxy("1", 150.11, 2.3)]
        with pytest.raises(
            ContractError, match=r"1 galaxy_ids stand for more than one galaxy: 4431. OBJID counts anew"
        ):
            list(coadds.cut_each(twice, Quarantine()))
        wrong = [Galaxy("a", 150.1, 2.3), Galaxy("b", np.nan, 2.3), Galaxy("c", 150.1, 92.0)]
        with pytest.raises(ContractError, match=r"2 positions aren't on the sky .*: 1, 2"):
            list(coadds.cut_each(wrong, Quarantine()))
        assert list(coadds.cut_each([], Quarantine())) == []


def set_header(kind: str, **cards: Any) -> Callable[[str, str, Any], None]:
    def change(this: str, band: str, hdu: Any) -> None:
        if this == kind and band in ("r", ""):
            hdu.header.update(cards)

    return change


def smaller(kind: str, band: str, hdu: Any) -> None:
    if (kind, band) == ("invvar", "g"):
        hdu.data = hdu.data[:-1].copy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_header("image", BUNIT="adu"), r"image-r.fits.fz is in 'adu' \(BUNIT\), wanted nanomaggy"),
        (set_header("image", MAGZERO=30.0), r"has the zero point 30.0 \(MAGZERO\), wanted 22.5"),
        (set_header("invvar", BUNIT="1/adu^2"), r"invvar-r.fits.fz is in '1/adu\^2'"),
        (set_header("image", CRVAL1=150.3), "image-r.fits.fz has another WCS than .*image-g.fits.fz"),
        (set_header("image", CTYPE1="X", CTYPE2="Y"), "has another WCS than"),
        (smaller, r"invvar-g.fits.fz has \(96, 97\) pixels"),
    ],
)
def test_a_brick_that_is_not_what_it_must_be_is_refused(
    tmp_path: Path, change: Callable[[str, str, Any], None], said: str
) -> None:
    write_brick(tmp_path, 150.1, 2.3, change=change)
    with mirror(tmp_path) as coadds, pytest.raises(ContractError, match=said):
        coadds.cut(150.1, 2.3)


def test_a_brick_of_another_pixel_scale_a_missing_and_a_damaged_file_are_refused(tmp_path: Path) -> None:
    name = write_brick(tmp_path, 150.1, 2.3)
    with (
        mirror(tmp_path, pixel_scale_arcsec=10.1) as coadds,
        pytest.raises(ContractError, match=r"has 10 arcsec per pixel, 0.99% from the nominal 10.1"),
    ):
        coadds.cut(150.1, 2.3)
    folder = tmp_path / "coadd" / name[:3] / name
    (folder / f"legacysurvey-{name}-maskbits.fits.fz").rename(tmp_path / "masks")
    with mirror(tmp_path) as coadds, pytest.raises(ContractError, match=f"has no legacysurvey-{name}-maskbits.fits.fz"):
        coadds.cut(150.1, 2.3)
    (folder / f"legacysurvey-{name}-maskbits.fits.fz").write_bytes(b"SIMPLE  = broken")
    with mirror(tmp_path) as coadds, pytest.raises(ContractError, match="can't be read as FITS"):
        coadds.cut(150.1, 2.3)


def test_an_image_that_is_cut_off_is_refused_by_its_name_when_its_pixels_are_read(tmp_path: Path) -> None:
    name = write_brick(tmp_path, 150.1, 2.3, suffix="")
    path = tmp_path / "coadd" / name[:3] / name / f"legacysurvey-{name}-image-r.fits"
    path.write_bytes(path.read_bytes()[:12000])
    _, ra0, dec0 = brick_at(150.1, 2.3)
    with mirror(tmp_path) as coadds, pytest.raises(ContractError, match=r"image-r.fits (is cut off|can't be read)"):
        coadds.cut(ra0, dec0)


def test_an_image_that_does_not_say_its_unit_is_taken_for_nanomaggy_and_that_is_said(tmp_path: Path) -> None:
    def silent(kind: str, band: str, hdu: Any) -> None:
        if kind == "image" and band in "gz":
            del hdu.header["BUNIT"]

    write_brick(tmp_path, 150.1, 2.3, change=silent)
    _, ra0, dec0 = brick_at(150.1, 2.3)
    with mirror(tmp_path) as coadds:
        (said,) = coadds.cut(ra0, dec0).assumed
    assert said.startswith(
        "Coadded images in g, z don't say their unit (BUNIT) nor their zero point (MAGZERO): nanomaggy"
    )


def test_more_bricks_than_are_kept_open_give_the_same_cutouts(tmp_path: Path) -> None:
    places = [(150.1 + i, 2.3) for i in range(9)]
    for ra, dec in places:
        write_brick(tmp_path, ra, dec)
    galaxies = [Galaxy(str(i), ra, dec) for i, (ra, dec) in enumerate(places)]
    with mirror(tmp_path) as coadds:
        first = {galaxy.galaxy_id: image for galaxy, image in coadds.cut_each(galaxies, Quarantine())}
        assert len(coadds._open) == 6
        again = {galaxy.galaxy_id: image for galaxy, image in coadds.cut_each(galaxies[::-1], Quarantine())}
    assert len(first) == 9
    assert all(np.array_equal(first[name].pixels, again[name].pixels) for name in first)


def test_a_mirror_at_s3_gives_the_cutouts_that_a_folder_gives(
    tmp_path: Path, moto_s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in around_corner(150.1, 2.3):
        write_brick(tmp_path, *place)
    for path in sorted((tmp_path / "coadd").rglob("*.fits.fz")):
        key = f"dr10/{path.relative_to(tmp_path)}"
        moto_s3.client().put_object(Bucket=moto_s3.name, Key=key, Body=path.read_bytes())
    for name, value in moto_s3.environment.items():
        monkeypatch.setenv(name, value)
    ra, dec = corner_of(150.1, 2.3)
    with mirror(tmp_path) as local, mirror(f"{moto_s3.address}/dr10") as remote:
        here, there = local.cut(ra - 0.003, dec - 0.003), remote.cut(ra - 0.003, dec - 0.003)
        assert np.array_equal(here.pixels, there.pixels)
        assert len(here.assumed) == 3
        assert here.assumed == there.assumed
        with pytest.raises(CutoutRefusedError, match="lacks brick"):
            remote.cut(10.0, 10.0)
