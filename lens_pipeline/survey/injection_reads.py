"""Which settings of injection_manifest are read only where others are so; set without these they are refused.

Belongs here: a rule for each. Ranges, and what contradicts what, are in `injection_config.py`.
"""

from lens_pipeline.contracts.config import ReadWhen

READ_WHEN = (
    ReadWhen(
        "population: uniform or velocity_dispersion",
        lambda config: config.population != "table",
        ("theta_e_low_arcsec", "theta_e_high_arcsec"),
    ),
    ReadWhen(
        "population: table", lambda config: config.population == "table", ("theta_e_knots_arcsec", "theta_e_density")
    ),
    ReadWhen(
        "population: velocity_dispersion",
        lambda config: config.population == "velocity_dispersion",
        ("velocity_dispersion_function", "sigma_v_low_km_s", "lens_redshift_assumed"),
    ),
    ReadWhen("share_epl above 0", lambda config: config.share_epl > 0, ("epl_gamma_mean", "epl_gamma_scatter")),
    ReadWhen("share_sis below 1", lambda config: config.share_sis < 1, ("lens_q_low",)),
    ReadWhen(
        "shares that leave some SIE_SHEAR or EPL",
        lambda config: config.share_sis + config.share_sie < 1,
        ("shear_high",),
    ),
    ReadWhen("source_faint_share above 0", lambda config: config.source_faint_share > 0, ("source_faint_limit",)),
    ReadWhen(
        "source_faint_limit above source_mag_high",
        lambda config: config.source_faint_share == 0 or config.source_faint_limit > config.source_mag_high,
        ("source_faint_share",),
    ),
    ReadWhen(
        "source_mag_high above source_mag_low",
        lambda config: config.source_mag_high > config.source_mag_low,
        ("source_mag_slope",),
    ),
    ReadWhen(
        "Sersic profiles: real_source_share below 1, or hold_out_real_sources",
        lambda config: config.real_source_share < 1 or config.hold_out_real_sources,
        ("source_n_low", "source_n_high", "source_q_low"),
    ),
    ReadWhen(
        "real_source_share above 0",
        lambda config: config.real_source_share > 0,
        ("real_source_catalogue", "real_source_colours", "real_source_colours_from", "hold_out_real_sources"),
    ),
    ReadWhen("design: stratified", lambda config: config.design == "stratified", ("floor_per_cell",)),
    ReadWhen("design: grid", lambda config: config.design == "grid", ("grid_theta_e_arcsec", "grid_source_mag")),
    ReadWhen(
        "hold_out_lens_models, hold_out_theta_e_arcsec, or real_source_share above 0",
        lambda config: config.holds_out_lenses or config.real_source_share > 0,
        ("hold_out_test_share", "hold_out_validation_share"),
    ),
)
