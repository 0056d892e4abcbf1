"""Checks on SHORTCUT_GATES. What they find is about the model; a version with a red row is never made champion."""

from collections.abc import Sequence
from typing import Any

from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.contracts.checks import Check, green, red, undecided

SEPARATES, FOLLOWS, AGREE = "nothing_but_arcs_separates", "score_follows_the_arc", "serving_paths_agree"
_KIND = {SEPARATES: Kind.gate, FOLLOWS: Kind.counterfactual, AGREE: Kind.path}
# A model that follows flux in place of arcs is measured as soundly as any other: its table is published and the run goes on.
_STOPS = {SEPARATES: True, FOLLOWS: False, AGREE: True}
_FINE = {
    SEPARATES: "nothing but arcs was found to tell the classes apart",
    FOLLOWS: "the score follows the arc",
    AGREE: "every path gives a row the same logit",
}
_BAD = {
    SEPARATES: "something beside the arc tells the classes apart",
    FOLLOWS: "the score doesn't follow the arc; this version can't be champion",
    AGREE: "a row's logit depends on the path to it",
}
_WHY = {
    SEPARATES: "a model learns what is easiest: this, in place of lenses",
    FOLLOWS: "a model that takes extra light for an arc finds companions, spirals and mergers on a real sky",
    AGREE: "thresholds and completeness were measured by one path, and survey stamps are scored by another",
}
_NEXT = {
    SEPARATES: "read_table('shortcut_gates', version=...) says what separates what; mend the survey stage",
    FOLLOWS: "train on fakes as well: injection_manifest.fake_turned_share, fake_unlensed_share and fake_blob_share "
    "(docs/shortcut-gates.md), then materialize from injection_manifest on",
    AGREE: "compare device, tta and versions of scores, lens_classifier and this package; materialize scores again",
}


def gate_checks(gates: Sequence[Gate]) -> list[Check]:
    """Return one check a kind; what is undecided or not measured is said, and never taken for green."""
    return [_check(name, [gate for gate in gates if gate.kind is kind]) for name, kind in _KIND.items()]


def _check(name: str, gates: Sequence[Gate]) -> Check:
    by_status = {status: [gate for gate in gates if gate.status is status] for status in Status}
    figures: dict[str, Any] = {gate.name: gate.value for gate in gates}
    open_ones = [*by_status[Status.undecided], *by_status[Status.not_measured]]
    said = _unanswered(open_ones)
    answered = len(gates) - len(open_ones)
    if wrong := by_status[Status.red]:
        return red(
            name,
            f"{_BAD[name]}: {len(wrong)} of {len(gates)} questions are red{said}",
            wrong=[_words(gate) for gate in wrong],
            why=_WHY[name],
            next_step=_NEXT[name],
            blocking=_STOPS[name],
            **figures,
        )
    if not answered:
        return undecided(
            name,
            f"none of {len(gates)} questions was answered{said}",
            why="so nothing is known, for or against",
            next_step="docs/shortcut-gates.md says what each question needs",
            **figures,
        )
    return green(
        name, f"{_FINE[name]}, by {answered} of {len(gates)} questions{said}", blocking=_STOPS[name], **figures
    )


def _unanswered(gates: Sequence[Gate]) -> str:
    """Name what was not answered, by the reason."""
    by_reason: dict[tuple[str, str | None], list[str]] = {}
    for gate in gates:
        by_reason.setdefault((gate.status.replace("_", " "), gate.reason), []).append(gate.name)
    return "".join(f"; {words}: {', '.join(names)} ({reason})" for (words, reason), names in by_reason.items())


def _words(gate: Gate) -> str:
    interval = "" if gate.low is None or gate.high is None else f" [{gate.low:.3g}, {gate.high:.3g}]"
    value = "" if gate.value is None else f" {gate.value:.3g}{interval} {gate.unit}"
    return f"{gate.name}{value} ({gate.of}; {gate.reason})"
