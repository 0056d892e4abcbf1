"""One rendering process: reads jobs as JSON lines, writes fragments, answers with JSON lines; and the same done in-process.

Belongs here: rows of one fragment to its parquet file. Run by `stamps.py` as ``python -m lens_pipeline.survey.fragment_worker``,
so that a worker never inherits threads or the main module of whoever started it, and ends when its input ends.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lens_pipeline.contracts.catalogue import INJECTION_MANIFEST, STAMPS
from lens_pipeline.contracts.dataset import NANOMAGGY_ZERO_POINT_AB, DatasetContract
from lens_pipeline.stamps.encode import encode_stamp
from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.parquet import parquet_writer
from lens_pipeline.survey.config import Source, StampsConfig
from lens_pipeline.survey.cutouts import open_cutouts
from lens_pipeline.survey.fakes import make_light
from lens_pipeline.survey.randomness import stream
from lens_pipeline.survey.real_sources import Pictures, open_pictures
from lens_pipeline.survey.render import Scene, make_stamp, observed_scene, simulated_scene

_BLOB = "stamp_npz"
_ROW_GROUP = 256
_FURTHER = pa.schema(
    [
        *(INJECTION_MANIFEST.schema.field(name) for name in ("fake_of", "twin", "feature")),
        ("brickname", pa.string()),
        ("is_control", pa.bool_()),
        ("psfsize_r", pa.float64()),
        ("ebv", pa.float64()),
        ("bad_pixel_frac", pa.float64()),
        ("stamp_size", pa.int64()),
        ("bandset", pa.string()),
        ("ab_zp_nmgy", pa.float64()),
    ]
)
_MADE_HERE = [field for field in STAMPS.schema if field.name != _BLOB]
SCHEMA = pa.schema([*_MADE_HERE, *_FURTHER, STAMPS.schema.field(_BLOB)])
# Blobs are compressed already, and no two are alike.
_PLAIN = [name for name in SCHEMA.names if name != _BLOB]
_BLOBS_AS_THEY_ARE = {
    "compression": dict.fromkeys(_PLAIN, "zstd") | {_BLOB: "none"},
    "use_dictionary": _PLAIN,
    "write_statistics": _PLAIN,
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Renderer:
    """What a process must know to make any fragment.

    Attributes
    ----------
    cutouts : array or None
        Real galaxies' pixels, (galaxy, band, y, x), memory-mapped.
    psfs : array or None
        Their PSFs likewise, where these are known.
    pictures : mapping
        The real galaxies that the manifest lenses.
    """

    config: StampsConfig
    contract: DatasetContract
    source: Source
    cutouts: NDArray[np.float32] | None
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
            psfs=None if settings["psfs"] is None else open_cutouts(Path(settings["psfs"])),
            pictures=open_pictures(settings["sources"]),
        )

    def write_fragment(self, job: dict[str, Any]) -> dict[str, Any]:
        """Render the rows of one fragment and write it.

        Parameters
        ----------
        job : dict
            ``path``, ``rows`` of the manifest, and ``galaxies`` (galaxy_id to row of the parent sample).

        Returns
        -------
        dict
            ``file``, ``rows`` and ``sha256``.
        """
        path = Path(job["path"])
        rows = job["rows"]
        made = self.rows(rows, job["galaxies"])
        with parquet_writer(path, SCHEMA, **_BLOBS_AS_THEY_ARE) as writer:
            while group := [row for _, row in zip(range(_ROW_GROUP), made, strict=False)]:
                writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
        return {"file": path.name, "rows": len(rows), "sha256": sha256_of(path)}

    def rows(self, rows: list[Row], galaxies: dict[str, Row]) -> Iterator[Row]:
        """Make the stamps of manifest rows, each host's scene once for all its rows that stand together."""
        for galaxy_id, group in groupby(rows, key=lambda row: row["galaxy_id"]):
            galaxy = galaxies[galaxy_id]
            scene = self.scene(galaxy)
            for row in group:
                yield self._row(scene, galaxy, row)

    def scene(self, galaxy: Row) -> Scene:
        """Make the scene of a host."""
        if self.cutouts is not None:
            place = galaxy["cutout_row"]
            return observed_scene(galaxy, self.cutouts[place], None if self.psfs is None else self.psfs[place])
        return simulated_scene(
            galaxy,
            stamp_size=self.contract.stamp_size,
            seed=self.config.seed,
            neighbours_per_stamp=self.config.neighbours_per_stamp,
        )

    def _row(self, scene: Scene, galaxy: Row, row: Row) -> Row:
        arc = make_light(scene, row, self.pictures)
        pixels = make_stamp(scene, arc, stream(self.config.seed, "noise", row["task_id"]))
        known = galaxy["psf_fwhm_r"] is not None
        widths = {
            f"psf_fwhm_used_{band}": kernel.fwhm_arcsec if known else None
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


def main() -> None:
    """Read the settings and then jobs, one JSON object a line, until the input ends; answer each with one line."""
    renderer = Renderer.of(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(renderer.write_fragment(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
