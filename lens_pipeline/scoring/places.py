"""Scores for places on the sky: galaxies of a table, cut out of a survey's images, scored, and drawn with what became of each.

Belongs here: from a place to a stamp or the reason why there is none. Images are read in the survey room.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.evaluation.gallery import scored_png
from lens_pipeline.scoring.inputs import Offered, Refusal, judged, without_pixels
from lens_pipeline.scoring.model import Classifier, Ensemble
from lens_pipeline.scoring.predict import NOT_ASKED, Tally, predict_offered
from lens_pipeline.scoring.probability import Odds
from lens_pipeline.storage.atomic import refuse_unless_new, write_atomically
from lens_pipeline.survey.galaxy_images import CutoutRefusedError
from lens_pipeline.survey.galaxy_table import places_of, read_galaxies
from lens_pipeline.survey.image_judgement import must_be_usable
from lens_pipeline.survey.images_at import images_at
from lens_pipeline.survey.mirror import Galaxy, galaxy_ids_must_differ
from lens_pipeline.training.choices import Device

MOST_SHOWN = 48
_SCALE_TOLERANCE = 0.005
_UNIT = "nanomaggy"


@dataclass(frozen=True)
class Place:
    """What was found at a galaxy's place.

    Attributes
    ----------
    pixels : (band, y, x) float32 array or None
        The cutout, 0 where nothing was measured; None where no image holds the place.
    refusal : Refusal or None
        Why it isn't scored.
    """

    galaxy: Galaxy
    pixels: NDArray[np.float32] | None
    refusal: Refusal | None


def score_places(
    classifier: Classifier | Ensemble,
    table: str,
    images: str,
    out: Path,
    *,
    odds: Odds = NOT_ASKED,
    picture: Path | None = None,
    device: Device = Device.cpu,
) -> Tally:
    """Cut each galaxy of a table out of a survey's images and score it; one that can't be used has a reason and no score.

    Parameters
    ----------
    table : str
        FITS, CSV or ECSV with galaxy_id, ra and dec (ICRS degrees).
    images : str
        Folder of single exposures or of coadds, or the s3:// address of coadds: see docs/survey-images.md.
    out : Path
        PREDICTIONS, one row a galaxy; `task_id` is its galaxy_id.
    odds : FrozenOdds or NoOdds
        What makes probabilities of the logits, or why nothing does.
    picture : Path, optional
        PNG of the first 48 galaxies in the table's order, each with its score or reason.

    Raises
    ------
    ConfigError
        If the table, the images' folder or the folder to write to isn't there, or a file to write is.
    ContractError
        If the table or the images can't be used.
    """
    if picture is not None:
        refuse_unless_new(picture, what="the picture")
    contract = classifier.contract
    if contract.flux_unit != _UNIT:
        raise ConfigError(
            f"this model takes {contract.flux_unit}, cutouts are in {_UNIT}: score files of your own instead."
        )
    galaxies = places_of(read_galaxies(table), table)
    galaxy_ids_must_differ(galaxies)
    shown: list[Place] = []

    def offered() -> Iterator[Offered]:
        for row, place in enumerate(cut_places(galaxies, images, contract)):
            shown.extend([place] if row < MOST_SHOWN else [])
            yield _offered(table, row, place, contract)

    tally = predict_offered(classifier, offered(), out, n_inputs=1, device=device, odds=odds)
    if picture is not None:
        rows = pl.read_parquet(out).head(len(shown)).iter_rows(named=True)
        write_atomically(
            picture, scored_png([(place.pixels, _words(row)) for place, row in zip(shown, rows, strict=True)])
        )
    return tally


def cut_places(galaxies: list[Galaxy], images: str, contract: DatasetContract) -> Iterator[Place]:
    """Cut every galaxy as the model's stamps are, in their order."""
    how = (contract.bands, contract.stamp_size, contract.pixel_scale_arcsec, _SCALE_TOLERANCE)
    with images_at(images, *how) as cut:
        for galaxy in galaxies:
            pixels = None
            try:
                image = cut(galaxy)
                pixels = image.pixels
                must_be_usable(image)
                yield Place(galaxy, pixels, None)
            except CutoutRefusedError as error:
                yield Place(galaxy, pixels, Refusal(error.reason, error.detail))


def _offered(table: str, row: int, place: Place, contract: DatasetContract) -> Offered:
    name = place.galaxy.galaxy_id
    if place.refusal is not None:
        return without_pixels(table, row, name, place.refusal, contract)
    return judged(table, row, np.asarray(place.pixels)[None], contract, keys=[name])


def _words(row: dict[str, object]) -> tuple[str, str]:
    """Name and verdict of a row of PREDICTIONS."""
    return str(row["task_id"]), str(row["reason"]) if row["reason"] else f"logit {row['logit']:.2f}"
