from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from lens_pipeline.contracts.config import ReadWhen, Section
from lens_pipeline.survey.config import READ_WHEN as PARENT_READS
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, StampsConfig
from lens_pipeline.survey.injection_reads import READ_WHEN as INJECTION_READS

CATALOGUE = {"source": "legacy_catalogue", "folder": "sweep"}
CUTOUTS = {"source": "real_cutouts", "folder": "cubes"}
OWN = {"source": "external_stamps", "folder": "own"}
PRESETS = Path(__file__).parent.parent.parent / "presets"


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
        (
            ParentSampleConfig,
            {"folder": "x"},
            "folder: read with source: external_stamps or legacy_catalogue or real_cut",
        ),
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
        (
            InjectionConfig,
            {
                "population": "table",
                "theta_e_knots_arcsec": [0.3, 15.0, 20.0],
                "theta_e_density": [1.0, 1.0, 0.0],
            },
            r"2 of 3 theta_e_knots_arcsec are above 10, the most that theta_e_high_arcsec takes: 15\.0, 20\.0",
        ),
        (ParentSampleConfig, {"images": "coadds"}, "images: read with source: legacy_catalogue"),
        (
            ParentSampleConfig,
            {"known_lenses": "lenscat.csv"},
            "known_lenses: read with source: legacy_catalogue or real_cutouts",
        ),
        (
            ParentSampleConfig,
            {**CUTOUTS, "mag_r_high": 18.0, "n_galaxies": 5},
            "n_galaxies: read with source: simulated; mag_r_high: read with source: legacy_catalogue",
        ),
        (ParentSampleConfig, {**CATALOGUE, "catalogue": "x.csv"}, "catalogue: read with source: real_cutouts"),
        (
            ParentSampleConfig,
            {**OWN, "region": "healpix"},
            "region: read with source: legacy_catalogue or real_cutouts",
        ),
        (
            ParentSampleConfig,
            {**CUTOUTS, "no_lens_models": ["RING"]},
            "no_lens_models: read with source: external_stamps",
        ),
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


# For each rule of what is read when, settings for which it holds and settings for which it doesn't.
REAL = {"real_source_share": 1.0, "real_source_catalogue": "x.fits"}
KNOTS = {"population": "table", "theta_e_knots_arcsec": [0.3, 2.0], "theta_e_density": [1.0, 2.0]}
INJECTION_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "theta_e_low_arcsec": ({}, KNOTS),
    "theta_e_knots_arcsec": (KNOTS, {}),
    "velocity_dispersion_function": ({"population": "velocity_dispersion"}, {}),
    "epl_gamma_mean": ({"share_epl": 0.2}, {}),
    "lens_q_low": ({}, {"share_sie": 0.0, "share_sis": 1.0}),
    "shear_high": ({}, {"share_sie": 0.75, "share_sis": 0.25}),
    "source_faint_limit": ({}, {"source_faint_share": 0.0}),
    "source_faint_share": ({}, {"source_faint_limit": 25.0}),
    "source_mag_slope": ({}, {"source_mag_low": 25.0}),
    "source_n_low": ({}, REAL),
    "real_source_catalogue": (REAL | {"real_source_colours": {"a": [0.1, 0.2]}, "real_source_colours_from": "X"}, {}),
    "floor_per_cell": ({"design": "stratified"}, {"design": "grid"}),
    "grid_theta_e_arcsec": ({"design": "grid"}, {"design": "stratified"}),
    "hold_out_test_share": ({"hold_out_lens_models": ["SIS"]}, {}),
}
HEALPIX, LENSES = {**CUTOUTS, "region": "healpix"}, {**CUTOUTS, "known_lenses": "lenscat.csv"}
PARENT_CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "seed": ({}, CUTOUTS),
    "catalogue": (CUTOUTS, CATALOGUE),
    "folder": (CUTOUTS, {}),
    "match_radius_arcsec": (OWN, CUTOUTS),
    "selection": (CATALOGUE, CUTOUTS),
    "pixel_scale_tolerance": (CUTOUTS, OWN),
    "healpix_nside": (HEALPIX, CUTOUTS),
    "known_lens_radius_arcsec": (LENSES, CUTOUTS),
}
CASES = [
    (section, rule, name, *cases[rule.names[0]])
    for section, rules, cases in (
        (InjectionConfig, INJECTION_READS, INJECTION_CASES),
        (ParentSampleConfig, PARENT_READS, PARENT_CASES),
    )
    for rule in rules
    for name in rule.names
]


def another(section: type[Section], name: str) -> Any:
    """Return a value of a setting that isn't its default."""
    default, kind = section.model_fields[name].default, section.model_fields[name].annotation
    if isinstance(default, Enum):
        return next(value for value in type(default) if value != default)
    if name == "healpix_nside":
        return 2 * default
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1 if isinstance(default, int) else 0.99 * default or 0.01
    if kind is str:
        return f"another{default}"
    if isinstance(default, dict):
        return {"b": [0.2, 0.3]}
    return {"excluded_maskbits": [1, 2], "morphologies": ["DEV"], "no_lens_models": ["RING"]}.get(name, [0.5, 0.7])


@pytest.mark.parametrize(
    ("section", "rule", "name", "where_read", "where_not"), CASES, ids=[f"{c[0].__name__}.{c[2]}" for c in CASES]
)
def test_a_setting_that_nothing_reads_is_refused_and_one_that_is_read_is_not(
    section: type[Section], rule: ReadWhen, name: str, where_read: dict[str, Any], where_not: dict[str, Any]
) -> None:
    value = another(section, name)
    assert getattr(section(**{**where_read, name: value}), name) != section.model_fields[name].default
    section(**where_not)
    with pytest.raises(
        ValidationError, match=rf"{name}.*: read with {rule.condition}.*Leave it out, or set what reads it"
    ):
        section(**{**where_not, name: value})


def test_without_faint_sources_the_main_prior_goes_as_faint_as_it_likes() -> None:
    assert InjectionConfig(source_faint_share=0.0, source_mag_high=30.0).source_mag_high == 30.0
    with pytest.raises(ValidationError, match=r"source_mag_high = 30.0 is above source_faint_limit = 29.0"):
        InjectionConfig(source_mag_high=30.0)


@pytest.mark.parametrize("path", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_set_nothing_that_nothing_reads(path: Path) -> None:
    ops = yaml.safe_load(path.read_text()).get("ops", {})
    for name, section in (("parent_sample", ParentSampleConfig), ("injection_manifest", InjectionConfig)):
        section(**ops.get(name, {}).get("config", {}))
