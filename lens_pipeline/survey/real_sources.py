"""Real galaxies as sources: read once, dealt to splits, published with the manifest, and lensed from what was published.

Belongs here: what becomes of them between their catalogue (`hst_sources.py`) and the light of a row. A galaxy's picture is scaled
to the half-light radius that the row drew from the prior, and to its magnitudes: so real sources have the sizes and magnitudes
of the population, whatever near and bright galaxies the catalogue holds, and differ from Sersic profiles in shape alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lens_pipeline.contracts.catalogue import REAL_SOURCES
from lens_pipeline.contracts.errors import ConfigError, PipelineError, first_few
from lens_pipeline.storage.parquet import read_parquet
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.files_read import FilesRead
from lens_pipeline.survey.image_source import ImageSource
from lens_pipeline.survey.injection_config import InjectionConfig
from lens_pipeline.survey.light import Sersic
from lens_pipeline.survey.randomness import stream

if TYPE_CHECKING:
    from lens_pipeline.survey.hst_sources import HstSource

TABLE = "sources"
TEMPLATE_COLOURS, TABLE_COLOURS = "template", "table"


@dataclass(frozen=True)
class Picture:
    """A real galaxy, ready to be placed behind a lens.

    Attributes
    ----------
    image : ImageSource
        Of flux 1, at the origin, with the pixel scale that it was observed with.
    """

    image: ImageSource
    half_light_radius_arcsec: float

    def placed(self, row: Mapping[str, Any]) -> ImageSource:
        """Scale it to a row's half-light radius, turn it and put it where the row says, relative to the lens."""
        scale = self.image.pixel_scale_arcsec * row["src_reff_arcsec"] / self.half_light_radius_arcsec
        return replace(
            self.image,
            pixel_scale_arcsec=scale,
            phi_rad=row["src_phi_rad"],
            x_arcsec=row["src_x_arcsec"],
            y_arcsec=row["src_y_arcsec"],
        )


Pictures = Mapping[str, Picture]
NO_PICTURES: Pictures = {}


def source_of(row: Mapping[str, Any], pictures: Pictures) -> Sersic | ImageSource:
    """Make the source of a manifest row, with flux 1, placed relative to the lens.

    Parameters
    ----------
    pictures : mapping
        Picture of each source_id, as published with the manifest.

    Raises
    ------
    PipelineError
        If the row's real galaxy isn't among them.
    """
    source_id = row.get("source_id")
    if source_id is None:
        return Sersic.of_source(row)
    if source_id not in pictures:
        raise PipelineError(
            f"the real galaxy {source_id} isn't among the {len(pictures)} that came with the manifest "
            f"({first_few(sorted(pictures)) or 'none'}): render rows with the sources of their own manifest."
        )
    return pictures[source_id].placed(row)


def sources_path(manifest: Publication) -> str | None:
    """Where a manifest's real galaxies are published; None where it lenses none."""
    name = f"{TABLE}.parquet"
    return str(manifest.path(name)) if name in manifest.manifest.files else None


def open_pictures(path: str | None) -> Pictures:
    """Read published real galaxies by source_id."""
    if path is None:
        return NO_PICTURES
    return {row["source_id"]: _picture(row) for row in read_parquet(Path(path)).to_pylist()}


def _picture(row: Mapping[str, Any]) -> Picture:
    pixels = np.array(row["pixels"]).reshape(row["n_rows"], row["n_columns"])
    at_origin = ImageSource.of(
        pixels, flux=1.0, pixel_scale_arcsec=row["pixel_scale_arcsec"], phi_rad=0.0, x_arcsec=0.0, y_arcsec=0.0
    )
    return Picture(at_origin, row["half_light_radius_arcsec"])


def deal(source_ids: Sequence[str], shares: Mapping[str, float], seed: int) -> dict[str, tuple[str, ...]]:
    """Give each source to one split: in the order of a hash, to each split one, and of the others as its share says.

    Parameters
    ----------
    shares : mapping
        Split to its share of regions.

    Raises
    ------
    ConfigError
        If there are fewer sources than splits.
    """
    if len(source_ids) < len(shares):
        raise ConfigError(
            f"{len(source_ids)} usable real sources can't give each of {len(shares)} splits one of its own "
            f"({', '.join(shares)}): a source that two splits share would be tested on where it was trained on. Take a larger "
            "real_source_catalogue, or set hold_out_real_sources: true, so that only test regions have them."
        )
    counts = dict.fromkeys(shares, 1)
    for _ in range(len(source_ids) - len(shares)):
        counts[max(shares, key=lambda split: shares[split] / counts[split])] += 1
    hashed = sorted(source_ids, key=lambda name: float(stream(seed, "source_split", name).random()))
    ends = np.cumsum([0, *counts.values()])
    return {split: tuple(sorted(hashed[a:b])) for split, a, b in zip(counts, ends[:-1], ends[1:], strict=True)}


@dataclass(frozen=True)
class RealSources:
    """The usable galaxies of the catalogue that the settings name; none where no real source is asked for."""

    config: InjectionConfig
    catalogue: Path
    found: "tuple[HstSource, ...]"
    left_out: tuple[dict[str, str], ...]
    read: FilesRead

    @classmethod
    def of(cls, config: InjectionConfig) -> "RealSources":
        """Read them.

        Raises
        ------
        ConfigError
            If there is no such catalogue, or colours are given of galaxies that aren't in it or aren't usable.
        ContractError
            If the catalogue or its images can't be used.
        """
        path = Path(config.real_source_catalogue).expanduser().absolute()
        if config.real_source_share == 0:
            return cls(config, path, (), (), FilesRead())
        # FITS files take half a second to load, and every rendering process loads this module.
        from lens_pipeline.survey.galaxy_images import Quarantine
        from lens_pipeline.survey.hst_sources import read_hst_sources

        quarantine, read = Quarantine(), FilesRead()
        found = read_hst_sources(path, quarantine, on_open=read.add)
        unknown = sorted(set(config.real_source_colours) - {source.source_id for source in found})
        if unknown:
            raise ConfigError(
                f"real_source_colours names {len(unknown)} galaxies that aren't usable sources of {path.name}: "
                f"{first_few(unknown)}. It has {first_few([source.source_id for source in found], 12)}."
            )
        return cls(config, path, found, tuple(quarantine.rows), read)

    @property
    def ids(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(source.source_id for source in self.found)

    def publish(self, staging: Staging, dealt: Mapping[str, Sequence[str]]) -> None:
        """Write their light, and say where it came from; nothing where there are none.

        Parameters
        ----------
        dealt : mapping
            Split to the sources that are lensed in its regions.

        Raises
        ------
        StorageError
            If a file was replaced or rewritten since it was read.
        """
        if not self.found:
            return
        split_of = {source_id: split for split, names in dealt.items() for source_id in names}
        digests = {Path(str(file["path"])).name: file["sha256"] for file in self.read.entries()}
        records = [
            {
                "source_id": source.source_id,
                "split": split_of[source.source_id],
                "n_rows": source.light.shape[0],
                "n_columns": source.light.shape[1],
                "pixels": source.light.astype(np.float32).ravel(),
                **{name: getattr(source, name) for name in _AS_THEY_ARE},
                **dict(
                    zip(
                        ("g_r", "r_z"), self.config.real_source_colours.get(source.source_id, (None, None)), strict=True
                    )
                ),
                "sha256": digests[source.file],
            }
            for source in self.found
        ]
        staging.write_table(TABLE, pa.Table.from_pylist(records, schema=REAL_SOURCES.schema), REAL_SOURCES)
        staging.attributes["real_sources"] = {
            "files": digests,
            "left_out": list(self.left_out),
            "colours_from": self.config.real_source_colours_from or None,
        }
        staging.provenance["real_source_catalogue"] = str(self.catalogue)


_AS_THEY_ARE = ("pixel_scale_arcsec", "half_light_radius_arcsec", "redshift", "band", "mag", "file")
