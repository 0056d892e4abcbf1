"""What is known of the galaxy of a pair: rows of the parent sample brought to the pairs of a reader.

Belongs here: a pair with its host. What is asked of it is in `pair_evidence.py`, and beyond that in `audits/`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.storage.publication import Publication
from lens_pipeline.survey.conditions import BANDS
from lens_pipeline.survey.cutout_measures import sky_noise
from lens_pipeline.survey.cutouts import PSFS_FILE, open_cutouts
from lens_pipeline.survey.pair_evidence import dark_pixels
from lens_pipeline.survey.stamp_features import Mask
from lens_pipeline.survey.stamp_pairs import PairReader, Row, StampPair, parents_of

_CHUNK = 128
_COLUMNS = (
    "host_x_arcsec", "host_y_arcsec", "pixel_scale_arcsec", "ebv", "cutout_row", "noise_correlation",
    *(f"{name}_{band}" for name in ("psf_fwhm_assumed", "pixel_sigma", "electrons_per_nanomaggy") for band in BANDS),
)  # fmt: skip


@dataclass(frozen=True)
class HostedPair:
    """A pair and its galaxy.

    Attributes
    ----------
    host : dict
        What the parent sample knows of the galaxy; empty where it knows nothing.
    psf : (band, m, m) array or None
        Images of its PSFs, where these are known.
    """

    pair: StampPair
    host: Row
    psf: NDArray[np.float32] | None
    contract: DatasetContract

    @property
    def pixel_scale_arcsec(self) -> float:
        """Of the galaxy's own image, else as the contract says."""
        return float(self.host.get("pixel_scale_arcsec") or self.contract.pixel_scale_arcsec)

    def sigma(self) -> NDArray[np.float64]:
        """Noise of a pixel of the control, by band, nanomaggy; never 0."""
        tiny = np.finfo(float).tiny
        return np.array(
            [max(sky_noise(band, 0.0, 0.0, self.pixel_scale_arcsec)[1], tiny) for band in self.pair.pixels[1]]
        )

    def dark_pixels(self, sigma: NDArray[np.float64]) -> Mask | None:
        """Mark the pixels in which the two must be alike: see `pair_evidence.dark_pixels`."""
        return dark_pixels(self.pair, self.host, self.psf, self.contract, self.pixel_scale_arcsec, sigma)


def with_hosts(reader: PairReader, parent: Publication) -> Iterator[HostedPair]:
    """Bring to each pair of a reader what the parent sample knows of its galaxy."""
    psfs = open_cutouts(parent.path(PSFS_FILE)) if PSFS_FILE in parent.manifest.files else None
    pairs = reader.pairs()
    while chunk := list(islice(pairs, _CHUNK)):
        hosts = parents_of(parent, [pair.control.get("galaxy_id") for pair in chunk], _COLUMNS)
        for pair in chunk:
            host = hosts.get(str(pair.control.get("galaxy_id")), {})
            place = host.get("cutout_row")
            psf = None if psfs is None or place is None else np.asarray(psfs[place])
            yield HostedPair(pair, host, psf, reader.contract)
