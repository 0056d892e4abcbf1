"""Settings of parent_sample and stamps: where galaxies come from, how stamps are made.

Belongs here: names, ranges and defaults (those of the `simulated` preset). What a setting does stands where it is read; the
settings of injections have a file of their own.
"""

from collections.abc import Callable
from enum import StrEnum

from pydantic import Field, model_validator

from lens_pipeline.contracts.config import ReadWhen, Section, refuse_unread
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.storage.s3_address import refuse_as_folder
from lens_pipeline.survey.engines import Engine
from lens_pipeline.survey.injection_config import InjectionConfig

__all__ = ["InjectionConfig", "ParentSampleConfig", "Source", "StampsConfig"]


class Source(StrEnum):
    """Where the stamps of a dataset come from."""

    simulated = "simulated"
    real_cutouts = "real_cutouts"
    external_stamps = "external_stamps"
    legacy_catalogue = "legacy_catalogue"


class SelectionName(StrEnum):
    """Published selections of luminous red galaxies; `selections.py` has their cuts and sources."""

    lrg_dr8_2020 = "lrg_dr8_2020"
    lrg_dr8_2020_colours = "lrg_dr8_2020_colours"
    lrg_dr9_main = "lrg_dr9_main"
    lrg_dr9_main_colours = "lrg_dr9_main_colours"


class RegionKind(StrEnum):
    """What a region, the unit of splitting, is."""

    brick = "brick"
    healpix = "healpix"


_SIMULATED, _CUTOUTS, _OWN, _LEGACY = (
    Source.simulated,
    Source.real_cutouts,
    Source.external_stamps,
    Source.legacy_catalogue,
)


def _of(*sources: Source) -> tuple[str, Callable[["ParentSampleConfig"], bool]]:
    """Return the condition that a sample is of one of some sources, in words and as a question."""
    return f"source: {' or '.join(sorted(sources))}", lambda config: config.source in sources


READ_WHEN = (
    ReadWhen(
        *_of(_SIMULATED),
        ("seed", "n_galaxies", "n_bricks", "brick_scatter", "noise_correlation_low", "noise_correlation_high"),
    ),
    ReadWhen(*_of(_CUTOUTS), ("catalogue", "galaxy_prefix")),
    ReadWhen(*_of(_CUTOUTS, _OWN, _LEGACY), ("folder",)),
    ReadWhen(*_of(_OWN), ("match_radius_arcsec", "no_lens_models")),
    ReadWhen(
        *_of(_LEGACY),
        ("selection", "excluded_maskbits", "least_observations", "morphologies", "mag_r_low", "mag_r_high", "images"),
    ),
    ReadWhen(
        *_of(_CUTOUTS, _LEGACY),
        ("pixel_scale_tolerance", "assumed_psf_fwhm_arcsec", "region", "region_margin_arcsec", "known_lenses"),
    ),
    ReadWhen("region: healpix", lambda config: config.region is RegionKind.healpix, ("healpix_nside",)),
    ReadWhen("known_lenses", lambda config: bool(config.known_lenses), ("known_lens_radius_arcsec",)),
)


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
        description="folder of the FITS cubes, of FITS files of single galaxies, of a copy of the Legacy Surveys' coadd/ (or its "
        "s3:// address) or of single exposures with their survey-ccds*.fits (real_cutouts), folder or s3:// address of the "
        "parquet files (external_stamps), or folder of sweep or Tractor files, FITS or parquet (legacy_catalogue)",
    )
    catalogue: str = Field(
        "",
        description="table of galaxies, one row each in the cubes' order, optional; or galaxy_id, ra and dec of those to cut out "
        "of a survey's images (real_cutouts)",
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
    no_lens_models: list[str] = Field(
        [],
        description="further values of lens_model that mean no lens (external_stamps), e.g. RING, SPIRAL: each gets a "
        "false-positive rate of its own",
    )
    match_radius_arcsec: float = Field(
        1.0, gt=0, le=10, description="rows this close are one galaxy where no galaxy_id is given (external_stamps)"
    )
    accept_changes_from: str = Field(
        "",
        max_length=128,
        description="version of parent_sample after which files may be gone or changed, accepted once (external_stamps)",
    )
    selection: SelectionName = Field(
        SelectionName.lrg_dr9_main, description="published cuts that galaxies must meet (legacy_catalogue)"
    )
    images: str = Field(
        "",
        description="folder or s3:// address of the survey's images, as real_cutouts reads them, that the selected galaxies are "
        "cut out of; without it they have no pixels and no stamps (legacy_catalogue)",
    )
    excluded_maskbits: list[int] = Field(
        [], description="MASKBITS, by number, that no galaxy may have beside those of its selection (legacy_catalogue)"
    )
    least_observations: int = Field(
        0, ge=0, le=1000, description="exposures that each of g, r and z must have (legacy_catalogue)"
    )
    morphologies: list[str] = Field(
        [], description="values of TYPE that are kept, as DEV, SER; all where the list is empty (legacy_catalogue)"
    )
    mag_r_low: float = Field(
        0.0, ge=0, le=40, description="brightest galaxy in r, AB mag corrected for extinction (legacy_catalogue)"
    )
    mag_r_high: float = Field(
        40.0, ge=0, le=40, description="faintest galaxy in r, AB mag corrected for extinction (legacy_catalogue)"
    )
    region: RegionKind = Field(RegionKind.brick, description="unit of splitting (legacy_catalogue, real_cutouts)")
    healpix_nside: int = Field(
        64, ge=1, le=8192, description="HEALPix cells on a side of a base pixel, a power of 2 (region: healpix)"
    )
    region_margin_arcsec: float = Field(
        12.0,
        ge=0,
        le=600,
        description="galaxies this near to their region's border are left out: half a stamp's diagonal or more, so that no sky "
        "is seen from two regions; 0 keeps all (legacy_catalogue, real_cutouts)",
    )
    known_lenses: str = Field(
        "",
        description="table of known lenses in lenscat's layout, none of which becomes a host or control (legacy_catalogue, "
        "real_cutouts)",
    )
    known_lens_radius_arcsec: float = Field(
        3.0, gt=0, le=60, description="a galaxy this near to a known lens is one, arcsec (known_lenses)"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ParentSampleConfig":
        if self.noise_correlation_low > self.noise_correlation_high:
            raise ValueError("noise_correlation_low is above noise_correlation_high")
        if self.source is not Source.simulated and not self.folder:
            raise ValueError(f"source {self.source.value} needs a folder: set parent_sample.folder")
        try:
            refuse_as_folder(
                self.folder,
                "parent_sample.folder",
                or_address=self.source in (Source.external_stamps, Source.real_cutouts),
            )
            refuse_as_folder(self.images, "parent_sample.images", or_address=True)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        refuse_unread(self, READ_WHEN)
        if self.healpix_nside & (self.healpix_nside - 1):
            raise ValueError(f"healpix_nside = {self.healpix_nside} is no power of 2")
        if self.source is Source.legacy_catalogue:
            self._refuse_bad_regions()
        return self

    @property
    def narrow_margin(self) -> str | None:
        """What is wrong with a margin that is narrower than a stamp needs; None where it is wide enough, or none is asked for."""
        half_diagonal = self.stamp_size * self.pixel_scale_arcsec / 2**0.5
        if self.region_margin_arcsec == 0 or self.region_margin_arcsec >= half_diagonal:
            return None
        return (
            f"region_margin_arcsec = {self.region_margin_arcsec:g} is less than half a stamp's diagonal, {half_diagonal:.4g}: "
            f"stamps of two regions, and so of two splits, could show the same sky. Set it to {half_diagonal:.4g} or more"
        )

    def _refuse_bad_regions(self) -> None:
        if self.narrow_margin:
            raise ValueError(self.narrow_margin)
        if self.mag_r_low > self.mag_r_high:
            raise ValueError(f"mag_r_low = {self.mag_r_low:g} is above mag_r_high = {self.mag_r_high:g}")
        if unknown := [bit for bit in self.excluded_maskbits if not 0 <= bit < 31]:
            raise ValueError(f"excluded_maskbits are numbers of bits, 0 to 30, not {unknown}")


class StampsConfig(Section):
    """How stamps are rendered and written."""

    seed: int = Field(11, ge=0, le=2**31 - 1, description="seed of neighbours and noise")
    rows_per_fragment: int = Field(
        512,
        ge=1,
        le=1_000_000,
        description="most rows in a parquet file, which ends sooner where a row's key says so: 0.43 times as many on average",
    )
    workers: int = Field(
        0, ge=0, le=1024, description="rendering processes; 0 for one a core, 1 for none beside this one"
    )
    engine: Engine = Field(
        Engine.processes,
        description="who renders: processes of this machine, or ray (to be installed: lens_pipeline[ray]); the same bytes",
    )
    neighbours_per_stamp: float = Field(
        2.0, ge=0, le=50, description="mean number of unrelated galaxies and stars in a stamp (simulated)"
    )
    noiseless_arcs: bool = Field(
        False, description="whether the light that was added to each stamp is published too, before noise"
    )
