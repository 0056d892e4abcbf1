import numpy as np
import pyarrow.compute as pc
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from lens_pipeline.contracts.catalogue import PARENT_SAMPLE
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.simulated import simulated_parents


def test_more_galaxies_leave_the_first_ones_as_they_were() -> None:
    few = simulated_parents(ParentSampleConfig(n_galaxies=20, n_bricks=5))
    many = simulated_parents(ParentSampleConfig(n_galaxies=40, n_bricks=5))
    assert many.slice(0, 20).equals(few)
    assert not simulated_parents(ParentSampleConfig(n_galaxies=20, n_bricks=5, seed=1)).equals(few)


def test_bricks_lie_on_the_footprint_and_galaxies_in_their_brick() -> None:
    table = simulated_parents(ParentSampleConfig(n_galaxies=300, n_bricks=60))
    assert 40 <= len(pc.unique(table["region_id"])) <= 60
    ra, dec = table["ra"].to_numpy(), table["dec"].to_numpy()
    assert (dec.min() >= -20.25, dec.max() <= 32.25) == (True, True)
    latitude = SkyCoord(ra * units.deg, dec * units.deg).galactic.b.deg
    assert np.abs(latitude).min() > 17.5
    for brick in pc.unique(table["region_id"]).to_pylist():
        inside = table.filter(pc.equal(table["region_id"], brick))["dec"].to_numpy()
        assert np.ptp(inside) <= 0.25


def test_galaxies_of_a_brick_share_seeing_and_depth_but_for_a_little_scatter() -> None:
    table = simulated_parents(ParentSampleConfig(n_galaxies=200, n_bricks=4))
    log_seeing = np.log(table["psf_fwhm_r"].to_numpy())
    bricks = table["region_id"].to_numpy(zero_copy_only=False)
    within = np.mean([log_seeing[bricks == brick].std() for brick in set(bricks)])
    assert within == pytest.approx(0.03, rel=0.25)
    assert (table["psf_fwhm_g"].to_numpy() / table["psf_fwhm_r"].to_numpy()).mean() == pytest.approx(1.05, abs=0.02)


def test_the_published_sample_says_its_source_and_what_its_stamps_will_be(small: dict[str, Publication]) -> None:
    parent = small["parent_sample"]
    PARENT_SAMPLE.validate(parent.read_table(), where="the sample")
    assert parent.attributes["source"] == "simulated"
    assert parent.attributes["dataset_contract"]["stamp_size"] == 64
