import itertools
from typing import Any

import numpy as np
import pytest

from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.survey.design import TEST, TRAIN, Design
from lens_pipeline.survey.injection_config import InjectionConfig
from lens_pipeline.survey.manifest import null_flux_rows, rows_of_galaxy
from lens_pipeline.survey.population import Hosts
from lens_pipeline.survey.proposals import shares_with_floors

VDF = {"population": "velocity_dispersion"}
TABLE = {"population": "table", "theta_e_knots_arcsec": [0.3, 0.8, 3.0], "theta_e_density": [1.0, 4.0, 0.0]}
STRATIFIED = {"design": "stratified", "cell_source_mag_edges": [20.5, 22, 23.5, 29], "floor_per_cell": 40}
# As many points as a grid needs to stand for a density.
FINE_GRID = {
    "design": "grid",
    "grid_theta_e_arcsec": list(np.arange(0.325, 2.5, 0.05)),
    "grid_source_mag": list(np.arange(20.625, 29, 0.25)),
}


def make(n_galaxies: int = 1, **settings: Any) -> tuple[Design, list[dict[str, Any]]]:
    """Galaxies of several redshifts and regions, and their injections."""
    config = InjectionConfig(**settings)
    rng = np.random.default_rng(1)
    galaxies = [
        {
            "galaxy_id": f"g{n}", "region_id": f"r{n % 50}", "ra": None, "dec": None, "mag_r": 19.0,
            "axis_ratio": 0.8, "phi_rad": 0.3, "z_lens": float(z),
        }
        for n, z in enumerate(rng.uniform(0.25, 0.85, n_galaxies))
    ]  # fmt: skip
    design = Design.of(config, Hosts.of(config, [galaxy["z_lens"] for galaxy in galaxies]))
    rows = [row for galaxy in galaxies for row in rows_of_galaxy(design, galaxy)]
    return design, [row for row in rows if row["role"] == "injection"]


def estimates(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Weighted marginals of the population, with their standard errors."""
    w = np.array([row["weight"] for row in rows])
    theta_e, mag = (np.array([row[name] for row in rows]) for name in ("theta_e_arcsec", "src_mag_r"))
    models = np.array([row["lens_model"] for row in rows])
    asked = {f"theta_e below {edge}": theta_e < edge for edge in (0.5, 0.8, 1.2, 1.7, 2.2)}
    asked |= {f"mag below {edge}": mag < edge for edge in (21.5, 23.0, 24.5, 25.5)}
    asked |= {name: models == name for name in ("SIE", "SIS", "SIE_SHEAR")}
    asked |= {"wide and bright": (theta_e > 1.5) & (mag < 22)}
    found = {}
    for name, member in asked.items():
        p = float(np.average(member, weights=w))
        found[name] = (p, float(np.sqrt(np.sum((w * (member - p)) ** 2)) / w.sum()))
    return found


@pytest.mark.parametrize("population", [{}, TABLE, VDF], ids=["uniform", "table", "velocity_dispersion"])
def test_weighted_marginals_are_the_populations_whatever_the_design(population: dict[str, Any]) -> None:
    made = {
        name: make(400, injections_per_galaxy=16, **population, **design)
        for name, design in {"population": {}, "stratified": STRATIFIED}.items()
    }
    shares = {name: estimates(rows) for name, (_, rows) in made.items()}
    pop = made["population"][0].population
    for name, (p, error) in shares["stratified"].items():
        other, other_error = shares["population"][name]
        assert abs(p - other) < 4.5 * np.hypot(error, other_error), name
    for edge in (0.5, 0.8, 1.2, 1.7, 2.2):
        for found in shares.values():
            p, error = found[f"theta_e below {edge}"]
            assert abs(p - float(pop.theta_e.below(edge))) < 4.5 * error + 1e-12
    # The mean weight is 1: weights are a ratio of two densities.
    for _, rows in made.values():
        w = np.array([row["weight"] for row in rows])
        assert w.mean() == pytest.approx(1, abs=4.5 * w.std() / np.sqrt(len(w)) + 1e-9)


def test_a_design_changes_what_is_drawn() -> None:
    _, plain = make(400, injections_per_galaxy=15, **VDF)
    _, designed = make(400, injections_per_galaxy=15, **VDF, **STRATIFIED)
    wide = [np.mean([row["theta_e_arcsec"] > 2 for row in rows]) for rows in (plain, designed)]
    assert wide[1] > 3 * wide[0] > 0


def test_a_grid_stands_for_the_population_to_the_width_of_its_cells() -> None:
    design, rows = make(300, injections_per_galaxy=20, **FINE_GRID)
    assert {round(row["theta_e_arcsec"], 6) for row in rows} <= {round(t, 6) for t in FINE_GRID["grid_theta_e_arcsec"]}
    for name, (p, error) in estimates(rows).items():
        if name.startswith("theta_e"):
            truth = float(design.population.theta_e.below(float(name.split()[-1])))
            assert abs(p - truth) < 4.5 * error


def test_the_audited_grid_draws_its_points_equally_often() -> None:
    _, rows = make(300, injections_per_galaxy=9, design="grid")
    points, counts = np.unique([(row["theta_e_arcsec"], row["src_mag_r"]) for row in rows], axis=0, return_counts=True)
    assert sorted(map(tuple, points)) == list(itertools.product([0.3, 0.6, 1.0], [21.0, 22.0, 23.0]))
    assert counts.min() > 0.8 * counts.mean()


@pytest.mark.parametrize("design", [{}, STRATIFIED], ids=["population", "stratified"])
def test_near_and_far_galaxies_count_as_often_as_they_lens_with_each_radius(design: dict[str, Any]) -> None:
    made, rows = make(400, injections_per_galaxy=15, **VDF, **design)
    deflectors = made.population.deflectors
    assert deflectors is not None
    hosts = np.array(sorted({row["z_lens"] for row in rows}))
    fine = np.linspace(0.3, 2.5, 2000)
    rates = {z: np.interp(fine, deflectors.theta_e, deflectors.node_weights([z]) @ deflectors.rates) for z in hosts}
    total = sum(rate.sum() for rate in rates.values())
    w = np.array([row["weight"] for row in rows])
    z, theta_e = (np.array([row[name] for row in rows]) for name in ("z_lens", "theta_e_arcsec"))
    for z_high, theta_e_low in itertools.product((0.4, 0.6), (0.3, 0.8, 1.4)):
        member = (z < z_high) & (theta_e >= theta_e_low)
        p = float(np.average(member, weights=w))
        error = float(np.sqrt(np.sum((w * (member - p)) ** 2)) / w.sum())
        truth = sum(rate[fine >= theta_e_low].sum() for z, rate in rates.items() if z < z_high) / total
        assert abs(p - truth) < 4.5 * error


def test_a_rare_galaxy_counts_as_often_as_it_would_lens() -> None:
    config = InjectionConfig(**VDF)
    design = Design.of(config, Hosts.of(config, [0.3, 0.5, 0.8]))
    rates = {z: design.population.relative_rate({"z_lens": z}, 1.2) for z in (0.3, 0.5, 0.8)}
    assert sum(rates.values()) / 3 == pytest.approx(1)
    assert rates[0.3] > rates[0.8]


def test_every_cell_has_its_floor() -> None:
    design, rows = make(400, injections_per_galaxy=15, **VDF, **STRATIFIED)
    cells = design.proposals[TEST].cells
    assert len(cells) == 8 * 3 * 3
    for cell in cells:
        inside = [
            row
            for row in rows
            if row["lens_model"] == cell.lens_model
            and cell.theta_e[0] <= row["theta_e_arcsec"] < cell.theta_e[1]
            and cell.mag_r[0] <= row["src_mag_r"] < cell.mag_r[1]
        ]
        assert len(inside) >= 40, str(cell)


def test_shares_follow_the_population_where_floors_leave_them_free() -> None:
    shares = shares_with_floors(np.array([0.7, 0.29, 0.01]), 50, 1000)
    assert shares.sum() == pytest.approx(1)
    assert shares[2] * 1000 > 50
    assert shares[0] / shares[1] == pytest.approx(0.7 / 0.29)
    plenty = shares_with_floors(np.array([0.7, 0.29, 0.01]), 50, 1_000_000)
    assert plenty.tolist() == pytest.approx([0.7, 0.29, 0.01])


def test_a_floor_that_can_not_be_met_says_how_many_injections_it_needs() -> None:
    with pytest.raises(
        ConfigError, match=r"a floor of 500 in each of 24 cells can't be met: it needs 14,\d+ .* are 400"
    ):
        make(400, design="stratified", floor_per_cell=500)
    with pytest.raises(ConfigError, match=r"3 of 9 cells have no share .* SIS with theta_e 3 to 5 and source r"):
        make(
            1,
            population="table",
            theta_e_knots_arcsec=[0.3, 3.0, 5.0],
            theta_e_density=[1, 0, 0],
            design="stratified",
            cell_theta_e_edges_arcsec=[0.3, 1, 3, 5],
        )


def test_what_is_held_out_stands_in_test_regions_only_and_whole_there() -> None:
    held = {"hold_out_lens_models": ["SIS"], "hold_out_theta_e_arcsec": [1.0, 1.5]}
    design, rows = make(1000, injections_per_galaxy=6, **held)
    by_split = {split: [row for row in rows if row["region_split"] == split] for split in ("train", "val", "test")}
    assert all(by_split.values())
    for split in ("train", "val"):
        assert not [row for row in by_split[split] if row["is_held_out"]]
        assert not [r for r in by_split[split] if r["lens_model"] == "SIS" or 1.0 <= r["theta_e_arcsec"] < 1.5]
    share = np.mean([row["lens_model"] == "SIS" for row in by_split["test"]])
    assert share == pytest.approx(0.2, abs=0.04)
    assert np.mean([row["is_held_out"] for row in by_split["test"]]) > 0.3
    assert {design.split_of(row["region_id"]) == row["region_split"] for row in rows} == {True}
    assert len({row["region_id"]: row["region_split"] for row in rows}) == 50


def test_floors_hold_beside_what_is_held_out_and_weights_in_test_are_the_populations() -> None:
    design, rows = make(1000, injections_per_galaxy=14, hold_out_theta_e_arcsec=[1.0, 1.5], **VDF, **STRATIFIED)
    assert len(design.proposals[TRAIN].cells) == 6 * 3 * 3
    tested = [row for row in rows if row["region_split"] == "test"]
    p, error = estimates(tested)["theta_e below 1.2"]
    assert abs(p - float(design.population.theta_e.below(1.2))) < 6 * error


def test_nothing_left_beside_what_is_held_out_is_refused() -> None:
    with pytest.raises(ConfigError, match="takes every lens model there is"):
        make(1, hold_out_lens_models=["SIE", "SIS", "SIE_SHEAR"])
    with pytest.raises(ConfigError, match="theta_e outside hold_out_theta_e_arcsec can't be normalised"):
        make(1, hold_out_theta_e_arcsec=[0.1, 5.0])


def test_a_galaxy_without_redshift_has_the_assumed_one_where_the_population_asks() -> None:
    config = InjectionConfig(**VDF, lens_redshift_assumed=0.6)
    hosts = Hosts.of(config, [None, 0.4])
    assert (hosts.n_without_redshift, hosts.z_low, hosts.z_high) == (1, 0.4, 0.6)
    population = Design.of(config, hosts).population
    assert population.redshift_of({"z_lens": None}) == 0.6
    assert Design.of(InjectionConfig(), Hosts.of(InjectionConfig(), [None])).population.redshift_of({}) is None
    with pytest.raises(ConfigError, match=r"1 of 2 galaxies have a redshift that is not above 0, first \[-1.0\]"):
        Hosts.of(config, [0.4, -1.0])


def test_an_assumed_redshift_is_drawn_for_and_never_published_as_the_hosts(galaxy: dict[str, Any]) -> None:
    shares = {"fake_unlensed_share": 1.0, "hard_ring_share": 1.0, "null_flux_share": 1.0}
    config = InjectionConfig(**VDF, **shares, lens_redshift_assumed=0.6, injections_per_galaxy=4)
    made = []
    for known in (None, 0.6):
        design, host = Design.of(config, Hosts.of(config, [known, 0.4])), {**galaxy, "z_lens": known}
        made.append([*rows_of_galaxy(design, host), *null_flux_rows(design, host)])
    unknown, same = made
    assert {row["role"] for row in unknown} == {"control", "injection", "fake_unlensed", "hard_ring", "null_flux"}
    assert {row["z_lens"] for row in unknown} == {None}
    assert [row | {"z_lens": 0.6} for row in unknown] == same
    injections = [row for row in unknown if row["role"] == "injection"]
    assert min(row["z_source"] for row in injections) > 0.6
    assert min(row["sigma_v_km_s"] for row in injections) > config.sigma_v_low_km_s


def test_a_row_is_made_again_from_what_the_manifest_says_of_all_hosts() -> None:
    design, rows = make(30, **VDF, **STRATIFIED | {"floor_per_cell": 1}, injections_per_galaxy=45)
    hosts = Hosts.of(design.config, np.random.default_rng(1).uniform(0.25, 0.85, 30).tolist())
    again = Design.of(design.config, Hosts.from_attributes(hosts.as_attributes()))
    galaxy = {
        "galaxy_id": "g17", "region_id": "r17", "ra": None, "dec": None, "mag_r": 19.0,
        "axis_ratio": 0.8, "phi_rad": 0.3, "z_lens": next(row["z_lens"] for row in rows if row["galaxy_id"] == "g17"),
    }  # fmt: skip
    assert list(rows_of_galaxy(again, galaxy))[1:] == [row for row in rows if row["galaxy_id"] == "g17"]


def test_power_laws_can_be_a_family_that_training_never_sees() -> None:
    _, rows = make(600, injections_per_galaxy=4, share_epl=0.3, hold_out_lens_models=["EPL"])
    seen, tested = ([row for row in rows if (row["region_split"] == "test") is test] for test in (False, True))
    assert not [row for row in seen if row["lens_model"] == "EPL"]
    assert np.mean([row["lens_model"] == "EPL" for row in tested]) == pytest.approx(0.3, abs=0.05)
    assert all(row["is_held_out"] == (row["lens_model"] == "EPL") for row in tested)


GAP = {"population": "table", "theta_e_knots_arcsec": [0.3, 1, 1, 2, 2, 3], "theta_e_density": [1, 1, 0, 0, 1, 0]}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"grid_theta_e_arcsec": [0.1, 0.2, 1.0]}, "2 of 3 points of grid_theta_e_arcsec .* from 0.3 to 2.5: 0.1, 0.2"),
        ({"grid_theta_e_arcsec": [0.6, 2.6]}, "1 of 2 points of grid_theta_e_arcsec .*: 2.6"),
        ({"grid_source_mag": [20.0, 22.0, 30.0]}, "2 of 3 points of grid_source_mag .* from 20.5 to 29: 20.0, 30.0"),
        ({**GAP, "grid_theta_e_arcsec": [0.6, 1.5, 2.5]}, "1 of 3 points of grid_theta_e_arcsec .*: 1.5"),
    ],
)
def test_a_grid_point_where_the_population_has_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(1, design="grid", **settings)


def test_grid_points_at_the_ends_of_the_population_stand_for_what_is_next_to_them() -> None:
    _, rows = make(300, design="grid", grid_theta_e_arcsec=[0.3, 1.0, 2.0, 3.0], grid_source_mag=[20.5, 29.0], **GAP)
    assert {row["theta_e_arcsec"] for row in rows} == {0.3, 1.0, 2.0, 3.0}
    assert min(row["weight"] for row in rows) > 0


def test_no_galaxy_is_heavier_than_galaxies_are_and_no_source_is_beside_its_lens() -> None:
    _, rows = make(400)
    known = [row for row in rows if row["z_source"] is not None]
    assert len(known) > 390
    assert max(row["sigma_v_km_s"] for row in known) < 500.5
    assert min(row["z_source"] - row["z_lens"] for row in known) >= 0.05
