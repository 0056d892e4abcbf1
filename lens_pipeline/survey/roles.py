"""What a row of the manifest is for, and what its lens_model says then.

Belongs here: names. A row's class is told by its `lens_model` alone; `role` says why the row is there.
"""

INJECTION, CONTROL_ROLE, UNPAIRED_CONTROL, NULL_FLUX_PROBE = "injection", "control", "unpaired_control", "null_flux"

CONTROL = "CONTROL"
TURNED, UNLENSED, BLOB = "fake_turned", "fake_unlensed", "fake_blob"
# Light with the flux of an arc that isn't lensed: role to lens_model.
FAKES = {TURNED: "FAKE_TURNED", UNLENSED: "FAKE_UNLENSED", BLOB: "FAKE_BLOB"}
RING, SPIRAL, MERGER = "hard_ring", "hard_spiral", "hard_merger"
# Galaxies that look like lenses: role to lens_model.
HARD_NEGATIVES = {RING: "RING", SPIRAL: "SPIRAL", MERGER: "MERGER"}
# Values of lens_model that mean no lens, beside CONTROL.
NO_LENS = (*FAKES.values(), *HARD_NEGATIVES.values())
# Columns that say what an injection's arc is, null where there is none.
ARC_COLUMNS = (
    "src_mag_g", "src_mag_r", "src_mag_z", "src_dmag", "src_reff_arcsec", "src_n", "src_e", "src_phi_rad",
    "src_x_arcsec", "src_y_arcsec", "lens_e", "lens_phi_rad", "lens_gamma", "shear", "shear_phi_rad", "z_source", "sigma_v_km_s",
)  # fmt: skip
