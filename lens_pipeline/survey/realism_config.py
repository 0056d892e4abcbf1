"""Settings of realism_report."""

from pydantic import Field, model_validator

from lens_pipeline.contracts.config import Section

ARC_QUANTITIES = ("src_mag_r", "arc_mag_r", "src_reff_arcsec", "theta_e_arcsec", "g_r", "r_z")


class RealismConfig(Section):
    """What stamps are held against."""

    compare_with: str = Field(
        "",
        description="another published dataset, of real galaxies, to hold this one's controls against; none where empty",
    )
    most_galaxies: int = Field(400, ge=20, le=100_000, description="galaxies of each dataset to look at")
    arc_reference: dict[str, list[float]] = Field(
        {},
        description="published distribution of real lenses: quantity (src_mag_r, arc_mag_r, src_reff_arcsec, theta_e_arcsec, "
        "g_r or r_z) to its 16th, 50th and 84th percentile; none where empty",
    )
    arc_reference_source: str = Field(
        "", max_length=400, description="where the numbers of arc_reference were published"
    )

    @model_validator(mode="after")
    def _reference_is_cited_and_in_order(self) -> "RealismConfig":
        if unknown := [name for name in self.arc_reference if name not in ARC_QUANTITIES]:
            raise ValueError(f"arc_reference has no {', '.join(unknown)}; there are {', '.join(ARC_QUANTITIES)}")
        wrong = [name for name, p in self.arc_reference.items() if len(p) != 3 or sorted(p) != p]
        if wrong:
            raise ValueError(f"arc_reference needs three rising percentiles (16, 50, 84 %) for {', '.join(wrong)}")
        if bool(self.arc_reference) != bool(self.arc_reference_source.strip()):
            raise ValueError(
                "arc_reference and arc_reference_source go together: numbers without a source are no reference"
            )
        return self
