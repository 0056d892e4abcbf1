"""The map of a model's evidence lies where the model looks."""

import numpy as np
import pytest

from lens_pipeline.audits.evidence import evidence_png, share_gates
from lens_pipeline.audits.gate import Status
from lens_pipeline.audits.occlusion import Annulus, corners, evidence_map, occluded, share_inside

SIZE = 64
AROUND = Annulus(x=2.0, y=-1.0, radius=10.0, half_width=4.0)


def mapped(weight: np.ndarray) -> np.ndarray:
    """Evidence map of a model that adds up light with a weight, of a stamp with light everywhere."""
    stamp, background = np.ones((3, SIZE, SIZE), np.float32), np.zeros((3, SIZE, SIZE), np.float32)
    logits = (occluded(stamp, background) * weight).sum(axis=(1, 2, 3)).astype(np.float32)
    return evidence_map(logits, SIZE)


def test_each_patch_is_replaced_once_and_the_stamp_itself_comes_first() -> None:
    stamp, background = np.ones((2, SIZE, SIZE), np.float32), np.zeros((2, SIZE, SIZE), np.float32)
    stamps = occluded(stamp, background)
    assert len(stamps) == 1 + len(corners(SIZE)) == 1 + 15**2
    assert stamps[0].min() == 1
    assert {int((one == 0).sum()) for one in stamps[1:]} == {2 * 8 * 8}
    assert (stamps[1:].min(axis=0) == 0).all()


def test_evidence_of_a_model_that_looks_at_the_arc_lies_in_its_annulus_and_of_one_that_looks_at_a_corner_does_not() -> (
    None
):
    arc = AROUND.mask(SIZE).astype(float)
    corner = np.zeros((SIZE, SIZE))
    corner[:4, :4] = 1.0
    inside, outside = share_inside(mapped(arc), AROUND), share_inside(mapped(corner), AROUND)
    assert inside is not None
    assert inside > 0.55 > 3 * arc.mean()
    assert outside == 0.0
    # Twice the light in the same place has the same share; light that speaks against a lens takes none of it.
    assert share_inside(mapped(2 * arc), AROUND) == pytest.approx(inside)
    assert share_inside(mapped(arc - 5 * corner), AROUND) == pytest.approx(inside)


def test_a_model_that_looks_nowhere_has_no_share() -> None:
    assert share_inside(mapped(np.zeros((SIZE, SIZE))), AROUND) is None
    (share, area) = share_gates([mapped(np.zeros((SIZE, SIZE)))], [AROUND])
    assert (share.status, share.value, area.value) == (Status.not_measured, None, None)


def test_the_annulus_lies_around_its_host() -> None:
    y, x = np.nonzero(AROUND.mask(SIZE))
    r = np.hypot(x - 31.5 - 2.0, y - 31.5 + 1.0)
    assert 6 <= r.min() < 7 < 13 < r.max() <= 14


def test_shares_are_told_beside_the_area_and_drawn() -> None:
    maps = [mapped(AROUND.mask(SIZE) * (1.0 + number)) for number in range(7)]
    share, area = share_gates(maps, [AROUND] * 7)
    assert (share.status, share.n_galaxies) == (Status.ok, 7)
    assert share.value > 3 * area.value  # type: ignore[operator]
    assert area.value == pytest.approx(AROUND.mask(SIZE).mean())
    png = evidence_png([np.random.default_rng(0).normal(size=(3, SIZE, SIZE))] * 2, maps[:2], [AROUND] * 2, ["a", "b"])
    assert png.startswith(b"\x89PNG")
