"""What people see of a finished training, the same on Dagster's page and on MLflow's: curves, confusion, speed, checks."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from lens_pipeline.contracts.checks import Check
from lens_pipeline.contracts.dataset import DatasetContract
from lens_pipeline.defs.publishing import markdown_rows
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.history import History, epochs_of
from lens_pipeline.training.logits import SelectedLogits

# MLflow keeps 8000 characters of a run's note.
_LONGEST_NOTE = 7900


@dataclass(frozen=True)
class TrainingPage:
    """The parts of the page.

    Attributes
    ----------
    curves : bytes
        PNG.
    confusion : pa.Table
        Counts on val_select, best epoch, at two stated thresholds.
    speed : dict
        Means over epochs, those that were recorded: stamps a second, share of time that waited for data, hours of training.
    """

    curves: bytes
    confusion: pa.Table
    speed: dict[str, float]

    @classmethod
    def of(cls, classifier: Publication, history: History) -> "TrainingPage":
        """Draw it from a version, and from the run's own account for wall times."""
        # Imported when it is used: matplotlib takes a second to load.
        from lens_pipeline.evaluation.training_curves import training_png

        told = {epoch["epoch"]: epoch for epoch in history.epochs}
        epochs = [{**told.get(epoch["epoch"], {}), **epoch} for epoch in epochs_of(classifier)]
        speed = {}
        for name in ("stamps_per_second", "data_wait_share", "mfu", "memory_mb", "slowest_rank_share"):
            known = [float(epoch[name]) for epoch in epochs if epoch.get(name) is not None]
            if known:
                speed[name] = sum(known) / len(known)
        seconds = [epoch["seconds"] for epoch in epochs if "seconds" in epoch]
        if seconds:
            speed["seconds_of_epochs"] = float(sum(seconds))
        contract = DatasetContract.model_validate(classifier.attributes["dataset_contract"])
        confusion = SelectedLogits.read(classifier).confusion(list(contract.class_names))
        return cls(training_png(epochs), confusion, speed)

    def note(self, checks: Sequence[Check]) -> str:
        """Markdown for a page without checks of its own: what is red first."""
        n_not = sum(not check.passed for check in checks)
        lines = [f"### Checks: {f'{n_not} of {len(checks)} not green' if n_not else f'all {len(checks)} green'}", ""]
        for check in sorted(checks, key=lambda check: (check.passed, not check.blocking)):
            kind = "green" if check.passed else "**RED, blocking**" if check.blocking else "**advisory**"
            lines.append(f"- {kind} {check.message()}")
        confusion = ["", "### Confusion on val_select, best epoch", "", markdown_rows(self.confusion)]
        text = "\n".join([*lines, *confusion])
        return text if len(text) <= _LONGEST_NOTE else text[:_LONGEST_NOTE] + " ..."

    def files(self) -> dict[str, bytes]:
        """Return the files to keep beside the run."""
        return {"training_curves.png": self.curves, "confusion.md": markdown_rows(self.confusion).encode()}
