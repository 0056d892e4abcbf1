"""What images of galaxies don't say, and what was done to them, in words: published with the sample that was cut out of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lens_pipeline.survey.conditions import BANDS, SEEING_OVER_R
from lens_pipeline.survey.config import ParentSampleConfig
from lens_pipeline.survey.galaxy_images import GalaxyImage
from lens_pipeline.survey.galaxy_table import Known
from lens_pipeline.survey.sky_grid import north_is_up


@dataclass
class Assumptions:
    """Gathered galaxy by galaxy.

    Attributes
    ----------
    said : set of str
        By the readers of the images.
    turned : int
        Galaxies whose angle was turned with their image.
    moved : dict
        By band, how many galaxies have a PSF image that was moved by how much, (x, y) pixels; see `PsfImage.recentred`.
    """

    said: set[str] = field(default_factory=set)
    turned: int = 0
    moved: dict[str, Counter[tuple[float, float]]] = field(default_factory=lambda: {band: Counter() for band in BANDS})

    def count(self, image: GalaxyImage, row: Known) -> None:
        """Take in a galaxy that was kept."""
        self.said |= set(image.assumed)
        for band, psf in zip(BANDS, image.psf, strict=True):
            if psf is not None and any(psf.moved_pixels):
                self.moved[band][psf.moved_pixels] += 1
        self.turned += row["phi_rad"] is not None and not north_is_up(image.sky_to_pixels)

    def lines(self, config: ParentSampleConfig, rows: Sequence[Known]) -> list[str]:
        """Return them in words, those of the whole sample first."""
        lines = _of_conditions(config, rows)
        if self.turned:
            known = sum(row["phi_rad"] is not None for row in rows)
            lines.append(
                f"{self.turned:,} of {known:,} galaxies with a phi_rad lie in images where north isn't up and east left within a "
                f"degree: phi_rad is turned by the image's WCS into its pixels' axes."
            )
        for band, moved in self.moved.items():
            if moved:
                x, y = max(moved, key=lambda move: np.hypot(*move))
                lines.append(
                    f"{moved.total():,} of {len(rows):,} galaxies have a PSF image in {band} that wasn't centred: recentred by "
                    f"({x:+.2f}, {y:+.2f}) pixels{' at most' if len(moved) > 1 else ''}."
                )
        return [*lines, *sorted(self.said)]


def _of_conditions(config: ParentSampleConfig, rows: Sequence[Known]) -> list[str]:
    said = []
    for band in BANDS:
        moffat = sum(not row[f"psf_is_measured_{band}"] and row[f"psf_fwhm_{band}"] is not None for row in rows)
        unknown = sum(row[f"psf_fwhm_{band}"] is None for row in rows)
        no_gain = sum(row[f"electrons_per_nanomaggy_{band}"] is None for row in rows)
        if moffat:
            said.append(
                f"{moffat:,} of {len(rows):,} galaxies have no PSF image in {band}: a Moffat of the survey's seeing."
            )
        if unknown:
            said.append(
                f"{unknown:,} of {len(rows):,} galaxies have no seeing in {band}: a Moffat of "
                f"{config.assumed_psf_fwhm_arcsec * SEEING_OVER_R[band]:.3g} arcsec; psf_fwhm_{band} stays null."
            )
        if no_gain:
            said.append(
                f"{no_gain:,} of {len(rows):,} galaxies have no gain in {band}: the arc's Poisson noise follows from the "
                f"measured sky noise and DECam's nominal dark sky."
            )
    if n := sum(row.get("ebv") is None for row in rows):
        said.append(f"{n:,} of {len(rows):,} galaxies have no ebv: their arcs aren't dimmed by Galactic dust.")
    return said
