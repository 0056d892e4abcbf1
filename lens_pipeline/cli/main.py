"""The command ``lens_pipeline``: what people type beside Dagster's own commands."""

import argparse
import importlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

from lens_pipeline.contracts.errors import ConfigError, PipelineError
from lens_pipeline.scoring.aliases import Alias
from lens_pipeline.storage.home import Home
from lens_pipeline.training.choices import Device

_BAD = 1
_CUT_SHORT = 128 + signal.SIGPIPE


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 fine, 1 something is wrong, 2 typed wrongly.

    Where the reader of a pipe has seen enough (``lens_pipeline summary | head``) it is 141, as of a tool that SIGPIPE ends.
    """
    try:
        try:
            parsed = _parsed(arguments)
            return int(parsed.run(parsed))
        except PipelineError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return _BAD
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads(sys.stdout):
            raise  # Of another pipe than the one that is printed to.
        # What is still buffered is flushed again at exit, and must find somebody who takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _CUT_SHORT


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Parse what was typed; inputs may stand on both sides of an option, which argparse by itself gives up on."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "inputs") or any(part.startswith("-") for part in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.inputs += rest
    return parsed


def _nobody_reads(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lens_pipeline", description="Beside Dagster's own commands.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    checked = commands.add_parser(
        "check", help="validate every section of a preset, look whether what it names is there, and run nothing"
    )
    checked.add_argument("preset", type=Path)
    checked.set_defaults(run=lambda parsed: _command("check").run(parsed.preset))
    shown = commands.add_parser(
        "summary", help="print what a preset's dataset has published: headline numbers and where"
    )
    shown.add_argument("preset", type=Path, nargs="?")
    shown.set_defaults(run=lambda parsed: _command("summary").run(_preset(parsed.preset)))
    asked = commands.add_parser(
        "doctor", help="GO or NO-GO: every check of what is published, each red with what to do"
    )
    asked.add_argument("preset", type=Path, nargs="?")
    _name_a_classifier(asked, version=False)
    asked.add_argument("--strict", action="store_true", help="a finding that blocks nothing is NO-GO as well")
    asked.add_argument("--verbose", action="store_true", help="list what is fine too")
    asked.set_defaults(
        run=lambda parsed: _command("doctor").run(_which(parsed), strict=parsed.strict, verbose=parsed.verbose)
    )
    watched = commands.add_parser("watch", help="a training as it goes, or as the last one went, in the terminal")
    watched.add_argument("preset", type=Path, nargs="?")
    watched.add_argument("--model", help="name of the model or member, by default the preset's, else default")
    watched.add_argument("--once", action="store_true", help="print how it stands, and end")
    watched.set_defaults(
        run=lambda parsed: _command("watch").run(_preset(parsed.preset), model=parsed.model, once=parsed.once)
    )
    diagnosed = commands.add_parser(
        "diagnose", help="why a training's metrics fell: saturation ties, collapse, overfitting, or a part evaluated"
    )
    diagnosed.add_argument(
        "file", type=Path, help="history.jsonl, a table of epochs (CSV, JSON), or scores (parquet, CSV)"
    )
    diagnosed.add_argument("--rows", type=int, help="rows that the evaluated split has, where the file doesn't tell")
    diagnosed.set_defaults(run=lambda parsed: _command("diagnose").run(parsed.file, n_split=parsed.rows))
    verified = commands.add_parser("verify", help="re-read every published byte and compare its hash")
    verified.add_argument("--dataset", help="only this dataset")
    verified.add_argument("--remote", action="store_true", help="read the objects at s3://, not their local copies")
    verified.set_defaults(run=lambda parsed: _command("verify").run(parsed.dataset, remote=parsed.remote))
    compacted = commands.add_parser("compact", help="publish a stamp_store anew, in full segments without holes")
    compacted.add_argument("--dataset", required=True, help="name of the dataset")
    compacted.set_defaults(run=lambda parsed: _command("compact").run(parsed.dataset, Home.from_environment()))
    _models(commands)
    pruned = commands.add_parser("prune", help="remove fetched objects from the cache, the longest unused first")
    pruned.add_argument(
        "--keep",
        type=_bytes,
        default=0,
        metavar="BYTES",
        help="leave at most so many; by default only what is being read",
    )
    pruned.set_defaults(run=lambda parsed: _command("prune").run(parsed.keep))
    documented = commands.add_parser("documents", help="write docs/tables.md, settings.md and models.md from the code")
    documented.add_argument("folder", type=Path, nargs="?", default=Path("docs"))
    documented.set_defaults(run=lambda parsed: _command("documents").run(parsed.folder))
    return parser


def _command(name: str) -> Any:
    """Import a command's module when it is asked for: together they import all there is, which takes seconds."""
    return importlib.import_module(f"lens_pipeline.cli.{name}")


def _preset(path: Path | None) -> dict[str, Any]:
    from lens_pipeline.defs.sections import load_preset

    return load_preset(path) if path is not None else {}


def _seeds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, as 1,2,3") from error


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of bytes")
    return int(text)


def _models(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Commands about models: better settings for one, and what trained ones say and are called."""
    trained = commands.add_parser(
        "train", help="train the models of a cross-validation or an ensemble, and evaluate their mean"
    )
    trained.add_argument("preset", type=Path)
    how = trained.add_mutually_exclusive_group(required=True)
    how.add_argument("--folds", type=int, metavar="K", help="a model for each of K folds of regions")
    how.add_argument("--seeds", type=_seeds, metavar="A,B,...", help="a model for each seed")
    trained.set_defaults(
        run=lambda parsed: _command("members").run(_preset(parsed.preset), folds=parsed.folds, seeds=parsed.seeds)
    )
    swept = commands.add_parser("sweep", help="search better settings for lens_classifier, and write them as a preset")
    swept.add_argument("preset", type=Path)
    swept.add_argument("--trials", type=int, help="trials in all, those of earlier starts counted; else the preset's")
    swept.add_argument("--out", type=Path, help="preset file to write the best setting to, beside the published one")
    swept.set_defaults(run=lambda parsed: _command("sweep").run(_preset(parsed.preset), parsed.trials, parsed.out))
    predicted = commands.add_parser("predict", help="score stamps in files: FITS, npz parquet, npz or npy")
    predicted.add_argument(
        "inputs",
        nargs="+",
        metavar="[PRESET] INPUT",
        help="files; one a band: 'name-{band}.fits', where * may stand for more than one name",
    )
    predicted.add_argument("--out", type=Path, required=True, help="parquet file that the scores are written to")
    _name_a_classifier(predicted)
    _take_an_alias(predicted)
    predicted.add_argument("--folder", type=Path, help="folder of a version of lens_classifier, wherever it is")
    predicted.add_argument("--flux-unit", help="unit of FITS files that have no BUNIT, e.g. nanomaggy")
    predicted.add_argument("--cut-centre", action="store_true", help="take the central pixels of larger images")
    predicted.add_argument(
        "--tta",
        action="store_true",
        help="score a stamp as the mean over its 8 turns and flips, as scores with tta does",
    )
    predicted.add_argument(
        "--prevalence",
        type=float,
        help="share of lenses among what is scored, for p_lens; by default what the model's operating point states",
    )
    predicted.add_argument(
        "--images",
        help="folder of single exposures or coadds, or s3:// address of coadds: INPUT is a table of galaxies to cut out of them",
    )
    predicted.add_argument("--picture", type=Path, help="PNG of these galaxies, each with its score or reason")
    predicted.add_argument("--device", type=Device, choices=list(Device), default=Device.cpu)
    predicted.set_defaults(run=_predict)
    listed = commands.add_parser("registry", help="list the versions of a model, and tell MLflow of them")
    listed.add_argument("preset", type=Path, nargs="?")
    _name_a_classifier(listed, version=False)
    listed.set_defaults(run=lambda parsed: _command("registry").list_versions(_which(parsed)))
    chosen = commands.add_parser("champion", help="make an evaluated version of a model the champion")
    chosen.add_argument("preset", type=Path, nargs="?")
    _name_a_classifier(chosen)
    chosen.add_argument("--despite", help="why it is champion although shortcut gates are red or unanswered")
    chosen.set_defaults(run=lambda parsed: _command("registry").choose(_which(parsed), despite=parsed.despite))
    shown_card = commands.add_parser("card", help="print the model card of a version of a model")
    shown_card.add_argument("preset", type=Path, nargs="?")
    _name_a_classifier(shown_card)
    _take_an_alias(shown_card)
    shown_card.add_argument("--json", action="store_true")
    shown_card.set_defaults(run=lambda parsed: _command("registry").show_card(_which(parsed), is_json=parsed.json))


def _name_a_classifier(command: argparse.ArgumentParser, *, version: bool = True) -> None:
    command.add_argument("--dataset", help="name of the dataset, instead of a preset")
    command.add_argument("--model", help="name of the model or ensemble, by default the preset's, else default")
    if version:
        command.add_argument("--version", help="version of the model, by default the current one")


def _take_an_alias(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--alias", type=Alias, choices=list(Alias), help="instead of --version, by default the candidate"
    )


def _which(parsed: argparse.Namespace) -> Any:
    alias, version = getattr(parsed, "alias", None), getattr(parsed, "version", None)
    return _command("predict").Which(parsed.preset, parsed.dataset, parsed.model, version, alias)


def _predict(parsed: argparse.Namespace) -> int:
    from lens_pipeline.cli import predict
    from lens_pipeline.scoring.fits_inputs import FitsOptions

    preset, inputs = predict.split_preset(parsed.inputs)
    which = predict.Which(preset, parsed.dataset, parsed.model, parsed.version, parsed.alias, parsed.folder)
    options = FitsOptions(flux_unit=parsed.flux_unit, cut_centre=parsed.cut_centre)
    if parsed.picture is not None and parsed.images is None:
        raise ConfigError("--picture draws galaxies that are cut out of --images: name these, or leave it out.")
    images = None if parsed.images is None else predict.Images(parsed.images, parsed.picture)
    chosen = {"tta": parsed.tta, "prevalence": parsed.prevalence, "images": images}
    return predict.run(which, inputs, parsed.out, options, parsed.device, **chosen)


if __name__ == "__main__":
    sys.exit(main())
