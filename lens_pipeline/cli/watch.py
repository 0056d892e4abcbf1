"""``lens_pipeline watch``: a training as it goes, or as it went, read from its folder; the training itself is never touched."""

import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.errors import TrainingError
from lens_pipeline.defs.sections import RunConfig, resource_settings
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.home import DEFAULT_MODEL
from lens_pipeline.training.folder import TRIALS, RunFolder
from lens_pipeline.training.history import Event, History, is_held, read_from
from lens_pipeline.training.monitoring import training_checks
from lens_pipeline.training.progress import in_words, plain_line
from lens_pipeline.training.spec import RunSpec

_EVERY_SECONDS = 0.5
_EPOCHS_SHOWN = 12
# As defs.members names them.
_MEMBER = re.compile(r".+\.(fold-\d+-of-\d+|seed-\d+)")
_BLOCKS = "▁▂▃▄▅▆▇█"


def run(preset: RunConfig, *, model: str | None = None, once: bool = False, out: TextIO | None = None) -> int:
    """Show the newest training of a preset's dataset and model, of a member or a trial of it too, until it is over.

    Parameters
    ----------
    model : str, optional
        Name of the model, by default the preset's; a member's own name shows that member alone.
    once : bool
        Show how it stands and return.
    out : text stream, optional
        By default standard output; what is no terminal gets plain lines.

    Raises
    ------
    TrainingError
        If no training was ever begun there.
    """
    out = out or sys.stdout
    settings = resource_settings(preset, "workspace")
    workspace = Workspace(**settings)
    watched = Watched(find_run(workspace if model is None else workspace.of_model(model)))
    try:
        if not out.isatty():
            _plainly(watched, out, once=once)
        else:
            console = Console(file=out)
            if once:
                watched.read()
                console.print(view(watched))
            else:
                _live(watched, console)
    except KeyboardInterrupt:
        print("the training goes on; only the watching has ended", file=out)
    return 0


class Watched:
    """A run's folder, read on from where it was read last."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.history = History()
        self._offset = 0

    def read(self) -> Iterator[Event]:
        """Take in what came since the last call, and return it."""
        found = read_from(self.folder.history, self._offset) if self.folder.history.exists() else []
        for event, end in found:
            self.history.add(event)
            self._offset = end
        return iter([event for event, _ in found])

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come: it ended, or nobody is at work in the folder."""
        return self._has("finished") or not is_held(self.folder.lock)

    @property
    def state(self) -> str:
        """What the run is doing, for a person."""
        if self._has("finished"):
            return f"ended: {(self.history.ending or {})['why']}"
        if is_held(self.folder.lock):
            return "running" if self.history.started else "starting"
        why = "stopped on request" if self._has("stopped") else "broken off"
        return f"{why}; {self._how_to_go_on}"

    @property
    def silent_seconds(self) -> float | None:
        """Seconds since the last sign of life: an event, or a rank's heartbeat."""
        beats = [path.stat().st_mtime for path in self.folder.path.glob("attempts/*/heartbeat-rank-*")]
        if self.history.last is not None and "time" in self.history.last:
            beats.append(self.history.last["time"])
        return max(time.time() - max(beats), 0.0) if beats else None

    def red(self) -> list[Check]:
        """Return the checks of the curves that are red so far."""
        try:
            config = RunSpec.read(self.folder.specification).config
        except TrainingError:
            return []
        ended = self.history.ending["why"] if self._has("finished") and self.history.ending else None
        checks = training_checks(self.history.epochs, self.history, config, constant_loss=None, ended=ended)
        return [check for check in checks if not check.passed]

    @property
    def _how_to_go_on(self) -> str:
        if self.folder.path.parent.name == TRIALS:
            return "the same sweep again goes on, with this trial if it isn't over"
        model = self.folder.path.parent.parent.name
        again = "type the same lens_pipeline train again" if _MEMBER.fullmatch(model) else "materialize lens_classifier"
        return f"{again} to go on from its last checkpoint"

    def _has(self, ending: str) -> bool:
        return self.history.ending is not None and self.history.ending["event"] == ending


def find_run(workspace: Workspace) -> RunFolder:
    """Find the training that a launcher is at work in, else the one that was written to last.

    Those of the model are looked at, of models whose names begin with its name and a dot (members of a cross-validation or
    an ensemble), and of the trials of its sweeps.
    """
    home, dataset, model = workspace.home, workspace.dataset, workspace.model or DEFAULT_MODEL
    shelf = home.shelf(dataset, "lens_classifier", model)
    places = [shelf, *shelf.parent.glob(f"{model}.*")]
    found = [path for place in places for path in place.glob(".work/*/run.json")]
    found += home.shelf(dataset, "sweep", model).glob(f".work/*/{TRIALS}/*/run.json")
    if not found:
        raise TrainingError(
            f"no training of dataset {dataset!r}, model {model!r} was begun in {home} on this "
            "machine. Next: dagster asset materialize --select lens_classifier -m lens_pipeline.definitions -c PRESET"
        )
    folders = [RunFolder(path.parent) for path in found]
    return max(folders, key=lambda folder: (is_held(folder.lock), _written(folder)))


def view(watched: Watched) -> RenderableType:
    """Draw the run as it stands."""
    history, standing = watched.history, watched.history.standing
    head = Table.grid(padding=(0, 2))
    head.add_column()
    head.add_column(overflow="fold")
    head.add_row("run", str(watched.folder.path))
    silent = watched.silent_seconds
    quiet = "" if watched.is_over or silent is None else f", last sign of life {in_words(silent)} ago"
    head.add_row("state", watched.state + quiet + (f", started {history.starts} times" if history.starts > 1 else ""))
    if history.started is not None:
        head.add_row("rows", f"{history.started['train_rows']:,} to train on, {history.started['ranks']} ranks")
    parts: list[RenderableType] = [head]
    if standing is not None:
        head.add_row("done", _done(watched))
        head.add_row("", ProgressBar(total=max(standing.total, 1), completed=standing.done, width=50))
    if history.epochs:
        head.add_row("loss", "val_select " + _spark([epoch["val_loss"] for epoch in history.epochs]))
        parts.append(_epochs(history))
    parts += [Text(f"{check.name} is {check.state}: {check.what}", style="yellow") for check in watched.red()]
    return Group(*parts)


def _live(watched: Watched, console: Console) -> None:
    with Live(console=console, auto_refresh=False) as live:
        while True:
            # Asked before the reading: what was written before the end is read after it.
            over = watched.is_over
            watched.read()
            live.update(view(watched), refresh=True)
            if over:
                return
            time.sleep(_EVERY_SECONDS)


def _plainly(watched: Watched, out: TextIO, *, once: bool) -> None:
    print(watched.folder.path, file=out)
    while True:
        over = watched.is_over
        for event in watched.read():
            if line := plain_line(event):
                print(line, file=out, flush=True)
        if over or once:
            break
        time.sleep(_EVERY_SECONDS)
    if watched.history.standing is not None and not watched.history.ending:
        print(_done(watched), file=out)
    if not watched.history.ending or watched.history.ending["event"] != "finished":
        print(watched.state, file=out)
    for check in watched.red():
        print(check.message(), file=out)
    if watched.history.unreadable:
        print(f"{watched.history.unreadable:,} lines of {watched.folder.history} can't be read", file=out)


def _done(watched: Watched) -> str:
    history = watched.history
    standing, last = history.standing, next(iter(history.steps[-1:]), None)
    if standing is None:
        return ""
    words = f"{standing.done:,} of at most {standing.total:,} steps ({standing.share:.0%})"
    if last is not None and history.ending is None:
        words += f", epoch {last['epoch']}, loss {last['loss']:.4f}, {last['stamps_per_second']:,.0f} stamps/s"
    # Of what nobody is at work on, nobody knows when it ends.
    if standing.seconds_left and not watched.is_over:
        until = datetime.fromtimestamp(time.time() + standing.seconds_left).strftime("%H:%M")
        words += f", at most {in_words(standing.seconds_left)} left (until {until})"
    return words


def _epochs(history: History) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("epoch", "train", "val_select", "AUROC", "rate", "clipped", "waited", "stamps/s", "time", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for epoch in history.epochs[-_EPOCHS_SHOWN:]:
        table.add_row(
            str(epoch["epoch"]),
            _number(epoch.get("train_loss"), ".4f"),
            _number(epoch.get("val_loss"), ".4f"),
            _number(epoch.get("val_auroc"), ".4f"),
            _number(epoch.get("learning_rate"), ".2e"),
            _number(epoch.get("clipped_share"), ".0%"),
            _number(epoch.get("data_wait_share"), ".1%"),
            _number(epoch.get("stamps_per_second"), ",.0f"),
            in_words(epoch["seconds"]) if "seconds" in epoch else "-",
            "best" if epoch.get("best") else "",
        )
    return table


def _spark(values: list[float]) -> str:
    low, high = min(values), max(values)
    return "".join(_BLOCKS[round((len(_BLOCKS) - 1) * (value - low) / ((high - low) or 1.0))] for value in values)


def _number(value: float | None, shape: str) -> str:
    return "-" if value is None else format(value, shape)


def _written(folder: RunFolder) -> float:
    path: Path = folder.history if folder.history.exists() else folder.specification
    return path.stat().st_mtime
