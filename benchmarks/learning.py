"""What models learn in equal time: ``python -m benchmarks.learning [--seconds 150]``.

Each model is trained on the default survey from three seeds, for as many epochs as fit the same CPU time, and judged on test by
the pipeline's own report. Runs that stand are not made again, so it can be stopped and goes on. Writes the table in
docs/training.md and docs/images/learning.png.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks.harness import RESULTS, machine
from lens_pipeline.defs.members import (
    EVALUATION,
    Group,
    Member,
    evaluation_config,
    materialize,
    published,
    run_config_of,
)
from lens_pipeline.defs.sections import RunConfig, load_preset
from lens_pipeline.defs.workspace import Workspace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.folder import RunFolder
from lens_pipeline.training.rank import trainer_for
from lens_pipeline.training.run import prepare_run
from lens_pipeline.training.spec import RunSpec
from lens_pipeline.training.world import joined

ROOT = Path(__file__).parent.parent
PAGE, IMAGE = ROOT / "docs" / "training.md", ROOT / "docs" / "images" / "learning.png"
FILE = RESULTS / "learning" / "learning.json"
_PRESET = ROOT / "presets" / "simulated.yaml"
_MODELS = ("test_resnet", "resnet10t", "test_convnext")
_SEEDS = (1, 2, 3)
_SURVEY = ("parent_sample", "injection_manifest", "stamps", "stamp_store", "region_splits")
_ONE_CORE = {"world_size": 1, "threads_per_rank": 1}
_BEGIN, _END = "<!-- learning: written by python -m benchmarks.learning -->", "<!-- end of learning -->"
_STEPS = 8


def main() -> None:
    """Train and judge what isn't there yet, then write the table and the plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0, help="CPU seconds of training for each run")
    chosen = parser.parse_args()
    preset = load_preset(_PRESET)
    workspace = _workspace(preset, "default")
    if workspace.open_if_there("region_splits") is None:
        materialize(_SURVEY, run_config_of(preset, Member("default", {})))
    found = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    for model in _MODELS:
        settings = {**_ONE_CORE, "model": model}
        cost = next((run["cpu_seconds_an_epoch"] for run in found if run["model"] == model), None)
        cost = cost or _epoch_cost(workspace, settings)
        epochs = max(2, round(chosen.seconds / cost))
        for seed in _SEEDS:
            if any((run["model"], run["seed"], run["epochs"]) == (model, seed, epochs) for run in found):
                continue
            member = Member(
                f"learning.{model}.seed-{seed}", {**settings, "seed": seed, "epochs": epochs, "patience": epochs}
            )
            print(f"{member.model}: {epochs} epochs of {cost:.1f} CPU s", flush=True)
            found = [run for run in found if (run["model"], run["seed"]) != (model, seed)]
            found.append(
                {"model": model, "seed": seed, "epochs": epochs, "cpu_seconds_an_epoch": cost, **_run(preset, member)}
            )
            FILE.parent.mkdir(parents=True, exist_ok=True)
            FILE.write_text(
                json.dumps({"seconds": chosen.seconds, "machine": machine(), "runs": found}, indent=1) + "\n"
            )
    write_page()
    print(f"written: {PAGE}, {IMAGE}")


def _workspace(preset: RunConfig, model: str) -> Workspace:
    return Workspace(**{**preset["resources"]["workspace"]["config"], "model": model})


def _epoch_cost(workspace: Workspace, settings: dict[str, Any]) -> float:
    """CPU seconds of an epoch in one thread: training and judging, from a few batches of each."""
    store = workspace.open("stamp_store")
    splits = workspace.open_made_from("region_splits", "stamp_store", store.version)
    config = TrainingConfig.model_validate(settings)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = RunSpec.read(prepare_run(config, store, splits, folder / "run"))
        torch.set_num_threads(1)
        with _a_rank_of_its_own(), joined(config, folder) as world:
            trainer = trainer_for(spec, RunFolder(folder / "run"), world, lambda epoch, step: None, folder)
            trainer.take_step.begin(0)
            batches = trainer.loader.training_batches(trainer.sampler, trainer.augmentation, epoch=0, rank=0, world=1)
            taken = list(islice(batches, 1 + _STEPS))
            trainer.step(0, taken[0])
            began = time.process_time()
            for batch in taken[1:]:
                trainer.step(0, batch)
            trained = (time.process_time() - began) / sum(batch.n for batch in taken[1:])
            judged = trainer.take_step.judged.eval()
            pixels = torch.zeros(256, *spec.contract.stamp_shape)
            began = time.process_time()
            with torch.inference_mode():
                judged(pixels)
            scored = (time.process_time() - began) / len(pixels)
            return float(trained * len(trainer.rows.train) + scored * len(trainer.rows.validation))


@contextmanager
def _a_rank_of_its_own() -> Iterator[None]:
    """Be the only rank for a while; the runs that follow are started by torchrun, which tells them who they are."""
    before = dict(os.environ)
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _run(preset: RunConfig, member: Member) -> dict[str, Any]:
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    if published(preset, member) is None:
        materialize(["lens_classifier"], run_config_of(preset, member))
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    materialize(EVALUATION, evaluation_config(preset, Group(member.model, ())))
    workspace = _workspace(preset, member.model)
    test = {
        row["metric"]: {key: row[key] for key in ("value", "low", "high", "n_positives", "n_negatives")}
        for row in workspace.open("evaluation_report").read_table().to_pylist()
        if row["split"] == "test"
        and row["stratum"] == "all"
        and row["metric"] in ("auroc", "log_loss", "average_precision")
    }
    history = _history(workspace.open("lens_classifier"))
    cpu = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    return {"cpu_seconds_of_the_step": round(cpu, 1), "test": test, "val_loss": history}


def _history(classifier: Publication) -> list[float]:
    return [float(value) for value in classifier.read_table(None, ["val_loss"])["val_loss"].to_pylist()]


def write_page() -> None:
    """Write the table and the plot from the results."""
    result = json.loads(FILE.read_text())
    runs = result["runs"]
    auroc = runs[0]["test"]["auroc"]
    lines = [
        f"Each run had {result['seconds']:g} CPU seconds of training on one core ({result['machine']}), in whole epochs; "
        "the mean of its seeds, and lowest to highest. Test has "
        f"{auroc['n_positives']:,} injections and {auroc['n_negatives']:,} controls; a run's own 95 % interval is wider than the "
        "spread of its seeds.",
        "",
        "| model | seeds | epochs | CPU s an epoch | test AUROC | test NLL | 95 % interval of AUROC, first seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(run["model"] for run in runs):
        own = [run for run in runs if run["model"] == model]
        area = own[0]["test"]["auroc"]
        lines.append(
            f"| `{model}` | {len(own)} | {own[0]['epochs']} | {own[0]['cpu_seconds_an_epoch']:.1f} | {_spread(own, 'auroc')} | "
            f"{_spread(own, 'log_loss')} | {area['low']:.4f} to {area['high']:.4f} |"
        )
    text = PAGE.read_text()
    before, rest = text.split(_BEGIN)
    after = rest.split(_END)[1]
    PAGE.write_text(f"{before}{_BEGIN}\n\n" + "\n".join(lines) + f"\n\n{_END}{after}")
    _plot(runs)


def _spread(runs: list[dict[str, Any]], metric: str) -> str:
    values = [run["test"][metric]["value"] for run in runs]
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _plot(runs: list[dict[str, Any]]) -> None:
    matplotlib.use("agg")
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    curves, areas, losses = figure.subplots(1, 3, width_ratios=(2, 1, 1))
    models = list(dict.fromkeys(run["model"] for run in runs))
    for place, (model, colour) in enumerate(zip(models, ("#3b6fb6", "#c4572e", "#3f8f5f"), strict=True)):
        own = [run for run in runs if run["model"] == model]
        for number, run in enumerate(own):
            seconds = run["cpu_seconds_an_epoch"] * np.arange(1, len(run["val_loss"]) + 1)
            curves.plot(seconds, run["val_loss"], color=colour, lw=1, label=model if not number else None)
        for axes, metric in ((areas, "auroc"), (losses, "log_loss")):
            for number, run in enumerate(own):
                one = run["test"][metric]
                x, low, high = place + (number - 1) * 0.15, one["value"] - one["low"], one["high"] - one["value"]
                axes.errorbar(x, one["value"], [[low], [high]], fmt="o", ms=4, color=colour, lw=1)
    curves.set(xlabel="CPU seconds of training", ylabel="loss on val_select", yscale="log")
    curves.legend(frameon=False, fontsize=8)
    areas.set_title("test AUROC, 95 %", fontsize=9)
    losses.set_title("test NLL, 95 %", fontsize=9)
    for axes in (areas, losses):
        axes.set_xticks(range(len(models)), models, rotation=25, fontsize=7)
    IMAGE.parent.mkdir(exist_ok=True)
    figure.savefig(IMAGE, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
