"""Injections stand beside the control of their own galaxy: in the metric, and in the galleries with what they add."""

import io

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread

from lens_pipeline.evaluation.gallery import Gallery, galleries
from lens_pipeline.evaluation.pairs import beside_controls, pair_metric
from lens_pipeline_tests.evaluation.synthetic import Pixels


def rows(logits: list[tuple[float, float]], *, named: bool = True) -> pl.DataFrame:
    """Galaxies with a control and an injection each, of these logits."""
    records = []
    for number, (control, injection) in enumerate(logits):
        shared = {"galaxy_id": f"g{number}", "theta_e_arcsec": 1.0, "arc_snr": 5.0 + number, "lens_model": "SIE"}
        pair = f"g{number}-c" if named else None
        records.append(shared | {"task_id": f"g{number}-c", "is_lens": False, "logit": control, "pair_id": None})
        records.append(shared | {"task_id": f"g{number}-i", "is_lens": True, "logit": injection, "pair_id": pair})
    schema = {"pair_id": pl.String}
    return pl.DataFrame(records, schema_overrides=schema).with_row_index("logical").cast({"logical": pl.Int64})


def shown(table: pl.DataFrame) -> dict[str, Gallery]:
    found = galleries(table, beside_controls(table), 0.0, "for FPR 0.1", Pixels(), 8)
    return {gallery.title.split(":")[0]: gallery for gallery in found}


@pytest.mark.parametrize("named", [True, False])
def test_the_control_is_the_one_that_is_named_or_else_one_of_the_galaxy(named: bool) -> None:
    table = rows([(0.0, 1.0), (2.0, 1.5)], named=named)
    assert beside_controls(table)["control_logit"].to_list() == [0.0, 2.0]


def test_of_several_controls_the_named_one_counts() -> None:
    table = rows([(0.0, 1.0)])
    other = table.filter(~pl.col("is_lens")).with_columns(task_id=pl.lit("g0-a"), logit=pl.lit(9.0))
    assert beside_controls(pl.concat([other, table]))["control_logit"].to_list() == [0.0]


def test_the_share_above_their_own_control_counts_a_tie_as_not_above() -> None:
    metric = pair_metric(beside_controls(rows([(0.0, 1.0)] * 30 + [(1.0, 0.0)] * 9 + [(1.0, 1.0)])), "test")
    assert metric.value == pytest.approx(0.75)
    assert metric.low < 0.75 < metric.high  # type: ignore[operator]
    assert metric.n_positives == 40


def test_without_a_control_there_is_no_share_but_a_reason() -> None:
    metric = pair_metric(beside_controls(rows([(0.0, 1.0)]).filter(pl.col("is_lens"))), "test")
    assert (metric.value, metric.status) == (None, "undefined")
    assert "no injection has a control" in str(metric.reason)


def test_galleries_show_the_best_the_worst_and_the_most_contradictory() -> None:
    found = shown(rows([(-1.0, 3.0), (-3.0, -2.0), (2.0, -1.0), (1.0, 0.5)]))
    keys = {title: [picture.task_id for picture in gallery.pictures] for title, gallery in found.items()}
    assert keys["Best"] == ["g0-i", "g3-i"]
    assert keys["Worst"] == ["g1-i", "g2-i"]
    assert keys["Brightest arcs missed"] == ["g2-i", "g1-i"]
    assert keys["Most contradictory pairs"] == ["g2-i", "g3-i"]
    assert keys["Most confident false alarms"] == ["g2-c", "g3-c", "g0-c", "g1-c"]
    facts = found["Most contradictory pairs"].pictures[0].facts
    assert facts.startswith("logit −1.00, its control 2.00, θ_E 1.00″, arc S/N 7")


def test_an_injection_is_shown_with_its_control_and_their_difference() -> None:
    class Flat(Pixels):
        """Every stamp has one bright pixel, and injections another."""

        def take(self, logical: np.ndarray) -> Pixels.Rows:
            pixels = np.zeros((logical.size, 3, 64, 64), np.float16)
            pixels[:, :, 30, 40] = 50
            pixels[logical % 2 == 1, :, 10, 20] = 50
            ones = np.ones((logical.size, 3), np.float32)
            return self.Rows(pixels, 0 * ones, ones)

    table = rows([(0.0, 1.0)])
    best = galleries(table, beside_controls(table), 0.5, "", Flat(), 1)[0].pictures[0]
    assert [panel.shows for panel in best.panels] == ["stamp", "control", "difference"]
    images = [imread(io.BytesIO(panel.png)) for panel in best.panels]
    lit = [np.argwhere(image[..., 0] > 0.5).tolist() for image in images]
    assert lit == [[[33, 40], [53, 20]], [[33, 40]], [[53, 20]]]


def test_an_injection_without_a_control_is_shown_alone() -> None:
    found = shown(rows([(0.0, 1.0)]).filter(pl.col("is_lens")))
    assert [len(picture.panels) for picture in found["Best"].pictures] == [1]
    assert found["Most contradictory pairs"].pictures == []
