"""May a model be champion, as its shortcut gates answer? One rule, for whoever asks."""

import polars as pl

from lens_pipeline.contracts.errors import first_few

# Each kind of question in SHORTCUT_GATES that a champion must have answered, and what is unknown where none of it was.
_MUST_ANSWER = {
    "gate": "whether anything but arcs tells the classes apart",
    "counterfactual": "whether the score follows the arc",
    "path": "whether every path gives a row the same logit",
}
_ANSWERED = ("ok", "red")


def why_gates_forbid(gates: pl.DataFrame) -> str | None:
    """Say why a version with these answers can't be champion; None where nothing forbids it.

    A red gate forbids it, and so does a kind of questions of which none was answered: nothing is known then, for or against.

    Parameters
    ----------
    gates : polars.DataFrame
        SHORTCUT_GATES, of which `name`, `kind` and `status` are read.
    """
    red = gates.filter(pl.col("status") == "red")["name"].to_list()
    reasons = [f"{len(red)} of its shortcut gates are red ({first_few(red)})"] if red else []
    for kind, question in _MUST_ANSWER.items():
        asked = gates.filter(pl.col("kind") == kind)
        if not asked["status"].is_in(_ANSWERED).any():
            names = first_few(asked["name"].to_list()) if asked.height else "no such question was asked"
            reasons.append(f"{question} was never answered ({names})")
    return "; ".join(reasons) or None


def unanswered_gates(gates: pl.DataFrame) -> list[str]:
    """Names of the questions that were not answered, for or against."""
    return gates.filter(~pl.col("status").is_in(_ANSWERED))["name"].to_list()
