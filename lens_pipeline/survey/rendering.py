"""Fragments of a manifest rendered side by side, and none of them twice.

Belongs here: which fragments stand already. One that an interrupted run finished lies in the work folder, named by the journal;
one that the current version has is known by what it was made of. Either is read and compared with its hash before it is taken,
and rendered anew where it is harmed.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lens_pipeline.contracts.code import code_sha256
from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.journal import Journal
from lens_pipeline.storage.atomic import remove_temporaries, sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.pace import Pace
from lens_pipeline.storage.publication import Publication
from lens_pipeline.storage.staging import Staging
from lens_pipeline.survey.engines import Engine, Job, do_jobs
from lens_pipeline.survey.parts import Part

TASK = "lens_pipeline.survey.fragment_worker"
# Where a version says what its fragments were made of; not part of its hash, which their bytes are.
MADE_OF = "made_of"
_ROOMS = ("contracts", "storage", "stamps", "survey")
_LIBRARIES = ("astropy", "deflate", "lenstronomy", "numba", "numpy", "pyarrow", "scipy")
_log = logging.getLogger(__name__)

# Of a fragment, by the role of each of its files: file, rows, sha256.
Files = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Rendering:
    """Where one version's fragments are made.

    Attributes
    ----------
    work : Path
        Folder for fragments that are done and not yet published.
    earlier : dict
        Key of a fragment to the names of its files in `previous`, by role.
    """

    staging: Staging
    work: Path
    journal: Journal
    previous: Publication | None
    earlier: dict[str, dict[str, str]]

    @classmethod
    def of(cls, staging: Staging, work: Path, journal: Journal, previous: Publication | None) -> "Rendering":
        """Begin, or go on."""
        remove_temporaries(work)
        staging.provenance[MADE_OF] = {}
        return cls(staging, work, journal, previous, previous.manifest.provenance.get(MADE_OF, {}) if previous else {})

    def render(
        self,
        parts: Iterator[Part],
        stems: dict[str, str],
        settings: dict[str, Any],
        pace: Pace,
        *,
        workers: int,
        engine: Engine,
    ) -> list[Files]:
        """Make the fragments of parts, or take over those that stand; in order.

        Parameters
        ----------
        stems : dict
            Role of each file of a fragment (``path``, ``arcs``) to the beginning of its name.
        settings : dict
            For the worker.
        """
        done = {entry["key"]: entry["files"] for entry in self.journal}
        made: dict[int, Files] = {}

        def settle(number: int, key: str, files: Files) -> None:
            made[number] = files
            self.staging.provenance[MADE_OF][key] = {role: file["file"] for role, file in files.items()}

        def to_make() -> Iterator[Job]:
            for part in parts:
                names = {role: f"{stem}-{part.number:05d}.parquet" for role, stem in stems.items()}
                files = self._from_work(part.key, done.get(part.key), names) or self._from_previous(part.key, names)
                if files is not None:
                    settle(part.number, part.key, files)
                    pace.find(len(part.rows))
                    continue
                yield {
                    "name": names["path"],
                    "names": names,
                    "number": part.number,
                    "key": part.key,
                    "rows": part.rows,
                    "galaxies": part.galaxies,
                    **{role: str(self._path(part.key, role)) if role in stems else None for role in ("path", "arcs")},
                }

        for job, answer in do_jobs(TASK, settings, to_make(), workers=workers, engine=engine):
            self.journal.append([{"key": job["key"], "files": answer}])
            settle(job["number"], job["key"], self._take_in(job["key"], answer, job["names"]))
            pace.advance(len(job["rows"]))
        return [files for _, files in sorted(made.items())]

    def _path(self, key: str, role: str) -> Path:
        return self.work / f"{key}.{role}.parquet"

    def _from_work(self, key: str, written: Files | None, names: dict[str, str]) -> Files | None:
        """Take over what an interrupted run finished, if it is there unharmed."""
        if written is None:
            return None
        for role, file in written.items():
            path = self._path(key, role)
            if not path.is_file() or sha256_of(path) != file["sha256"]:
                _log.warning("%s isn't what an earlier run wrote there, its fragment is rendered anew", path)
                return None
        return self._take_in(key, written, names)

    def _take_in(self, key: str, written: Files, names: dict[str, str]) -> Files:
        for role in names:
            self.staging.take_in(self._path(key, role), names[role])
        return {role: {"file": names[role], **written[role]} for role in names}

    def _from_previous(self, key: str, names: dict[str, str]) -> Files | None:
        """Share what the current version has, if it is there unharmed."""
        there = self.earlier.get(key)
        if there is None or self.previous is None or there.keys() != names.keys():
            return None
        try:
            for file in there.values():
                self.previous.path(file)
        except StorageError as error:
            _log.warning("%s of stamps %s is rendered anew: %s", there["path"], self.previous.version, error)
            return None
        taken: Files = {}
        for role, name in names.items():
            self.staging.adopt(self.previous, there[role], name, verify=False)
            entry = self.previous.entry(there[role])
            taken[role] = {"file": name, "rows": entry.rows, "sha256": entry.sha256}
        return taken


def find_earlier(home: Home, dataset: str, manifest: Publication) -> Publication | None:
    """Find the stamps to take fragments over from: the newest that were made of this manifest, else the current ones.

    Some that are red, or whose run ended before its checks, will do: a fragment is what it is made of, whatever the checks said.
    """
    try:
        for stamps in reversed(home.versions(dataset, "stamps")):
            if stamps.inputs.get(manifest.asset) == manifest.version:
                return stamps
        return home.open(dataset, "stamps") if home.has_current(dataset, "stamps") else None
    except StorageError as error:
        _log.warning("earlier stamps are damaged, every fragment is rendered anew: %s", error)
        return None


def rendering_code() -> str:
    """Hash of the code that a fragment's bytes come from, and of the versions of the libraries under it."""
    return code_sha256(_ROOMS, _LIBRARIES)
