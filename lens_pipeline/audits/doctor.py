"""One answer about a dataset and a model, GO or NO-GO, from every check of everything that is published of them.

Belongs here: what makes it NO-GO beside a red check. An asset that was never published; one whose newest version didn't pass; one
that was made from versions that aren't current any more; one that a check, declared since, has never looked at. Nothing is
computed again: what is read are verdicts and manifests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import pyarrow as pa
from pydantic import Field

from lens_pipeline.contracts.config import Section
from lens_pipeline.contracts.doctor_tables import DOCTOR
from lens_pipeline.contracts.errors import first_few
from lens_pipeline.scoring.aliases import CLASSIFIER, SCORES, asset_of, is_ensemble, why_not_promoted
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import Publication

Declared = Mapping[str, Mapping[str, bool]]

_MATERIALIZE = "dagster asset materialize --select {} -m lens_pipeline.definitions -c PRESET"


class Status(StrEnum):
    """What a finding means for whoever wants to use what is published."""

    go = "go"
    look = "look"
    no_go = "no_go"


class DoctorConfig(Section):
    """What counts as NO-GO."""

    strict: bool = Field(False, description="whether a finding that blocks nothing is NO-GO as well")


@dataclass(frozen=True)
class Finding:
    """One row of DOCTOR."""

    asset: str
    check: str
    version: str | None
    status: Status
    what: str
    count: int = 0
    why: str = ""
    next_step: str = ""


@dataclass(frozen=True)
class Examination:
    """All findings of one dataset and model, in the order of the chain, and what forbids the model to be champion."""

    dataset: str
    model: str
    findings: tuple[Finding, ...]
    no_champion: str | None = None

    @property
    def go(self) -> bool:
        """Whether nothing is NO-GO."""
        return not self.of(Status.no_go)

    def of(self, status: Status) -> tuple[Finding, ...]:
        """Return the findings of one status."""
        return tuple(finding for finding in self.findings if finding.status is status)

    @property
    def headline(self) -> str:
        """The answer in one line."""
        counted = ", ".join(f"{len(self.of(status)):,} {words}" for status, words in _COUNTED.items())
        answer = "NO-GO"
        if self.go:
            answer = "GO" if self.no_champion is None else f"GO (can't be champion: {self.no_champion})"
        return f"{answer}  {self.dataset}, model {self.model}: {counted}"

    def table(self) -> pa.Table:
        """DOCTOR of these findings."""
        return pa.Table.from_pylist([asdict(finding) for finding in self.findings], schema=DOCTOR.schema)


_COUNTED = {Status.no_go: "no-go", Status.look: "to look at", Status.go: "fine"}


def examine(home: Home, dataset: str, model: str, declared: Declared, *, strict: bool = False) -> Examination:
    """Look at what is current of every asset, and at what was made since.

    Parameters
    ----------
    declared : mapping
        Asset to its checks, each with whether it blocks, in the order of the chain.
    strict : bool
        Whether a finding that blocks nothing is NO-GO as well.
    """
    findings: list[Finding] = []
    for asset, checks in declared.items():
        if asset == CLASSIFIER and _is_ensemble(home, dataset, model):
            continue
        findings += _of_asset(home, dataset, model, asset, checks)
    if strict:
        findings = [replace(one, status=Status.no_go) if one.status is Status.look else one for one in findings]
    return Examination(dataset, model, tuple(findings), _why_no_champion(home, dataset, model))


def _why_no_champion(home: Home, dataset: str, model: str) -> str | None:
    asset = asset_of(home, dataset, model)
    if not home.has_current(dataset, asset, model=model):
        return None
    return why_not_promoted(home, home.open(dataset, asset, model=model))


def _of_asset(home: Home, dataset: str, model: str, asset: str, checks: Mapping[str, bool]) -> list[Finding]:
    versions = home.versions(dataset, asset, model=model)
    newest = versions[-1] if versions else None
    if not home.has_current(dataset, asset, model=model):
        what = "was never published" if newest is None else "has no version that passed"
        missing = Finding(
            asset,
            "is_published",
            None,
            Status.no_go,
            f"{asset} {what}",
            1,
            "whatever is made from it is missing, or older than it should be.",
            _MATERIALIZE.format(asset),
        )
        return [missing, *_failed(newest, None)]
    current = home.open(dataset, asset, model=model)
    return [
        Finding(asset, "is_published", current.version, Status.go, f"{asset} {current.version} is current"),
        *_failed(newest, current),
        _freshness(home, dataset, model, current),
        _coverage(current, checks),
        *(_verdict(current, found) for found in _checks(current)),
    ]


def _failed(newest: Publication | None, current: Publication | None) -> list[Finding]:
    """Say what the newest version was refused for, where it isn't the current one."""
    if newest is None or (current is not None and newest.version == current.version):
        return []
    if newest.verdict is None:
        what = f"{newest.asset} {newest.version} is the newest, and its checks were never finished"
        why = "the run ended before them, or is still at them."
        return [_newest(newest, Status.look, what, 1, why, _MATERIALIZE.format(newest.asset))]
    if newest.verdict["passed"]:
        # Content that was made again, or was current before, keeps the time at which it was first written.
        return []
    red = [found for found in _checks(newest) if found["blocking"] and not found["passed"]]
    what = f"the newest {newest.asset}, {newest.version}, is red: " + "; ".join(found["what"] for found in red)
    why, next_step = (" ".join(dict.fromkeys(found[part] for found in red)) for part in ("why", "next_step"))
    return [_newest(newest, Status.no_go, what, sum(found["count"] for found in red), why, next_step)]


def _newest(newest: Publication, status: Status, what: str, count: int, why: str, next_step: str) -> Finding:
    return Finding(newest.asset, "newest_passed", newest.version, status, what, count, why, next_step)


def _freshness(home: Home, dataset: str, model: str, current: Publication) -> Finding:
    """Whether what it was made from is current still."""
    old = []
    for name, version in current.inputs.items():
        source, _, other = name.partition("@")
        there = home.has_current(dataset, source, model=other or model)
        now = home.open(dataset, source, model=other or model).version if there else None
        if now != version:
            old.append((name, version, now))
    name = "inputs_are_current"
    if not old:
        read = f"made from what is current ({len(current.inputs):,} read)" if current.inputs else "made from no other"
        return Finding(current.asset, name, current.version, Status.go, read)
    changed = [f"{source} {was}, where {now or 'none'} is current" for source, was, now in old]
    return Finding(
        current.asset,
        name,
        current.version,
        Status.no_go,
        f"{current.asset} was made from {first_few(changed)}",
        len(old),
        "its numbers are those of other data or of another model than what stands beside it.",
        _MATERIALIZE.format(f"'{old[0][0].partition('@')[0]}*'"),
    )


def _coverage(current: Publication, checks: Mapping[str, bool]) -> Finding:
    """Whether every declared check has looked at it."""
    missing = sorted(set(checks) - {found["name"] for found in _checks(current)})
    name = "checks_were_run"
    if not missing:
        return Finding(current.asset, name, current.version, Status.go, f"{len(checks):,} checks have looked at it")
    return Finding(
        current.asset,
        name,
        current.version,
        Status.no_go if any(checks[one] for one in missing) else Status.look,
        f"{current.asset} was never looked at by {first_few(missing)}",
        len(missing),
        "it was made before there was this check.",
        _MATERIALIZE.format(current.asset),
    )


def _verdict(current: Publication, found: Mapping[str, Any]) -> Finding:
    if found["passed"]:
        return Finding(current.asset, found["name"], current.version, Status.go, found["what"])
    status = Status.no_go if found["blocking"] else Status.look
    parts = (found["what"], found["count"], found["why"], found["next_step"])
    return Finding(current.asset, found["name"], current.version, status, *parts)


def _checks(version: Publication) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = (version.verdict or {}).get("checks", [])
    return found


def _is_ensemble(home: Home, dataset: str, model: str) -> bool:
    return home.has_current(dataset, SCORES, model=model) and is_ensemble(home.open(dataset, SCORES, model=model))
