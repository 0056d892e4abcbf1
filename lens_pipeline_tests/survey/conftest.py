"""A small simulated survey, and ways to publish one's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits

from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, Source, StampsConfig
from lens_pipeline.survey.manifest import build_manifest
from lens_pipeline.survey.parent_sample import build_parent_sample
from lens_pipeline.survey.stamps import build_stamps

SMALL = ParentSampleConfig(n_galaxies=12, n_bricks=4)


class Survey:
    """Publishes survey assets into a home."""

    def __init__(self, home: Home, dataset: str = "test") -> None:
        self.home, self.dataset = home, dataset

    def _publish(self, asset: str, inputs: list[Publication], build: Callable[[Staging], Any]) -> Publication:
        with self.home.stage(self.dataset, asset, inputs=inputs) as staging:
            build(staging)
            return staging.commit()

    def parents(self, config: ParentSampleConfig = SMALL) -> Publication:
        return self._publish("parent_sample", [], lambda staging: build_parent_sample(config, staging))

    def manifest(self, parent: Publication, **settings: Any) -> Publication:
        config = InjectionConfig(**settings)
        return self._publish("injection_manifest", [parent], lambda staging: build_manifest(config, parent, staging))

    def stamps(self, parent: Publication, manifest: Publication, **settings: Any) -> Publication:
        config = StampsConfig(**{"workers": 1, **settings})
        build = lambda staging: build_stamps(config, parent, manifest, staging)  # noqa: E731
        return self._publish("stamps", [parent, manifest], build)

    def table(self, asset: str, rows: list[dict[str, Any]], attributes: dict[str, Any]) -> Publication:
        def build(staging: Staging) -> None:
            staging.attributes.update(attributes)
            staging.write_table(None, pa.Table.from_pylist(rows))

        return self._publish(asset, [], build)


@pytest.fixture
def survey(tmp_path: Path) -> Survey:
    return Survey(Home(tmp_path / "home"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Publication]:
    """Twelve simulated galaxies with two injections each, published once for all tests that only read them."""
    survey = Survey(Home(tmp_path_factory.mktemp("small")))
    parent = survey.parents()
    manifest = survey.manifest(parent, injections_per_galaxy=2)
    stamps = survey.stamps(parent, manifest, rows_per_fragment=16)
    return {"parent_sample": parent, "injection_manifest": manifest, "stamps": stamps}


@pytest.fixture
def galaxy(small: dict[str, Publication]) -> dict[str, Any]:
    """One simulated host."""
    row: dict[str, Any] = small["parent_sample"].read_table().to_pylist()[0]
    return row


@pytest.fixture
def cubes(tmp_path: Path) -> Callable[..., Path]:
    """Write FITS cubes of three galaxies; a test says what to do to them first."""

    def write(change: Callable[[str, fits.PrimaryHDU], None] | None = None) -> Path:
        folder = tmp_path / "cubes"
        folder.mkdir(exist_ok=True)
        axis = np.arange(71) - 35.0
        galaxy = np.exp(-np.hypot(axis[:, None], axis) / 4)
        for number, band in enumerate("grz"):
            noise = np.random.default_rng(number).normal(0, 0.003, (3, 71, 71))
            hdu = fits.PrimaryHDU((noise + (1 + number) * 0.1 * galaxy).astype(np.float32))
            hdu.header["BUNIT"], hdu.header["PIXSCALE"] = "nanomaggy", 0.263
            if change is not None:
                change(band, hdu)
            hdu.writeto(folder / f"{band}.fits", overwrite=True)
        return folder

    return write


def real_config(folder: Path, **settings: Any) -> ParentSampleConfig:
    return ParentSampleConfig(**{"source": Source.real_cutouts, "folder": str(folder), **settings})
