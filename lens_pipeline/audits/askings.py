"""How often the questions about shortcuts were asked of a model, and which of its red answers stand.

A question that is asked with other settings until the answer suits is no question: near its limit every asking is a new draw.
So a red answer stands until twice as many galaxies say otherwise. Doubling ends after a few askings, as galaxies do, and each has
half of its galaxies to itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lens_pipeline.audits.config import ShortcutGatesConfig
from lens_pipeline.audits.gate import Gate, Kind, Status
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

ASKED = "asked"
_MORE = 2
# A path is compared exactly, and what is reported alone is no question.
_BY_CHANCE = (Kind.gate, Kind.counterfactual)


@dataclass(frozen=True)
class Asking:
    """One version of shortcut_gates.

    Attributes
    ----------
    version : str
    settings : dict
        With which it was asked.
    red : dict
        Its own red answers, not those of others that stand in it: name to galaxies.
    """

    version: str
    settings: dict[str, Any]
    red: dict[str, int]

    @classmethod
    def of(cls, gates: Publication) -> "Asking":
        """Read a version."""
        rows = gates.read_table(columns=["name", "status", "n_galaxies", "stands_from"]).to_pylist()
        own = {
            row["name"]: row["n_galaxies"] for row in rows if row["status"] == Status.red and row["stands_from"] is None
        }
        return cls(gates.version, gates.attributes[ASKED], own)


def settings_asked(config: ShortcutGatesConfig) -> dict[str, Any]:
    """Return the settings that choose what is asked of which rows."""
    return config.model_dump(mode="json", include={"n_stamps", "n_counterfactuals", "min_arc_snr"})


def earlier_askings(
    config: ShortcutGatesConfig, home: Home, classifiers: Sequence[Publication], dataset: str, model: str
) -> list[Asking]:
    """Versions of shortcut_gates, green or red, about the same classifiers that were asked with other settings, oldest first.

    Asked with the same settings again, the answer is the same, or the code was mended in between.
    """
    weights = sorted(one.version for one in classifiers)
    found = [
        Asking.of(gates)
        for gates in home.versions(dataset, "shortcut_gates", model=model)
        if gates.verdict is not None and ASKED in gates.attributes and _weights(gates) == weights
    ]
    return [asking for asking in found if asking.settings != settings_asked(config)]


def _weights(gates: Publication) -> list[str]:
    return sorted(version for name, version in gates.inputs.items() if name.partition("@")[0] == "lens_classifier")


def with_standing(gates: Sequence[Gate], config: ShortcutGatesConfig, earlier: Sequence[Asking]) -> list[Gate]:
    """Return the answers, of which those that a red one of an earlier asking outweighs are red, with the reason."""
    return [_outweighed(gate, config, earlier) for gate in gates]


def _outweighed(gate: Gate, config: ShortcutGatesConfig, earlier: Sequence[Asking]) -> Gate:
    if gate.kind not in _BY_CHANCE or gate.status is Status.red:
        return gate
    for asking in (asking for asking in earlier if gate.name in asking.red):
        before = asking.red[gate.name]
        if reason := _why_it_stands(gate, config, asking, before):
            return replace(gate, status=Status.red, stands_from=asking.version, reason=reason)
    return gate


def _why_it_stands(gate: Gate, config: ShortcutGatesConfig, asking: Asking, before: int) -> str | None:
    was = f"red in shortcut_gates {asking.version}, of {before:,} galaxies; that stands"
    if gate.status is not Status.ok:
        return f"{was}, as now it is {gate.status.replace('_', ' ')} ({gate.reason})"
    snr = asking.settings["min_arc_snr"]
    if gate.kind is Kind.counterfactual and snr != config.min_arc_snr:
        return (
            f"{was}, as it was about arcs with min_arc_snr {snr:g}, and this is about others ({config.min_arc_snr:g})"
        )
    if gate.n_galaxies < _MORE * before:
        return f"{was}, as {_MORE * before:,} galaxies, twice as many, must say otherwise, and these are {gate.n_galaxies:,}"
    return None
