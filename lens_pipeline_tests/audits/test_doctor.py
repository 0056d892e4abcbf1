"""The doctor: GO only where everything is published, fresh, looked at and green; each NO-GO says what to do."""

import pyarrow as pa
import pytest

from lens_pipeline.audits.doctor import Examination, Finding, Status, examine
from lens_pipeline.cli.main import main
from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.doctor_tables import DOCTOR
from lens_pipeline.defs.assets.doctor import declared_checks
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline_tests.scoring.test_card import publish_gates

CHAIN = {"stamps": {"sound": True, "odd": False}, "stamp_store": {"whole": True}}
SOUND, ODD, WHOLE = green("sound", "all fine"), green("odd", "nothing odd", blocking=False), green("whole", "all there")
NO_SOUND = red("sound", "rows are off", wrong=["a", "b"], why="a test", next_step="mend the rows")


def publish(
    asset: str, *checks: Check, of: tuple[str, ...] = ("a",), inputs: list[Publication] | None = None
) -> Publication:
    home = Home.from_environment()
    with home.stage("sky", asset, inputs=inputs or []) as staging:
        staging.write_table(None, pa.table({"task_id": of}))
        made = staging.commit()
    home.conclude(made, list(checks))
    return made


def examined(*, strict: bool = False) -> Examination:
    return examine(Home.from_environment(), "sky", "default", CHAIN, strict=strict)


def reds(found: Examination) -> list[tuple[str, str]]:
    return [(one.asset, one.check) for one in found.of(Status.no_go)]


def only(found: Examination, check: str) -> Finding:
    (finding,) = [one for one in found.findings if one.check == check and one.status is not Status.go]
    return finding


def test_it_is_go_when_everything_is_published_fresh_and_green() -> None:
    publish("stamp_store", WHOLE, inputs=[publish("stamps", SOUND, ODD)])
    found = examined()
    assert found.go
    assert found.headline.startswith("GO  sky, model default: 0 no-go, 0 to look at")
    assert {one.check for one in found.findings} >= {"sound", "odd", "whole", "is_published", "inputs_are_current"}


def test_go_is_said_together_with_why_the_model_can_t_be_champion() -> None:
    publish("stamp_store", WHOLE, inputs=[publish("stamps", SOUND, ODD)])
    made = publish("lens_classifier", SOUND)
    found = examined()
    assert found.go
    assert found.headline.startswith(
        "GO (can't be champion: it was never asked whether it learned a shortcut)  sky, model default: "
    )
    home = Home.from_environment()
    publish_gates(home, made, "arc_over_fake_blob", kinds=("gate", "path"))
    assert "GO (can't be champion: 1 of its shortcut gates are red (arc_over_fake_blob))" in examined().headline
    publish_gates(home, made)
    assert examined().headline.startswith("GO  sky")


def test_what_was_never_published_is_no_go_with_the_command_that_makes_it() -> None:
    publish("stamps", SOUND, ODD)
    found = examined()
    assert reds(found) == [("stamp_store", "is_published")]
    assert "dagster asset materialize --select stamp_store" in only(found, "is_published").next_step


def test_a_newer_red_version_is_no_go_though_an_older_one_is_current() -> None:
    first = publish("stamps", SOUND, ODD)
    publish("stamp_store", WHOLE, inputs=[first])
    publish("stamps", NO_SOUND, ODD, of=("a", "b"))
    found = examined()
    assert reds(found) == [("stamps", "newest_passed")]
    finding = only(found, "newest_passed")
    assert (finding.count, finding.why, finding.next_step) == (2, "a test", "mend the rows")
    assert "rows are off" in finding.what


def test_a_version_made_of_what_is_not_current_any_more_is_no_go() -> None:
    first = publish("stamps", SOUND, ODD)
    publish("stamp_store", WHOLE, inputs=[first])
    second = publish("stamps", SOUND, ODD, of=("a", "b"))
    found = examined()
    assert reds(found) == [("stamp_store", "inputs_are_current")]
    finding = only(found, "inputs_are_current")
    assert first.version in finding.what
    assert second.version in finding.what
    assert "'stamps*'" in finding.next_step


def test_a_blocking_check_that_never_looked_is_no_go_and_an_advisory_one_is_to_look_at() -> None:
    publish("stamp_store", inputs=[publish("stamps", SOUND)])
    found = examined()
    assert reds(found) == [("stamp_store", "checks_were_run")]
    assert [(one.asset, one.check) for one in found.of(Status.look)] == [("stamps", "checks_were_run")]


def test_what_blocks_nothing_is_to_look_at_and_no_go_when_strict() -> None:
    odd = red("odd", "something is odd", wrong=["a"], why="w", next_step="n", blocking=False)
    publish("stamp_store", WHOLE, inputs=[publish("stamps", SOUND, odd)])
    assert examined().go
    assert [one.check for one in examined().of(Status.look)] == ["odd"]
    assert reds(examined(strict=True)) == [("stamps", "odd")]


def test_checks_that_were_never_finished_are_to_look_at() -> None:
    publish("stamp_store", WHOLE, inputs=[publish("stamps", SOUND, ODD)])
    with Home.from_environment().stage("sky", "stamps") as staging:
        staging.write_table(None, pa.table({"task_id": ["c"]}))
        staging.commit()
    assert [one.check for one in examined().of(Status.look)] == ["newest_passed"]


def test_its_table_keeps_its_contract() -> None:
    publish("stamps", SOUND, ODD)
    DOCTOR.validate(examined().table(), where="doctor")


def test_it_knows_every_asset_of_the_chain_and_their_checks() -> None:
    declared = declared_checks()
    assert list(declared)[:3] == ["parent_sample", "injection_manifest", "stamps"]
    assert declared["stamps"]["no_fingerprints"] is True
    assert "evaluation_report" in declared
    assert "doctor" not in declared


@pytest.mark.parametrize("typed", ["doctor", "doctor --dataset sky --verbose"])
def test_the_command_says_no_go_and_what_to_type_and_exits_with_1(
    typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("stamps", SOUND, ODD)
    assert main(typed.split()) == 1
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].startswith("NO-GO  ")
    assert "next: dagster asset materialize --select parent_sample -m lens_pipeline.definitions -c PRESET" in printed


def test_a_dataset_of_which_nothing_was_ever_made_is_refused_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish("stamps", NO_SOUND)
    assert main(["doctor", "--dataset", "sky"]) == 1
    assert "stamps has no version that passed" in capsys.readouterr().out
    assert main(["doctor", "--dataset", "nope"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "there is no dataset 'nope'" in said.err
    assert "there are: sky." in said.err
