"""May a model be champion, as its shortcut gates answer? One rule, for whoever asks."""

from collections.abc import Iterator

import polars as pl

from lens_pipeline.contracts.errors import first_few

# Attribute of shortcut_gates: versions that asked the same model before, with other settings.
EARLIER = "earlier_askings"
_ANSWERED = ("ok", "red")
# Each kind of question in SHORTCUT_GATES that a champion must have answered, and what is unknown where it wasn't.
_KINDS = {
    "gate": "whether anything but arcs tells the classes apart",
    "counterfactual": "whether the score follows the arc",
    "path": "whether every path gives a row the same logit",
}
# What could tell the classes apart is looked for in injections and in probes without flux; an answer of either will do.
_OF_INJECTIONS, _OF_PROBES = "injection_", "probe_"


def why_gates_forbid(gates: pl.DataFrame) -> str | None:
    """Say why a version with these answers can't be champion; None where nothing forbids it.

    A red gate forbids it. So does a trace of which neither injections nor probes without flux say whether it tells the classes
    apart, a counterfactual without an answer, and that no path was compared: something is unknown then, for or against.

    Parameters
    ----------
    gates : polars.DataFrame
        SHORTCUT_GATES, of which `name`, `kind` and `status` are read.
    """
    red = gates.filter(pl.col("status") == "red")["name"].to_list()
    reasons = [f"{len(red)} of its shortcut gates are red ({first_few(red)})"] if red else []
    return "; ".join([*reasons, *_open_questions(gates)]) or None


def _open_questions(gates: pl.DataFrame) -> Iterator[str]:
    answered = set(gates.filter(pl.col("status").is_in(_ANSWERED))["name"])
    names = {kind: gates.filter(pl.col("kind") == kind)["name"].to_list() for kind in _KINDS}
    traces = [name for name in names["gate"] if name.startswith(_OF_INJECTIONS)]
    paths = names["path"]
    unanswered = {
        "gate": [one for one in traces if not answered & {one, one.replace(_OF_INJECTIONS, _OF_PROBES, 1)}],
        "counterfactual": [one for one in names["counterfactual"] if one not in answered],
        "path": [] if answered & set(paths) else paths,
    }
    for kind, asked in {**names, "gate": traces}.items():
        if not asked:
            yield f"{_KINDS[kind]} wasn't asked"
        elif unanswered[kind]:
            yield f"{_KINDS[kind]} isn't answered ({first_few(unanswered[kind])})"


def unanswered_gates(gates: pl.DataFrame) -> list[str]:
    """Names of the questions that were not answered, for or against."""
    return gates.filter(~pl.col("status").is_in(_ANSWERED))["name"].to_list()
