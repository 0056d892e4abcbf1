from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from lens_pipeline.contracts.errors import ContractError
from lens_pipeline.survey.psfex import read_psfex

from .test_measured_psf import gaussian_as_pixels_see_it

# A star's image is 1 + 0.2 u + 0.3 v + 0.05 u v times a wider one, u and v the scaled place.
TERMS = {"1": 1.0, "x": 0.2, "xx": 0.0, "y": 0.3, "xy": 0.05, "yy": 0.0}
PARAMETERS: dict[str, Any] = {
    "POLNAME1": "X_IMAGE",
    "POLNAME2": "Y_IMAGE",
    "POLZERO1": 501.0,
    "POLZERO2": 1001.0,
    "POLSCAL1": 1000.0,
    "POLSCAL2": 2000.0,
    "POLDEG1": 2,
    "PSF_SAMP": 1.0,
}


def basis() -> np.ndarray:
    narrow, wide = gaussian_as_pixels_see_it(1.5, 1.5), gaussian_as_pixels_see_it(2.2, 2.2)
    rest = [factor * (wide - narrow) for name, factor in TERMS.items() if name != "1"]
    return np.stack([narrow, *rest]).astype(np.float32)


def write(path: Path, *, in_columns: bool = False, ccds: tuple[str, ...] = ("S10",), **changed: Any) -> Path:
    """A model as the Legacy Surveys write them: parameters in the header, or in columns."""
    parameters = PARAMETERS | changed
    images = basis()
    column = fits.Column("psf_mask", f"{images.size}E", dim="(63,63,6)", array=np.stack([images] * len(ccds)))
    columns = [column]
    if in_columns:
        formats = {str: "7A", int: "K", float: "D"}
        columns += [
            fits.Column(name.lower(), formats[type(value)], array=[value] * len(ccds))
            for name, value in parameters.items()
        ]
        columns.append(fits.Column("ccdname", "3A", array=list(ccds)))
    hdu = fits.BinTableHDU.from_columns(columns)
    if not in_columns:
        for name, value in parameters.items():
            if value is not None:
                hdu.header[name] = value
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, overwrite=True)
    return path


@pytest.mark.parametrize("in_columns", [False, True])
def test_a_model_is_evaluated_at_a_place_with_x_as_its_fastest_power(tmp_path: Path, in_columns: bool) -> None:
    model = read_psfex(write(tmp_path / "m.fits", in_columns=in_columns))
    narrow, wide = gaussian_as_pixels_see_it(1.5, 1.5), gaussian_as_pixels_see_it(2.2, 2.2)
    # Pixel 500 counted from 0 is 501 counted from 1: the model's zero.
    assert model.at(500, 1000).pixels == pytest.approx(narrow, abs=1e-7)
    for x, y in ((1500, 1000), (500, 3000), (1000, 0)):
        u, v = (x - 500) / 1000, (y - 1000) / 2000
        share = 0.2 * u + 0.3 * v + 0.05 * u * v
        assert model.at(x, y).pixels == pytest.approx(narrow + share * (wide - narrow), abs=1e-7)


def test_one_ccd_is_taken_out_of_a_file_of_several(tmp_path: Path) -> None:
    path = write(tmp_path / "m.fits", in_columns=True, ccds=("N1", "S10"))
    assert read_psfex(path, ccdname="S10").degree == 2
    with pytest.raises(ContractError, match="2 models, of N1, S10; wanted S11"):
        read_psfex(path, ccdname="S11")


def test_a_model_that_lacks_a_parameter_or_depends_on_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="lacks polscal1"):
        read_psfex(write(tmp_path / "m.fits", POLSCAL1=None))
    with pytest.raises(ContractError, match="wanted X_IMAGE and Y_IMAGE"):
        read_psfex(write(tmp_path / "m.fits", POLNAME1="MAG"))
    with pytest.raises(ContractError, match="10 terms for degree 3"):
        read_psfex(write(tmp_path / "m.fits", POLDEG1=3))
    (tmp_path / "m.fits").write_bytes(b"nothing")
    with pytest.raises(ContractError, match="can't be read as a PSFEx model"):
        read_psfex(tmp_path / "m.fits")


@pytest.mark.real_data
def test_models_of_real_ccds_are_as_concentrated_as_the_survey_says_of_them(real_data: Path) -> None:
    # psfnorm, sqrt(sum of PSF^2), in the middle of the CCD, from the survey's table; and FWHM in pixels.
    said = {"00384128": (0.15839, 3.387), "00390924": (0.17809, 3.064), "00390498": (0.12364, 4.355)}
    calib = real_data / "decam_ccds" / "field_disk_galaxy" / "calib" / "decam" / "psfex"
    for exposure, (psfnorm, fwhm) in said.items():
        (path,) = calib.rglob(f"*{exposure}*.fits")
        model = read_psfex(path)
        psf = model.at(*model.zero)
        assert psf.sum_found == pytest.approx(1, abs=0.03)
        assert np.sqrt((psf.pixels**2).sum()) == pytest.approx(psfnorm, rel=0.04)
        assert psf.fwhm_pixels == pytest.approx(fwhm, rel=0.1)


@pytest.mark.real_data
def test_models_with_their_parameters_in_columns_are_read(real_data: Path) -> None:
    paths = sorted((real_data / "decam_ccds" / "field_poor_seeing" / "calib").rglob("*-psfex.fits"))
    assert len(paths) == 3
    for path in paths:
        psf = read_psfex(path).at(50, 50)
        assert psf.sum_found == pytest.approx(1, abs=0.03)
        assert 3.0 < psf.fwhm_pixels < 3.8
