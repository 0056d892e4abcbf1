"""Somebody who asked for it hears of a failure and of a red check, once, and a run never fails of telling them."""

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lens_pipeline.contracts.checks import Check, green, red
from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.definitions import build_definitions
from lens_pipeline.defs import notifications
from lens_pipeline.defs.notifications import Notifications, notify
from lens_pipeline.defs.publishing import Event, check_specs, publish
from lens_pipeline.defs.sections import validate_run_config
from lens_pipeline.defs.workspace import Workspace

FINE = green("fine", "all fine")
ADVICE = red("advice", "a bit off", wrong=["a"], why="w", next_step="look", blocking=False)
BROKEN = red("broken", "rows are off", wrong=["a"], why="w", next_step="mend the rows")


class NoSettings(Section):
    pass


class Server(HTTPServer):
    status = 200
    location = ""
    heard: list[tuple[str | None, dict[str, Any]]]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.headers["Authorization"], content))
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), _Handler)
    server.heard = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/secret-path"


def command(path: Path, ending: int = 0) -> str:
    script = f"import sys; open({str(path)!r}, 'a').write(sys.stdin.read() + chr(10)); sys.exit({ending})"
    return f'{sys.executable} -c "{script}"'


def run(findings: list[Check], fail: Exception | None = None, **settings: str) -> dg.ExecuteInProcessResult:
    blocking = [f.name for f in findings if f.blocking]
    advisory = [f.name for f in findings if not f.blocking]

    @dg.asset(check_specs=check_specs("made", *blocking, advisory=advisory))
    def made(context: dg.AssetExecutionContext, workspace: Workspace) -> Iterator[Event]:
        if fail is not None:
            raise fail
        yield from publish(
            context,
            workspace,
            NoSettings(),
            inputs=[],
            build=lambda staging: staging.write_json("it.json", {}),
            check=lambda _, __: findings,
            describe=lambda _, __: {},
        )

    resources = {"workspace": Workspace(), "notifications": Notifications(**settings)}
    return dg.materialize([made.with_hooks({notify})], resources=resources, raise_on_error=False)


def said(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_nobody_is_told_unless_somebody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Notifications, "tell", lambda *_: pytest.fail("nobody asked"))
    assert not run([BROKEN]).success


def test_a_command_hears_of_a_red_blocking_check_once_with_what_to_do(tmp_path: Path) -> None:
    result = run([FINE, BROKEN, ADVICE], command=command(tmp_path / "heard"))
    (notice,) = said(tmp_path / "heard")
    assert notice["event"] == "step_failed"
    assert notice["asset"] == "made"
    assert notice["run_id"] == result.run_id
    assert [(one["name"], one["blocking"]) for one in notice["checks"]] == [("broken", True), ("advice", False)]
    assert "mend the rows" in notice["reason"]


def test_a_red_advisory_check_of_a_step_that_succeeded_is_told(tmp_path: Path) -> None:
    assert run([FINE, ADVICE], command=command(tmp_path / "heard")).success
    (notice,) = said(tmp_path / "heard")
    assert (notice["event"], notice["checks"][0]["name"]) == ("checks_red", "advice")


def test_a_step_that_succeeds_all_green_is_not_told(tmp_path: Path) -> None:
    assert run([FINE], command=command(tmp_path / "heard")).success
    assert said(tmp_path / "heard") == []


def test_any_failure_of_a_step_is_told(tmp_path: Path) -> None:
    assert not run([], RuntimeError("a disk died"), command=command(tmp_path / "heard")).success
    (notice,) = said(tmp_path / "heard")
    assert "a disk died" in notice["reason"]


def test_a_webhook_gets_json_and_the_token_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "hush")
    run([BROKEN], webhook=address(server), token_variable="TOKEN_OF_MINE")
    ((token, notice),) = server.heard
    assert token == "Bearer hush"
    assert notice["asset"] == "made"


def test_a_token_is_not_sent_on_to_where_a_server_points(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_OF_MINE", "hush")
    server.status, server.location = 302, address(server)
    wrong = Notifications(webhook=address(server), token_variable="TOKEN_OF_MINE").tell({})
    assert wrong == ["the notification webhook answered 302"]
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"command": "no-such-command-anywhere"},
        {"command": f'{sys.executable} -c "raise SystemExit(3)"'},
        {"webhook": "http://127.0.0.1:9/secret-path"},
        {"webhook": "http://127.0.0.1:9/secret-path", "token_variable": "NOT_SET_ANYWHERE"},
    ],
)
def test_a_notice_that_cannot_be_delivered_fails_nothing_and_names_no_address(
    settings: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([ADVICE], **settings).success
    log = capfd.readouterr().err
    assert "the notification" in log
    assert "secret-path" not in log


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_COMMAND_SECONDS", 0.5)
    wrong = Notifications(command="sh -c 'sleep 60 & sleep 60'").tell({})
    assert "was killed" in wrong[0]


@pytest.mark.parametrize("webhook", ["file:///etc/passwd", "ftp://there/x", "nowhere", "https:///x", "http://[x"])
def test_only_the_web_is_a_webhook_and_a_preset_says_so_before_anything_runs(webhook: str) -> None:
    config = {"resources": {"notifications": {"config": {"webhook": webhook}}}}
    with pytest.raises(ConfigError, match="http:// or https://") as refused:
        validate_run_config(config)
    assert webhook not in str(refused.value)


def test_an_address_can_stand_in_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADDRESS_OF_MINE", address(server))
    config = {"resources": {"notifications": {"config": {"webhook": {"env": "ADDRESS_OF_MINE"}}}}}
    validate_run_config(config)

    @dg.asset
    def made() -> None:
        raise RuntimeError("a disk died")

    definitions = dg.Definitions(
        assets=[made.with_hooks({notify})], resources={"notifications": Notifications.configure_at_launch()}
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    assert not job.execute_in_process(run_config=config, raise_on_error=False).success
    assert len(server.heard) == 1


def test_every_asset_of_the_chain_has_the_hook_and_its_checks_still() -> None:
    definitions = build_definitions()
    assets = [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    assert all(asset.hook_defs == {notify} for asset in assets)
    assert definitions.resolve_asset_graph().asset_check_keys


def test_a_run_whose_process_was_killed_is_told_by_the_sensor_and_one_whose_step_spoke_is_not(tmp_path: Path) -> None:
    settings = {"resources": {"notifications": {"config": {"command": command(tmp_path / "heard")}}}}
    sensor = notifications.lost_runs_sensor(settings)
    assert sensor.default_status is dg.DefaultSensorStatus.STOPPED

    @dg.op
    def fails() -> None:
        raise RuntimeError("a disk died")

    @dg.job
    def lost() -> None:
        fails()

    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.create_run_for_job(lost)
        event = instance.report_run_failed(run, "the process is gone")
        context = dg.build_run_status_sensor_context("s", event, instance, run).for_run_failure()
        sensor(context)
        (notice,) = said(tmp_path / "heard")
        assert (notice["event"], notice["reason"]) == ("run_lost", "the process is gone")

        spoke = instance.get_run_by_id(lost.execute_in_process(instance=instance, raise_on_error=False).run_id)
        assert spoke is not None
        event = instance.report_run_failed(spoke)
        skipped = sensor(dg.build_run_status_sensor_context("s", event, instance, spoke).for_run_failure())
        assert "has told of its failure itself" in str(skipped)
        assert len(said(tmp_path / "heard")) == 1
