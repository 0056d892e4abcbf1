"""Settings of operating_point, completeness and evaluation_report."""

from itertools import pairwise

from pydantic import Field, field_validator

from lens_pipeline.contracts.config import Section


class OperatingPointConfig(Section):
    """Which false-positive rates thresholds are fitted for, and when a rate counts as resolved."""

    target_fprs: list[float] = Field(
        [0.1, 0.01, 0.001], min_length=1, description="false-positive rates aimed at, each between 0 and 1"
    )
    min_false_positives: int = Field(
        5, ge=1, description="least number of galaxies whose control must lie above a threshold for it to be resolved"
    )
    min_share_of_target: float = Field(
        0.5,
        gt=0,
        le=1,
        description="least share of the target rate that a threshold must reach; less: a tie block leaps over the target",
    )

    @field_validator("target_fprs")
    @classmethod
    def _rates_are_distinct_and_open(cls, rates: list[float]) -> list[float]:
        if any(not 0 < rate < 1 for rate in rates):
            raise ValueError(f"each target rate lies between 0 and 1, both left out: {rates}")
        if len(set(rates)) != len(rates):
            raise ValueError(f"a target rate is given twice: {rates}")
        return rates


class CompletenessConfig(Section):
    """The cells that completeness is counted in. An axis without edges is cut at quantiles of the test injections."""

    theta_e_edges_arcsec: list[float] = Field(
        [0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5], description="edges of the Einstein-radius cells, arcsec"
    )
    psf_fwhm_edges_arcsec: list[float] = Field(
        [], description="edges of the seeing cells, arcsec; empty: quantiles of the test injections"
    )
    arc_snr_edges: list[float] = Field(
        [], description="edges of the arc signal-to-noise (peak) cells; empty: quantiles of the test injections"
    )
    n_bins: int = Field(6, ge=1, le=100, description="cells of an axis that is cut at quantiles")
    min_n_eff: float = Field(100.0, gt=0, description="a cell with a smaller effective number is marked small")

    @field_validator("theta_e_edges_arcsec", "psf_fwhm_edges_arcsec", "arc_snr_edges")
    @classmethod
    def _edges_rise(cls, edges: list[float]) -> list[float]:
        if len(edges) == 1 or any(high <= low for low, high in pairwise(edges)):
            raise ValueError(f"edges must rise and be none, two or more: {edges}")
        return edges


class ReportConfig(Section):
    """How metrics get their intervals and what the page shows."""

    n_bootstrap: int = Field(1000, ge=200, le=100_000, description="bootstrap replicates over galaxies")
    seed: int = Field(0, ge=0, description="seed of the bootstrap")
    tpr_at_fprs: list[float] = Field(
        [1e-1, 1e-2, 1e-3, 1e-4, 1e-5], description="false-positive rates at which the ROC of test is read"
    )
    fpr_at_tprs: list[float] = Field(
        [0.5, 0.7, 0.85], description="true-positive rates at which the ROC of test is read"
    )
    partial_auc_max_fprs: list[float] = Field(
        [1e-1, 1e-2], description="false-positive rates up to which areas under the ROC are taken"
    )
    null_test_confidence: float = Field(
        0.999,
        ge=0.9,
        lt=1,
        description="confidence of the interval that must hold 0.5 in the null test; 0.95 is red in 1 of 20 good runs",
    )
    n_gallery: int = Field(8, ge=0, le=48, description="stamps in each gallery of the report")

    @field_validator("tpr_at_fprs", "fpr_at_tprs", "partial_auc_max_fprs")
    @classmethod
    def _rates_lie_inside(cls, rates: list[float]) -> list[float]:
        if any(not 0 < rate < 1 for rate in rates) or len(set(rates)) != len(rates):
            raise ValueError(f"rates lie between 0 and 1, both left out, each once: {rates}")
        return rates
