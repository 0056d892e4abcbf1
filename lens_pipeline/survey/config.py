"""Settings of parent_sample and stamps: where galaxies come from, how stamps are made.

Belongs here: names, ranges and defaults (those of the `simulated` preset). What a setting does stands where it is read; the
settings of injections have a file of their own.
"""

from enum import StrEnum

from pydantic import Field, model_validator

from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.s3_address import refuse_as_folder
from lens_pipeline.survey.injection_config import InjectionConfig

__all__ = ["InjectionConfig", "ParentSampleConfig", "Source", "StampsConfig"]


class Source(StrEnum):
    """Where the stamps of a dataset come from."""

    simulated = "simulated"
    real_cutouts = "real_cutouts"
    external_stamps = "external_stamps"


class ParentSampleConfig(Section):
    """Galaxies that may host an arc."""

    source: Source = Field(Source.simulated, description="where galaxies or stamps come from")
    seed: int = Field(20240601, ge=0, le=2**31 - 1, description="seed of bricks and galaxies (simulated)")
    n_galaxies: int = Field(6000, ge=1, le=50_000_000, description="galaxies to draw (simulated)")
    n_bricks: int = Field(240, ge=1, le=200_000, description="bricks, the unit of splitting, to draw (simulated)")
    stamp_size: int = Field(64, ge=32, le=256, multiple_of=2, description="pixels on a side")
    pixel_scale_arcsec: float = Field(0.262, gt=0.01, le=2, description="nominal pixel scale, arcsec")
    brick_scatter: float = Field(
        0.03, ge=0, le=0.3, description="scatter of seeing and depth inside a brick, as a fraction (simulated)"
    )
    noise_correlation_low: float = Field(0.2, ge=0, le=0.45, description="least lag-1 pixel correlation (simulated)")
    noise_correlation_high: float = Field(0.4, ge=0, le=0.45, description="largest lag-1 pixel correlation (simulated)")
    folder: str = Field(
        "",
        description="folder of the FITS cubes, or folder or s3:// address of the parquet files (the two other sources)",
    )
    catalogue: str = Field(
        "", description="optional table of the cutouts' galaxies, one row each in the cubes' order (real_cutouts)"
    )
    galaxy_prefix: str = Field(
        "cutout", pattern=r"[A-Za-z0-9_]{1,40}", description="galaxies are PREFIX-0000 and so on (real_cutouts)"
    )
    pixel_scale_tolerance: float = Field(
        0.005,
        ge=0,
        le=0.1,
        description="accepted difference from the nominal pixel scale, as a fraction (real_cutouts)",
    )
    assumed_psf_fwhm_arcsec: float = Field(
        1.0, ge=0.3, le=4, description="PSF that r arcs are rendered with where the cutouts carry none, FWHM in arcsec"
    )
    lens_models: list[str] = Field(
        ["SIE", "SIS", "EPL", "SIE_SHEAR"],
        min_length=1,
        description="values of lens_model that mean a lens; CONTROL means none, anything else is quarantined",
    )
    match_radius_arcsec: float = Field(
        1.0, gt=0, le=10, description="rows this close are one galaxy where no galaxy_id is given (external_stamps)"
    )
    accept_changes_from: str = Field(
        "",
        max_length=128,
        description="version of parent_sample after which files may be gone or changed, accepted once (external_stamps)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ParentSampleConfig":
        if self.noise_correlation_low > self.noise_correlation_high:
            raise ValueError("noise_correlation_low is above noise_correlation_high")
        if self.source is not Source.simulated and not self.folder:
            raise ValueError(f"source {self.source.value} needs a folder: set parent_sample.folder")
        try:
            refuse_as_folder(self.folder, "parent_sample.folder", or_address=self.source is Source.external_stamps)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if self.source is Source.simulated and (self.folder or self.catalogue):
            raise ValueError("a simulated sample reads no folder and no catalogue: leave both out or change the source")
        return self


class StampsConfig(Section):
    """How stamps are rendered and written."""

    seed: int = Field(11, ge=0, le=2**31 - 1, description="seed of neighbours and noise")
    rows_per_fragment: int = Field(512, ge=1, le=1_000_000, description="rows in a parquet file")
    workers: int = Field(
        0, ge=0, le=1024, description="rendering processes; 0 for one a core, 1 for none beside this one"
    )
    neighbours_per_stamp: float = Field(
        2.0, ge=0, le=50, description="mean number of unrelated galaxies and stars in a stamp (simulated)"
    )
