"""The rendering of one fragment: rows of the manifest to a parquet file of stamps, and one of their arcs without noise.

Belongs here: a task of `engines.py` and what its files hold. A fragment's bytes depend on its job and on the settings alone.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import NOISELESS_ARCS, STAMPS
from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB, DatasetContract
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.storage.atomic import appearing, sha256_of
from lens_pipeline.storage.parquet import parquet_writer
from lens_pipeline.survey.config import Source, StampsConfig
from lens_pipeline.survey.cutouts import open_bad, open_cutouts
from lens_pipeline.survey.fakes import make_light
from lens_pipeline.survey.optics import crop
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import Pictures, open_pictures
from lens_pipeline.survey.render import Arc, Scene, make_stamp, observed_scene, simulated_scene

_BLOB, _ARC_BLOB = "stamp_npz", "arc_npz"
_ROW_GROUP = 256
_FURTHER = [(column.name, column.dtype) for column in STAMPS.further]
_MADE_HERE = [field for field in STAMPS.schema if field.name != _BLOB]
SCHEMA = pa.schema([*_MADE_HERE, *_FURTHER, STAMPS.schema.field(_BLOB)])
Row = dict[str, Any]


@dataclass(frozen=True)
class Renderer:
    """What a process must know to make any fragment.

    Attributes
    ----------
    cutouts : array or None
        Real galaxies' pixels, (galaxy, band, y, x), memory-mapped.
    bad : array or None
        Which of them are bad, likewise; None of a sample that was published without.
    psfs : array or None
        Their PSFs likewise, where these are known.
    pictures : mapping
        The real galaxies that the manifest lenses.
    """

    config: StampsConfig
    contract: DatasetContract
    source: Source
    cutouts: NDArray[np.float32] | None
    bad: NDArray[np.bool_] | None
    psfs: NDArray[np.float32] | None
    pictures: Pictures

    @classmethod
    def of(cls, settings: dict[str, Any]) -> "Renderer":
        """Make one from what `stamps.py` says as JSON."""
        return cls(
            config=StampsConfig.model_validate(settings["config"]),
            contract=DatasetContract.model_validate(settings["dataset_contract"]),
            source=Source(settings["source"]),
            cutouts=None if settings["cutouts"] is None else open_cutouts(Path(settings["cutouts"])),
            bad=None if settings["bad"] is None else open_bad(Path(settings["bad"])),
            psfs=None if settings["psfs"] is None else open_cutouts(Path(settings["psfs"])),
            pictures=open_pictures(settings["sources"]),
        )

    def write_fragment(self, job: dict[str, Any]) -> dict[str, Any]:
        """Render the rows of one fragment and write its files, whole or not at all.

        Parameters
        ----------
        job : dict
            ``path`` of the fragment, ``arcs`` of its arcs without noise or None, ``rows`` of the manifest, and ``galaxies``
            (galaxy_id to row of the parent sample).

        Returns
        -------
        dict
            ``path`` and ``arcs``: of each file ``rows`` and ``sha256``.
        """
        path, arcs_path = Path(job["path"]), job["arcs"] and Path(job["arcs"])
        n_arcs = 0
        with ExitStack() as files:
            writer = files.enter_context(_writer(path, SCHEMA, _BLOB))
            arcs_writer = (
                files.enter_context(_writer(arcs_path, NOISELESS_ARCS.schema, _ARC_BLOB)) if arcs_path else None
            )
            made = self.rows(job["rows"], job["galaxies"])
            while group := list(islice(made, _ROW_GROUP)):
                writer.write_table(pa.Table.from_pylist([row for row, _ in group], schema=SCHEMA))
                arcs = [arc for _, arc in group if arc is not None]
                if arcs_writer is not None and arcs:
                    arcs_writer.write_table(pa.Table.from_pylist(arcs, schema=NOISELESS_ARCS.schema))
                    n_arcs += len(arcs)
        written = {"path": {"rows": len(job["rows"]), "sha256": sha256_of(path)}}
        return written | ({"arcs": {"rows": n_arcs, "sha256": sha256_of(arcs_path)}} if arcs_path else {})

    def rows(self, rows: list[Row], galaxies: dict[str, Row]) -> Iterator[tuple[Row, Row | None]]:
        """Make the stamps of manifest rows, each host's scene once for all its rows that stand together.

        Yields
        ------
        (dict, dict or None)
            A row of the fragment, and of NOISELESS_ARCS where these are wanted and light was added.
        """
        for galaxy_id, group in groupby(rows, key=lambda row: row["galaxy_id"]):
            galaxy = galaxies[galaxy_id]
            scene = self.scene(galaxy)
            for row in group:
                arc = make_light(scene, row, self.pictures)
                yield self._row(scene, arc, galaxy, row), self._arc_row(arc, row)

    def scene(self, galaxy: Row) -> Scene:
        """Make the scene of a host."""
        if self.cutouts is not None:
            place = galaxy["cutout_row"]
            psfs = None if self.psfs is None else self.psfs[place]
            bad = None if self.bad is None else self.bad[place]
            return observed_scene(galaxy, self.cutouts[place], psfs, bad)
        return simulated_scene(
            galaxy,
            stamp_size=self.contract.stamp_size,
            seed=self.config.seed,
            neighbours_per_stamp=self.config.neighbours_per_stamp,
        )

    def _arc_row(self, arc: Arc, row: Row) -> Row | None:
        if not self.config.noiseless_arcs or not arc.pixels.any():
            return None
        pixels = crop(arc.pixels, self.contract.stamp_size).astype(np.float32)
        return {"task_id": row["task_id"], _ARC_BLOB: encode_stamp(pixels, self.contract)}

    def _row(self, scene: Scene, arc: Arc, galaxy: Row, row: Row) -> Row:
        pixels = make_stamp(scene, arc, stream(self.config.seed, "noise", row["task_id"]))
        # Where the seeing is null the kernel was assumed, and its width is nobody's measurement.
        widths = {
            f"psf_fwhm_used_{band}": None if galaxy[f"psf_fwhm_{band}"] is None else kernel.fwhm_arcsec
            for band, kernel in zip(self.contract.bands, scene.kernels, strict=True)
        }
        return {
            **row,
            **arc.measures,
            **widths,
            "cutout_ok": 1,
            "psfdepth_r": galaxy["psfdepth_r"],
            "brickname": galaxy.get("brickname"),
            "is_control": row["src_mag_r"] is None,
            "psfsize_r": galaxy["psf_fwhm_r"],
            "ebv": galaxy["ebv"],
            "bad_pixel_frac": galaxy.get("bad_pixel_frac") or 0.0,
            "stamp_size": self.contract.stamp_size,
            "bandset": "".join(self.contract.bands),
            "ab_zp_nmgy": NANOMAGGY_ZERO_POINT_AB,
            _BLOB: encode_stamp(pixels, self.contract),
        }


@contextmanager
def _writer(path: Path, schema: pa.Schema, blob: str) -> Iterator[pq.ParquetWriter]:
    """Write a parquet file that gets its name when it is whole, its blobs as they are: compressed already, and no two alike."""
    plain = [name for name in schema.names if name != blob]
    options = {
        "compression": dict.fromkeys(plain, "zstd") | {blob: "none"},
        "use_dictionary": plain,
        "write_statistics": plain,
    }
    with appearing(path) as file, parquet_writer(file, schema, **options) as writer:
        yield writer


def worker(settings: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return what makes a fragment of a job."""
    return Renderer.of(settings).write_fragment
