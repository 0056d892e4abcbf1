"""Light on real pixels is what was injected, to its own noise, in every band that can say."""

from typing import Any

import numpy as np
import pytest

from lens_pipeline.survey.shared_pixels import light_off

BANDS = ("g", "r", "z")
ROW = {
    "total_injected_flux_r": 10.0,
    **{f"src_mag_{band}": mag for band, mag in zip(BANDS, (22.0, 22.0, 22.5), strict=True)},
}
HOST = {"noise_correlation": 0.0, "ebv": None, **{f"electrons_per_nanomaggy_{band}": 1000.0 for band in BANDS}} | {
    f"pixel_sigma_{band}": 0.01 for band in BANDS
}


def pair(**added: float) -> Any:
    """Make a stamp with light in one pixel, by band, and its control."""
    pixels = np.zeros((2, 3, 8, 8), np.float32)
    pixels[0, :, 4, 4] = [added.get(band, right) for band, right in zip(BANDS, (10.0, 10.0, 6.30957), strict=True)]
    return pixels


@pytest.mark.parametrize("band", BANDS)
def test_light_that_was_not_injected_is_said_beyond_six_sigma_of_its_noise(band: str) -> None:
    # A thousand electrons a nanomaggy: the noise of 10 nanomaggy is 0.1. Bands but r may be off by 5 % beside.
    assert light_off(pair(), ROW, HOST, BANDS, 0.262, None) == []
    right, noise = {"g": (10.5, 0.1), "r": (10.0, 0.1), "z": (6.625, 0.0794)}[band]
    assert light_off(pair(**{band: right + 5.9 * noise}), ROW, HOST, BANDS, 0.262, None) == []
    (said,) = light_off(pair(**{band: right + 6.1 * noise}), ROW, HOST, BANDS, 0.262, None)
    assert f"nanomaggy in {band} beside the" in said


def test_light_that_bad_pixels_hide_in_one_band_is_no_fingerprint() -> None:
    bad = np.zeros((3, 8, 8), bool)
    bad[0, 4, 4] = True
    assert light_off(pair(g=0.0), ROW, HOST, BANDS, 0.262, bad) == []
    assert light_off(pair(g=0.0), ROW, HOST, BANDS, 0.262, np.zeros_like(bad)) != []


@pytest.mark.parametrize("unknown", [None, float("nan"), float("inf"), -99.0, -999.0, 99.0])
def test_a_magnitude_that_is_no_magnitude_says_nothing_of_the_light_in_its_band(unknown: float | None) -> None:
    row = ROW | {"src_mag_g": unknown}
    assert light_off(pair(g=0.0), row, HOST, BANDS, 0.262, None) == []
    (said,) = light_off(pair(g=0.0, z=0.0), row, HOST, BANDS, 0.262, None)
    assert "nanomaggy in z" in said
    assert light_off(pair(r=0.0), ROW | {"total_injected_flux_r": float("nan")}, HOST, BANDS, 0.262, None) == []
