import pytest
from pydantic import ValidationError

from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig

CATALOGUE = {"source": "legacy_catalogue", "folder": "sweep"}
CUTOUTS = {"source": "real_cutouts", "folder": "cubes"}
OWN = {"source": "external_stamps", "folder": "own"}


@pytest.mark.parametrize(
    ("section", "settings", "said"),
    [
        (ParentSampleConfig, {"n_galaxies": 0}, "greater than or equal to 1"),
        (ParentSampleConfig, {"galaxies": 5}, "Extra inputs are not permitted"),
        (ParentSampleConfig, {"source": "real_cutouts"}, "needs a folder"),
        (
            ParentSampleConfig,
            {"source": "legacy_catalogue", "folder": "S3://b/sweep"},
            "must be a folder on this machine",
        ),
        (ParentSampleConfig, {"source": "external_stamps", "folder": "gs://b/x"}, r"must be .* or an s3:// address"),
        (ParentSampleConfig, {"folder": "x"}, "reads no folder"),
        (ParentSampleConfig, {"noise_correlation_low": 0.4, "noise_correlation_high": 0.3}, "above"),
        (ParentSampleConfig, {**CATALOGUE, "folder": ""}, "needs a folder"),
        (ParentSampleConfig, {**CATALOGUE, "selection": "lrg"}, "'lrg_dr8_2020', .*'lrg_dr9_main'"),
        (ParentSampleConfig, {**CATALOGUE, "region_margin_arcsec": 8.0}, "less than half a stamp's diagonal, 11.86"),
        (ParentSampleConfig, {**CATALOGUE, "stamp_size": 128}, "less than half a stamp's diagonal, 23.71"),
        (ParentSampleConfig, {**CATALOGUE, "region": "healpix", "healpix_nside": 48}, "48 is no power of 2"),
        (
            ParentSampleConfig,
            {**CATALOGUE, "mag_r_low": 22.0, "mag_r_high": 20.0},
            "mag_r_low = 22 is above mag_r_high = 20",
        ),
        (ParentSampleConfig, {**CATALOGUE, "excluded_maskbits": [1, 40]}, r"numbers of bits, 0 to 30, not \[40\]"),
        (InjectionConfig, {"theta_e_low_arcsec": 3.0}, "theta_e_low_arcsec = 3.0 is above theta_e_high_arcsec"),
        (ParentSampleConfig, {"images": "coadds"}, "source simulated doesn't read images of parent_sample"),
        (
            ParentSampleConfig,
            {"known_lenses": "lenscat.csv"},
            "simulated doesn't read known_lenses",
        ),
        (
            ParentSampleConfig,
            {**CUTOUTS, "mag_r_high": 18.0, "n_galaxies": 5},
            "cutouts doesn't read n_galaxies, mag_r_high of",
        ),
        (ParentSampleConfig, {**CATALOGUE, "catalogue": "x.csv"}, "legacy_catalogue doesn't read catalogue"),
        (ParentSampleConfig, {**OWN, "region": "healpix"}, "external_stamps doesn't read region"),
        (InjectionConfig, {"share_sie": 0.7, "share_sis": 0.4}, "above 1"),
        (InjectionConfig, {"injections_per_galaxy": 0}, "greater than or equal to 1"),
        (StampsConfig, {"rows_per_fragment": 0}, "greater than or equal to 1"),
    ],
)
def test_a_setting_that_is_unknown_out_of_range_or_contradicts_another_is_refused(
    section: type, settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        section(**settings)


def test_a_default_that_is_written_out_is_no_contradiction() -> None:
    for settings in ({}, CATALOGUE, CUTOUTS, OWN):
        config = ParentSampleConfig.model_validate(settings)
        assert ParentSampleConfig.model_validate(config.model_dump()) == config
