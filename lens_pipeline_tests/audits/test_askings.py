"""A question about shortcuts can't be asked until its answer suits."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lens_pipeline.audits.askings import ASKED, Asking, earlier_askings, settings_asked, with_standing
from lens_pipeline.audits.config import ShortcutGatesConfig
from lens_pipeline.audits.gate import Gate, Kind, Status, gate_table
from lens_pipeline.contracts.catalogue import SHORTCUT_GATES
from lens_pipeline.contracts.checks import green, red
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

BLOB, MODEL = "arc_over_fake_blob", "default"


def gate(status: Status, n: int, kind: Kind = Kind.counterfactual, name: str = BLOB) -> Gate:
    reason = None if status is Status.ok else "as it was"
    return Gate(name=name, kind=kind, of="x", unit="logit", status=status, n_galaxies=n, value=0.01, reason=reason)


def config(n: int, **changes: float) -> ShortcutGatesConfig:
    return ShortcutGatesConfig.model_validate({"n_counterfactuals": n, **changes})


def classifier(home: Home, seed: int) -> Publication:
    with home.stage("tried", "lens_classifier", model=MODEL) as staging:
        staging.attributes["seed"] = seed
        return staging.commit()


def asked(
    home: Home, model: Publication, settings: ShortcutGatesConfig, gates: Sequence[Gate], *, passed: bool = True
) -> list[Gate]:
    """Publish answers as the asset does, after all that were published before."""
    earlier = earlier_askings(settings, home, [model], "tried", MODEL)
    told = with_standing(gates, settings, earlier)
    with home.stage("tried", "shortcut_gates", model=MODEL, inputs=[model]) as staging:
        staging.write_table(None, gate_table(told), SHORTCUT_GATES)
        staging.attributes[ASKED] = settings_asked(settings)
        made = staging.commit()
    no = red("nothing_but_arcs_separates", "no", wrong=["x"], why="", next_step="")
    home.conclude(made, [green("fine", "yes") if passed else no])
    return told


def status_of(gates: Sequence[Gate]) -> Status:
    return gates[0].status


def test_a_red_answer_stands_until_twice_as_many_galaxies_say_otherwise(tmp_path: Path) -> None:
    home = Home(tmp_path)
    model = classifier(home, 1)
    asked(home, model, config(128), [gate(Status.red, 128)])
    more = asked(home, model, config(192), [gate(Status.ok, 192)])[0]
    assert more.status is Status.red
    assert "as 256 galaxies, twice as many, must say otherwise, and these are 192" in str(more.reason)
    # What stands is the first answer, so that asking in between doesn't raise what is asked for.
    assert status_of(asked(home, model, config(255), [gate(Status.ok, 255)])) is Status.red
    assert status_of(asked(home, model, config(256), [gate(Status.ok, 256)])) is Status.ok


@pytest.mark.parametrize(
    ("again", "settings", "said"),
    [
        (gate(Status.undecided, 600), config(600), "as now it is undecided (as it was)"),
        (gate(Status.ok, 600), config(600, min_arc_snr=30), "about arcs with min_arc_snr 5, and this is about others"),
    ],
)
def test_no_answer_and_one_about_brighter_arcs_overrule_nothing(
    tmp_path: Path, again: Gate, settings: ShortcutGatesConfig, said: str
) -> None:
    home = Home(tmp_path)
    model = classifier(home, 1)
    asked(home, model, config(128), [gate(Status.red, 128)])
    told = asked(home, model, settings, [again])[0]
    assert told.status is Status.red
    assert said in str(told.reason)


def test_a_red_version_that_never_became_current_counts_and_so_does_the_order_of_all() -> None:
    home = Home.from_environment()
    model = classifier(home, 1)
    name = "injection_noise"
    asked(home, model, config(128), [gate(Status.red, 500, Kind.gate, name)], passed=False)
    asked(home, model, config(130), [gate(Status.ok, 1000, Kind.gate, name)])
    assert status_of(asked(home, model, config(140), [gate(Status.ok, 700, Kind.gate, name)])) is Status.red
    assert [found.red for found in earlier_askings(config(9000), home, [model], "tried", MODEL)] == [
        {name: 500},
        {},
        {},
    ]


def test_another_training_and_the_same_settings_again_start_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    model = classifier(home, 1)
    asked(home, model, config(128), [gate(Status.red, 128)])
    # The same settings give the same answer, unless the code that asks was mended.
    assert status_of(asked(home, model, config(128), [gate(Status.ok, 128)])) is Status.ok
    assert earlier_askings(config(128), home, [model], "tried", MODEL) == []
    assert status_of(asked(home, classifier(home, 2), config(130), [gate(Status.ok, 130)])) is Status.ok


def test_paths_are_compared_exactly_so_the_newest_answer_counts() -> None:
    asking = Asking("v", settings_asked(config(128)), {BLOB: 100})
    path = gate(Status.ok, 0, Kind.path)
    assert with_standing([path], config(200), [asking]) == [path]
