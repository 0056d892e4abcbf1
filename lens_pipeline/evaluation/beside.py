"""What other assets say of the same scores, for the report: real lenses, shortcut gates, the comparison with other models.

Belongs here: their tables as the page shows them, and the sentences that stand in its first lines. What was never
asked is said too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from lens_pipeline.evaluation.promotion import EARLIER, why_gates_forbid
from lens_pipeline.evaluation.wording import count, number, threshold_words
from lens_pipeline.storage.publication import Publication

RECOVERY, GATES, COMPARISON = "real_lens_recovery", "shortcut_gates", "model_comparison"
# What each must have been made from to stand beside these: new thresholds make other recalls of the same scores.
MADE_FROM = {
    RECOVERY: ("scores", "operating_point", "completeness"),
    GATES: ("scores",),
    COMPARISON: ("scores", "operating_point"),
}
_EVIDENCE = "evidence.png"
_OK, _RED = "ok", "red"
_BASELINE, _COUNTERFACTUAL = "baseline", "counterfactual"
_ASK = "it was not asked of these scores (dagster asset materialize --select {})"
_ASK_AT_THRESHOLDS = _ASK.replace("scores", "scores and thresholds")


@dataclass(frozen=True)
class Beside:
    """Tables about the same scores; None where an asset was not asked about them.

    Attributes
    ----------
    recovery : polars.DataFrame or None
        REAL_LENS_RECOVERY.
    gates : polars.DataFrame or None
        SHORTCUT_GATES.
    n_earlier : int
        Askings of these questions, about the same model, with other settings before.
    evidence : bytes or None
        PNG of where on stamps the evidence lies.
    comparison : polars.DataFrame or None
        MODEL_COMPARISON.
    not_compared : str or None
        Why it is empty or None.
    publications : tuple of Publication
        What was read.
    """

    recovery: pl.DataFrame | None = None
    gates: pl.DataFrame | None = None
    n_earlier: int = 0
    evidence: bytes | None = None
    comparison: pl.DataFrame | None = None
    not_compared: str | None = _ASK_AT_THRESHOLDS.format(COMPARISON)
    publications: tuple[Publication, ...] = ()

    @classmethod
    def of(cls, publications: Iterable[Publication]) -> "Beside":
        """Read what each of some versions says; the caller has seen to it that they are about the report's."""
        by_asset = {one.asset: one for one in publications}
        tables = {asset: pl.DataFrame(one.read_table()) for asset, one in by_asset.items()}
        gates = by_asset.get(GATES)
        drawn = gates is not None and _EVIDENCE in gates.manifest.files
        compared = by_asset.get(COMPARISON)
        return cls(
            recovery=tables.get(RECOVERY),
            gates=tables.get(GATES),
            n_earlier=0 if gates is None else len(gates.attributes.get(EARLIER, [])),
            evidence=gates.path(_EVIDENCE).read_bytes() if gates is not None and drawn else None,
            comparison=tables.get(COMPARISON),
            not_compared=cls.not_compared if compared is None else compared.attributes.get("not_compared"),
            publications=tuple(by_asset.values()),
        )

    def claims(self, primary: str) -> list[str]:
        """First lines of the report: real lenses at the leading threshold, and what the gates say."""
        return [self._real_lenses(primary), self._shortcuts()]

    def _real_lenses(self, primary: str) -> str:
        if self.recovery is None:
            return f"Recall of real lenses: not measured, {_ASK_AT_THRESHOLDS.format(RECOVERY)}."
        rows = self.recovery.filter((pl.col("operating_point") == primary) & (pl.col("stratum") == "all")).to_dicts()
        row: dict[str, Any] = rows[0] if rows else {"recall": None, "reason": "the threshold has no rows"}
        if row["recall"] is None:
            return f"Recall of real lenses: not measured, {row['reason']}."
        injected = number(row["injected"], row["injected_low"], row["injected_high"])
        return (
            f"At the same threshold, {threshold_words(primary)}, {row['n_recovered']:,} of {count(row['n'], 'stamp')} of "
            f"{count(row['n_lenses'], 'real lens', 'real lenses')} are found: "
            f"{number(row['recall'], row['recall_low'], row['recall_high'])}, where {injected} of the injections are."
            + (f" Told of them: {row['reason']}." if row["reason"] else "")
        )

    def _shortcuts(self) -> str:
        if self.gates is None:
            return f"Shortcuts: not known, {_ASK.format(GATES)}."
        asked = self.gates.filter(pl.col("kind") != _BASELINE)
        red = asked.filter(pl.col("status") == _RED)
        answered = asked.filter(pl.col("status").is_in([_OK, _RED])).height
        of_all = f"{answered:,} of {count(asked.height, 'question')} about shortcuts could be answered"
        if self.n_earlier:
            of_all += f" (asked {count(self.n_earlier, 'time')} before, with other settings)"
        forbidden = why_gates_forbid(self.gates)
        if red.is_empty():
            so = f"; this version can't be champion: {forbidden}" if forbidden else ""
            return f"Shortcuts: {of_all}, none of them in red{so}."
        told = "; ".join(f"{row['of']}: {_gate_value(row)}, {_must(row)}" for row in red.iter_rows(named=True))
        return f"Shortcuts: {of_all}, {red.height:,} in red, so this version can't be champion: {told}."

    def gate_rows(self) -> list[dict[str, Any]]:
        """Rows of the gates with their values as words."""
        if self.gates is None:
            return []
        return [
            {**row, "of": row["of"].replace("`", ""), "value_words": _gate_value(row)}
            for row in self.gates.iter_rows(named=True)
        ]


def _must(row: dict[str, Any]) -> str:
    limit = "its limit" if row["limit"] is None else f"{row['limit']:.3g}"
    return f"whose lower end must exceed {limit}" if row["kind"] == _COUNTERFACTUAL else f"which may not exceed {limit}"


def _gate_value(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "—"
    return f"{number(row['value'], row['low'], row['high'])} {row['unit']}"
