"""Settings of operating_point, completeness and evaluation_report."""

from itertools import pairwise
from typing import Self

from pydantic import Field, field_validator, model_validator

from lens_pipeline.contracts.completeness_tables import MOST_AXES
from lens_pipeline.contracts.config import Section
from lens_pipeline.evaluation.axes import (
    ARC_SNR,
    ARC_SNR_MATCHED,
    AXES,
    CONTINUOUS,
    DEPTH,
    PSF,
    SOURCE_MAG,
    THETA_E,
)
from lens_pipeline.evaluation.calibrators import Method

DEFAULT_GRIDS = (
    (THETA_E, PSF),
    (THETA_E, ARC_SNR_MATCHED),
    (THETA_E, SOURCE_MAG),
    (THETA_E, PSF, DEPTH),
)


class OperatingPointConfig(Section):
    """Which thresholds are fitted, when a rate counts as resolved, and what a score is worth as a probability."""

    target_fprs: list[float] = Field(
        [0.1, 0.01, 0.001], min_length=1, description="false-positive rates aimed at, each between 0 and 1"
    )
    max_contaminations: list[float] = Field(
        [0.5],
        description="largest shares of candidates that may be no lenses, at lens_prevalence, each between 0 and 1; may be empty",
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
    calibration: Method = Field(
        Method.beta,
        description="how a logit becomes a probability, fitted on val_calibrate: uncalibrated, temperature, beta or isotonic",
    )
    calibration_folds: int = Field(
        5, ge=2, le=100, description="folds of val_calibrate's galaxies that every calibration is judged by"
    )
    n_listed_controls: int = Field(
        50,
        ge=0,
        le=100_000,
        description="controls with the highest scores that are listed to be looked at, here and of test",
    )
    reliability_bins: int = Field(
        10, ge=2, le=1000, description="most bins of equal weight of the reliability diagrams, of 20 rows or more each"
    )
    lens_prevalence: float = Field(
        1.2e-3,
        gt=0,
        lt=1,
        description="share of lenses among galaxies such as the parent sample's; purity and p_lens are stated at it",
    )
    lens_prevalence_low: float = Field(3.5e-4, gt=0, lt=1, description="lower end of what that share may be")
    lens_prevalence_high: float = Field(7.7e-3, gt=0, lt=1, description="upper end of what that share may be")
    lens_prevalence_source: str = Field(
        "Sonnenfeld et al. 2018 (PASJ 70, S29): among 43,000 luminous red galaxies of BOSS in HSC imaging 15 definite and 36 "
        "highly probable lenses; the ends are the definite ones alone, and with the 282 possible ones",
        min_length=1,
        description="where the prevalence comes from, in words that are published beside every number that rests on it",
    )

    @field_validator("target_fprs", "max_contaminations")
    @classmethod
    def _rates_are_distinct_and_open(cls, rates: list[float]) -> list[float]:
        if any(not 0 < rate < 1 for rate in rates):
            raise ValueError(f"each target lies between 0 and 1, both left out: {rates}")
        if len(set(rates)) != len(rates):
            raise ValueError(f"a target is given twice: {rates}")
        return rates

    @model_validator(mode="after")
    def _prevalence_lies_within_its_range(self) -> Self:
        ends = (self.lens_prevalence_low, self.lens_prevalence, self.lens_prevalence_high)
        if not ends[0] <= ends[1] <= ends[2]:
            raise ValueError(
                f"lens_prevalence {ends[1]:g} must lie within lens_prevalence_low {ends[0]:g} and lens_prevalence_high "
                f"{ends[2]:g}; give all three, with their source"
            )
        return self


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
    edges: dict[str, list[float]] = Field(
        {},
        description="edges of the cells of other axes, by the axis's name, in its unit: {src_mag_r: [22, 23, 24, 25]}",
    )
    n_bins: int = Field(6, ge=1, le=100, description="cells of an axis that is cut at quantiles")
    grids: list[list[str]] = Field(
        [list(axes) for axes in DEFAULT_GRIDS],
        description="two to four axes each, which completeness is told against at once (completeness/grid)",
    )
    fit_axes: list[str] = Field(
        [THETA_E, PSF, DEPTH, SOURCE_MAG],
        max_length=6,
        description="axes of the smooth fit; one that nobody measured is left out, with a note; none: nothing is fitted",
    )
    fit_knots: int = Field(4, ge=2, le=12, description="knots of an axis of the smooth fit, both ends among them")
    fit_support_bins: int = Field(
        6,
        ge=1,
        le=20,
        description="boxes along each axis of the smooth fit; one without injections is outside its support",
    )
    max_fit_rows: int = Field(
        100_000, ge=1000, le=10_000_000, description="most injections that the smooth fit is made on, in whole galaxies"
    )
    min_n_eff: float = Field(
        100.0, gt=0, description="a cell, or a place of the smooth fit, with a smaller effective number is marked small"
    )

    @field_validator("theta_e_edges_arcsec", "psf_fwhm_edges_arcsec", "arc_snr_edges")
    @classmethod
    def _edges_rise(cls, edges: list[float]) -> list[float]:
        if len(edges) == 1 or any(high <= low for low, high in pairwise(edges)):
            raise ValueError(f"edges must rise and be none, two or more: {edges}")
        return edges

    @field_validator("edges")
    @classmethod
    def _edges_are_of_axes_and_rise(cls, edges: dict[str, list[float]]) -> dict[str, list[float]]:
        settled = {THETA_E: "theta_e_edges_arcsec", PSF: "psf_fwhm_edges_arcsec", ARC_SNR: "arc_snr_edges"}
        for axis, given in edges.items():
            if axis in settled:
                raise ValueError(f"the edges of {axis} are set by {settled[axis]}")
            if axis not in CONTINUOUS:
                others = ", ".join(name for name in CONTINUOUS if name not in settled)
                raise ValueError(f"{axis!r} is no axis that is cut at edges; there are {others}")
            if len(given) < 2 or any(high <= low for low, high in pairwise(given)):
                raise ValueError(f"edges of {axis} must rise and be two or more: {given}")
        return edges

    @field_validator("fit_axes")
    @classmethod
    def _fit_is_on_measured_quantities(cls, axes: list[str]) -> list[str]:
        unfit = [axis for axis in axes if axis not in CONTINUOUS]
        if unfit or len(set(axes)) != len(axes):
            raise ValueError(f"a fit has different axes among {', '.join(CONTINUOUS)}: {axes}")
        return axes

    @field_validator("grids")
    @classmethod
    def _grids_are_of_axes(cls, grids: list[list[str]]) -> list[list[str]]:
        for axes in grids:
            unknown = [axis for axis in axes if axis not in AXES]
            if unknown:
                raise ValueError(f"no axis {', '.join(map(repr, unknown))}; there are {', '.join(AXES)}")
            if len(set(axes)) != len(axes) or not 2 <= len(axes) <= MOST_AXES:
                raise ValueError(f"a grid has two to {MOST_AXES} different axes: {axes}")
        if len({tuple(axes) for axes in grids}) != len(grids):
            raise ValueError(f"a grid is given twice: {grids}")
        return grids


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
        description="confidence of the null test, by ranks that chance gives; 0.95 is red in 1 of 20 good runs",
    )
    n_gallery: int = Field(8, ge=0, le=48, description="stamps in each gallery of the report")

    @field_validator("tpr_at_fprs", "fpr_at_tprs", "partial_auc_max_fprs")
    @classmethod
    def _rates_lie_inside(cls, rates: list[float]) -> list[float]:
        if any(not 0 < rate < 1 for rate in rates) or len(set(rates)) != len(rates):
            raise ValueError(f"rates lie between 0 and 1, both left out, each once: {rates}")
        return rates
