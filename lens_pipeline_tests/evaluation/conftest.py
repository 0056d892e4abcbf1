"""Published synthetic chains, made once a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lens_pipeline.evaluation.completeness import CompletenessResult, build_completeness
from lens_pipeline.evaluation.config import CompletenessConfig, OperatingPointConfig, ReportConfig
from lens_pipeline.evaluation.operating_point import fit_operating_point
from lens_pipeline.evaluation.report import ReportResult, build_report
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.evaluation.synthetic import Chain, Pixels, Stamps, draw, publish


class Evaluated:
    """A chain with its operating point, and what is built from it on demand."""

    def __init__(self, chain: Chain, config: OperatingPointConfig | None = None) -> None:
        self.chain = chain
        with chain.stage("operating_point", chain.scores, chain.store) as staging:
            self.fit = fit_operating_point(
                config or OperatingPointConfig(), scores=chain.scores, store=chain.store, staging=staging
            )
            self.operating_point = staging.commit()

    def completeness(self, config: CompletenessConfig | None = None) -> tuple[CompletenessResult, Publication]:
        """Build and commit completeness."""
        chain = self.chain
        with chain.stage("completeness", chain.scores, self.operating_point, chain.store) as staging:
            result = build_completeness(
                config or CompletenessConfig(),
                scores=chain.scores,
                operating_point=self.operating_point,
                store=chain.store,
                splits=chain.splits,
                manifest=chain.manifest,
                parent=chain.parent,
                staging=staging,
            )
            return result, staging.commit()

    def report(self, config: ReportConfig | None = None, **more: Any) -> tuple[ReportResult, Publication]:
        """Build and commit the report; `more` is handed to build_report."""
        chain = self.chain
        _, completeness = self.completeness()
        with chain.stage("evaluation_report", chain.scores, self.operating_point, completeness) as staging:
            result = build_report(
                config or ReportConfig(n_bootstrap=300, n_gallery=2),
                scores=chain.scores,
                operating_point=self.operating_point,
                completeness=completeness,
                store=chain.store,
                splits=chain.splits,
                classifiers=[chain.classifier],
                pixels=Pixels(),
                staging=staging,
                **more,
            )
            return result, staging.commit()


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[[Stamps], Evaluated]:
    """Publish stamps and fit their operating point."""
    return lambda stamps: Evaluated(publish(stamps, tmp_path))


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """600 galaxies to calibrate on and 800 to test, a control and an injection each; 7 injections were never stored."""
    stamps = draw({"train": 60, "val_select": 60, "val_calibrate": 600, "test": 800})
    stamps.lost = [
        {"task_id": f"lost-{i}", "region_id": "test-r0", "lens_model": "SIE", "theta_e_arcsec": 1.1} for i in range(7)
    ]
    return Evaluated(publish(stamps, tmp_path_factory.mktemp("survey")))


@pytest.fixture(scope="session")
def ten_galaxies(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """10 test galaxies with 50 injections each that share one control; seeing and matched S/N unknown."""
    stamps = draw({"train": 10, "val_select": 5, "val_calibrate": 5, "test": 10}, injections_per_galaxy=50)
    stamps.columns["psf_fwhm_used_r"] = [None] * len(stamps.split)
    stamps.without = ("arc_snr_matched",)
    return Evaluated(publish(stamps, tmp_path_factory.mktemp("ten")))
