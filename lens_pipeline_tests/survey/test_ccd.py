from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from lens_pipeline.contracts.errors import ConfigError, ContractError
from lens_pipeline.survey.ccd import cut_from_ccds, read_field
from lens_pipeline.survey.cutout_measures import noise_per_pixel
from lens_pipeline.survey.galaxy_images import CutoutRefusedError
from lens_pipeline.survey.image_judgement import must_be_usable

from . import coadds, test_psfex

RA, DEC, SIZE, N = 150.0, -16.0, 32, 90
ZERO_POINT, EXPOSURE_S, GAIN = 25.0, 90.0, 4.0
ADU_PER_NMGY = 10 ** ((ZERO_POINT + 2.5 * np.log10(EXPOSURE_S) - 22.5) / 2.5)


def wcs_of(crpix: tuple[float, float] = (45.3, 44.8), scale: float = 0.262) -> WCS:
    """A CCD that lies on its side, as DECam's do."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval, wcs.wcs.crpix = (RA, DEC), crpix
    wcs.wcs.cd = np.array([[0, 1], [-1, 0]]) * scale / 3600
    return wcs


def truth(sigma: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, sigma, (N, N))
    noise[40, 50] += 1.0
    return noise


def write_ccd(
    folder: Path,
    expnum: int,
    band: str,
    *,
    sigma: float = 0.005,
    sky: float = 300.0,
    galaxies: Sequence[tuple[float, float]] = (),
    light: coadds.Light | None = None,
    grid: WCS | None = None,
) -> dict[str, Any]:
    """One exposure of 90 x 90 pixels: a sky, noise, a bright pixel at (50, 40), galaxies at pixels (x, y).

    In their place may stand the surface brightness `light` of (band, ra, dec), with its own noise. Returns its row of the table.
    """
    wcs = wcs_of() if grid is None else grid
    name = f"decam/c4d_{expnum}_ooi_{band}.fits"
    path = folder / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:N, :N]
    round_ones = sum(coadds.galaxy_light(0.262 * np.hypot(x - column, y - row)) for column, row in galaxies)
    seen = truth(sigma, expnum) + round_ones if light is None else light(band, *wcs.pixel_to_world_values(x, y))
    planes = {
        "ooi": seen * ADU_PER_NMGY + sky,
        "oow": np.full((N, N), (sigma * ADU_PER_NMGY) ** -2),
        "ood": np.zeros((N, N), np.int32),
    }
    planes["ood"][3, 4] = 5
    for kind, plane in planes.items():
        data = plane.astype(np.int32 if kind == "ood" else np.float32)
        hdu = fits.ImageHDU(data, wcs.to_header(), name="S10")
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path.with_name(path.name.replace("ooi", kind)), overwrite=True)
    return {
        "image_filename": name,
        "ccdname": "S10",
        "expnum": expnum,
        "camera": "decam",
        "filter": band,
        "exptime": EXPOSURE_S,
        "ccdzpt": ZERO_POINT,
        "ccdraoff": 0.0,
        "ccddecoff": 0.0,
        "fwhm": 4.0,
        "gain": GAIN,
        "sig1": sigma,
    }


def write_sky(folder: Path, expnum: int) -> None:
    """The spline of a CCD that the image is a corner of: a level of 300 ADU that rises by 0.1 a pixel along x."""
    x, y = np.arange(-129, 2200, 256), np.arange(-129, 4300, 256)
    values = np.broadcast_to(300 + 0.1 * (x - 1000), (len(y), len(x)))
    columns = [
        fits.Column("xgrid", f"{len(x)}J", array=[x]),
        fits.Column("ygrid", f"{len(y)}J", array=[y]),
        fits.Column("x0", "J", array=[1000]),
        fits.Column("y0", "J", array=[2000]),
        fits.Column("gridvals", f"{values.size}E", dim=f"({len(x)},{len(y)})", array=[values]),
        fits.Column("order", "B", array=[3]),
    ]
    path = folder / "calib/decam/splinesky" / f"{expnum:08d}"[:5] / f"{expnum:08d}" / f"decam-{expnum:08d}-S10.fits"
    path.parent.mkdir(parents=True)
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns)]).writeto(path)


def write_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    Table(rows=rows).write(folder / "survey-ccds-1.fits.gz", overwrite=True)


@pytest.fixture
def field(tmp_path: Path) -> Callable[..., Path]:
    def write(change: Callable[[Path, list[dict[str, Any]]], None] | None = None) -> Path:
        rows = [write_ccd(tmp_path, 100 + i, band) for i, band in enumerate("grz")]
        if change is not None:
            change(tmp_path, rows)
        if rows:
            write_table(tmp_path, rows)
        return tmp_path

    return write


def test_counts_become_nanomaggy_with_their_inverse_variance_gain_and_flags(field: Callable[..., Path]) -> None:
    ccd = read_field(field())[1]
    assert ccd.band == "r"
    # The sky is the median, known to 1.25 sigma / 90.
    assert ccd.pixels == pytest.approx(truth(0.005, 101), abs=3e-4)
    assert ccd.ivar == pytest.approx(0.005**-2, rel=1e-5)
    assert ccd.electrons_per_nanomaggy == pytest.approx(GAIN * ADU_PER_NMGY)
    assert np.argwhere(ccd.bad).tolist() == [[3, 4]]
    assert ccd.fwhm_arcsec == pytest.approx(4 * 0.262, rel=1e-6)
    assert ccd.assumed == ("The sky is the median of the CCD's unmasked pixels: galaxies' faint outskirts are in it.",)


def test_a_sky_spline_of_the_whole_ccd_is_taken_at_the_images_place_on_it(field: Callable[..., Path]) -> None:
    def rising(folder: Path, rows: list[dict[str, Any]]) -> None:
        path = folder / "images" / str(rows[0]["image_filename"])
        with fits.open(path, mode="update") as hdus:
            hdus["S10"].data += np.float32(0.1) * np.arange(N, dtype=np.float32)
        write_sky(folder, 100)

    ccd = read_field(field(rising))[0]
    assert ccd.pixels == pytest.approx(truth(0.005, 100), abs=1e-5)
    assert ccd.assumed == ()


def test_a_cutout_is_whole_pixels_around_the_place_and_says_where_it_stands(field: Callable[..., Path]) -> None:
    ccds = read_field(field())
    ra, dec = (float(v) for v in ccds[0].wcs.pixel_to_world_values(50.2, 39.9))
    cut = must_be_usable(cut_from_ccds(ccds, ("g", "r", "z"), ra, dec, SIZE))
    # The middle of 32 pixels is at 15.5: with the first at 35 and 24 the place is 0.3 and 0.4 pixels off it.
    assert cut.offset_arcsec == pytest.approx(np.array([[-0.3, 0.4]] * 3) * 0.262, abs=1e-3)
    assert np.array_equal(cut.pixels[1], ccds[1].pixels[24:56, 35:67])
    assert np.unravel_index(cut.pixels[0].argmax(), (SIZE, SIZE)) == (16, 15)
    assert cut.electrons_per_nanomaggy == (ccds[0].electrons_per_nanomaggy,) * 3
    assert "not resampled" in cut.assumed[0]


def test_the_tables_astrometric_offset_moves_the_place(field: Callable[..., Path]) -> None:
    def shifted(_: Path, rows: list[dict[str, Any]]) -> None:
        rows[0]["ccdraoff"], rows[0]["ccddecoff"] = 2.62, -0.524

    g, r, _ = read_field(field(shifted))
    ra, dec = (float(v) for v in r.wcs.pixel_to_world_values(50, 40))
    x, y = g.wcs.world_to_pixel_values(ra, dec)
    # dec falls along x and ra rises along y: an image that lies further east shows the place at a smaller y.
    assert (x, y) == pytest.approx((50 - 2, 40 - 10), abs=0.01)


def test_the_deepest_exposure_that_holds_most_of_the_cutout_is_taken(field: Callable[..., Path]) -> None:
    def more(folder: Path, rows: list[dict[str, Any]]) -> None:
        rows.append(write_ccd(folder, 200, "r", sigma=0.003))
        rows.append(write_ccd(folder, 201, "r", sigma=0.009))

    ccds = read_field(field(more))
    cut = cut_from_ccds(ccds, ("r",), RA, DEC, SIZE)
    assert noise_per_pixel(cut.pixels[0], cut.bad[0]) == pytest.approx(0.003, rel=0.15)
    assert "r decam-00000200-S10" in cut.assumed[0]


def test_pixels_beyond_the_border_are_bad_and_a_place_beyond_it_is_refused(field: Callable[..., Path]) -> None:
    ccds = read_field(field())
    ra, dec = (float(v) for v in ccds[0].wcs.pixel_to_world_values(12.2, 44))
    cut = cut_from_ccds(ccds, ("g",), ra, dec, SIZE)
    assert cut.bad[0].any(axis=0).tolist() == [True] * 3 + [False] * 29
    must_be_usable(cut)
    ra, dec = (float(v) for v in ccds[0].wcs.pixel_to_world_values(-3, 44))
    with pytest.raises(CutoutRefusedError, match=r"none of 1 exposures in g holds .*decam-00000100-S10") as refused:
        cut_from_ccds(ccds, ("g",), ra, dec, SIZE)
    assert refused.value.reason == "outside"
    with pytest.raises(CutoutRefusedError, match=r"none of 0 exposures in i .*there is none in this band"):
        cut_from_ccds(ccds, ("i",), RA, DEC, SIZE)


def test_a_psf_model_beside_the_ccd_is_evaluated_where_the_galaxy_stands(field: Callable[..., Path]) -> None:
    def modelled(folder: Path, _: list[dict[str, Any]]) -> None:
        path = folder / "calib/decam/psfex/00000/00000101/decam-00000101-S10.fits"
        path.parent.mkdir(parents=True)
        test_psfex.write(path, POLZERO1=1.0, POLZERO2=1.0, POLSCAL1=100.0, POLSCAL2=100.0)

    ccds = read_field(field(modelled))
    ra, dec = (float(v) for v in ccds[0].wcs.pixel_to_world_values(60, 40))
    cut = cut_from_ccds(ccds, ("g", "r"), ra, dec, SIZE)
    assert cut.psf[0] is None
    assert cut.psf_fwhm_arcsec == (pytest.approx(4 * 0.262, rel=1e-6),) * 2
    assert cut.psf[1] is not None
    images = test_psfex.basis()
    expected = images[0] + 0.6 * images[1] + 0.4 * images[3] + 0.24 * images[4]
    assert cut.psf[1].pixels == pytest.approx(expected, abs=1e-4)


def no_table(_: Path, rows: list[dict[str, Any]]) -> None:
    rows.clear()


def no_zero_point(_: Path, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        del row["ccdzpt"]


def nan_zero_point(_: Path, rows: list[dict[str, Any]]) -> None:
    rows[1]["ccdzpt"] = np.nan


def nan_offset(_: Path, rows: list[dict[str, Any]]) -> None:
    rows[1]["ccddecoff"] = np.nan


def other_zero_point(_: Path, rows: list[dict[str, Any]]) -> None:
    rows[1]["ccdzpt"] = ZERO_POINT + 0.3


def no_weight(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "images" / str(rows[2]["image_filename"]).replace("ooi", "oow")).unlink()


def change_plane(kind: str, change: Callable[[fits.ImageHDU], None]) -> Callable[[Path, list[dict[str, Any]]], None]:
    def changed(folder: Path, rows: list[dict[str, Any]]) -> None:
        path = folder / "images" / str(rows[0]["image_filename"]).replace("ooi", kind)
        with fits.open(path, mode="update") as hdus:
            change(hdus["S10"])

    return changed


def negative(hdu: fits.ImageHDU) -> None:
    hdu.data[5, 6:9] = -1


def smaller(hdu: fits.ImageHDU) -> None:
    hdu.data = hdu.data[:-1].copy()


def no_wcs(hdu: fits.ImageHDU) -> None:
    for name in ("CTYPE1", "CTYPE2"):
        del hdu.header[name]


def oblong(hdu: fits.ImageHDU) -> None:
    hdu.header["PC1_2"] *= 1.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_table, r"no survey-ccds\*.fits: without ccdzpt its counts can't be calibrated"),
        (no_zero_point, "lacks ccdzpt"),
        (nan_zero_point, "decam-00000101-S10 has ccdzpt = (nan|None)"),
        (nan_offset, "decam-00000101-S10 has no ccddecoff"),
        (other_zero_point, r"noise of 0.003793 nanomaggy a pixel, the table's sig1 says 0.005"),
        (no_weight, r"there is no .*oow_z.fits: a CCD needs its image \(ooi\), weight \(oow\)"),
        (change_plane("oow", negative), "oow_g.fits holds 3 weights that are negative or not finite"),
        (change_plane("ood", smaller), r"differ in shape: image \(90, 90\), weight \(90, 90\), quality \(89, 90\)"),
        (change_plane("ooi", no_wcs), "has no celestial WCS"),
        (change_plane("ooi", oblong), "arcsec, wanted square ones"),
    ],
)
def test_a_field_that_cannot_be_calibrated_is_refused(field: Callable[..., Path], change: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        read_field(field(change))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        read_field(tmp_path / "nothing")


@pytest.mark.real_data
def test_real_exposures_have_the_noise_and_sky_that_the_survey_says(real_data: Path) -> None:
    ccds = read_field(real_data / "decam_ccds" / "field_disk_galaxy")
    assert [ccd.band for ccd in ccds] == ["z", "r", "g"]
    for ccd, sig1 in zip(ccds, (0.033189, 0.0075884, 0.0055467), strict=True):
        hidden = ccd.bad | (ccd.ivar == 0)
        assert ccd.sig1 == pytest.approx(sig1, rel=0.01)
        assert noise_per_pixel(ccd.pixels, hidden) == pytest.approx(ccd.sig1, rel=0.05)
        # Most of the field is sky: its median is 0 to a tenth of a pixel's noise.
        assert abs(np.median(ccd.pixels[~hidden])) < 0.1 * ccd.sig1
        assert ccd.pixel_scale_arcsec == pytest.approx(0.2623, abs=1e-4)
        assert ccd.assumed == ()
    cut = must_be_usable(cut_from_ccds(ccds, ("g", "r", "z"), 28.41927, -16.43589, 64))
    # The disk galaxy in the middle, with its cosmic ray in r; the edge-on one stands on the field's border.
    assert cut.bad.sum() == 9
    centre = cut.pixels[:, 27:37, 27:37].sum(axis=(1, 2)) / (10 * np.array([ccd.sig1 for ccd in reversed(ccds)]))
    assert (centre > 20).all()
    assert all(psf is not None for psf in cut.psf)
    with pytest.raises(CutoutRefusedError, match="centre_masked"):
        must_be_usable(cut_from_ccds(ccds, ("g", "r", "z"), 28.41530, -16.42922, 64))


@pytest.mark.real_data
def test_a_real_field_without_zero_points_is_refused(real_data: Path) -> None:
    with pytest.raises(ContractError, match="without ccdzpt its counts can't be calibrated"):
        read_field(real_data / "decam_ccds" / "field_poor_seeing")
