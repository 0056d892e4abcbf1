"""Settings of stamp_store."""

from pydantic import Field

from lens_pipeline.contracts.config import Section


class StoreConfig(Section):
    """How stamps are decoded and laid out."""

    segment_bytes: int = Field(
        4 << 30, ge=1 << 20, le=4 << 30, description="most bytes of one segment file; a store is as many as it needs"
    )
    quarantine_budget: float = Field(
        0.001, ge=0, le=1, description="largest share of the rows read that may be quarantined before the check is red"
    )
    workers: int = Field(
        0,
        ge=0,
        le=256,
        description="decoders at work side by side: threads up to 4, processes above; 0 is one for each CPU",
    )
    batch_rows: int = Field(256, ge=1, le=8192, description="rows that one decoder holds in memory at a time")
    galaxy_match_arcsec: float = Field(
        1.0, gt=0, le=60, description="positions this near are one galaxy, where the input names none, arcsec"
    )
    incremental: bool = Field(
        True, description="keep what the current store has decoded and decode only rows of new or changed fragments"
    )
