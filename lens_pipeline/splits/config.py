"""Settings of region_splits."""

from pydantic import Field, model_validator

from lens_pipeline.contracts.config import Section


class SplitConfig(Section):
    """How regions are split; what is left of `train` and `validation` is test."""

    seed: int = Field(0, ge=0, description="first seed tried")
    train: float = Field(0.4, gt=0, lt=1, description="share of regions to train on")
    validation: float = Field(0.2, gt=0, lt=1, description="share of regions to validate on, both halves together")
    calibrate_share: float = Field(
        0.5, gt=0, lt=1, description="share of validation kept for thresholds and calibration"
    )
    floor_rows: int = Field(5, ge=1, description="least rows of each stratum in each split")
    share_tolerance: float = Field(
        0.05, gt=0, le=1, description="most that a split's share of rows may differ from what was asked"
    )
    max_seeds: int = Field(1000, ge=1, le=1_000_000, description="seeds tried before giving up")
    honour_survey_split: bool = Field(True, description="use the input's own region_split where it has one")
    known_lenses: str = Field(
        "",
        description="lenscat's CSV: galaxies that it names are set aside, neither trained on nor taken for controls; or none",
    )
    known_lens_radius_arcsec: float = Field(
        3.0, gt=0, le=60, description="a galaxy this near to a known lens is one, arcsec (known_lenses)"
    )

    @model_validator(mode="after")
    def _something_is_left_for_test(self) -> "SplitConfig":
        if self.train + self.validation >= 1:
            raise ValueError(f"train {self.train} + validation {self.validation} leave nothing for test")
        return self
