"""Some of the long figures: ``python -m reliability lens_physics`` and ``arc_noise`` have all."""

import pytest

from reliability import arc_noise, lens_physics


@pytest.mark.parametrize("number", range(4))
def test_lenses_are_as_closed_forms_and_brute_force_say(number: int) -> None:
    case = lens_physics.lens(number)
    assert {name: value for name, value in case.largest.items() if value > lens_physics.SUBJECT.bounds[name]} == {}


def test_an_injection_adds_the_arc_and_the_arcs_poisson_noise_to_its_cutout_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arc_noise, "_STAMPS", 60)
    case = arc_noise.stamps(0)
    assert case.problem is None
    assert case.counts["pixels"] > 50_000
    assert case.largest["sigmas"] < 5
