"""``lens_pipeline verify``: re-read every published byte and compare its hash with its manifest's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.progress import progress
from lens_pipeline.storage.publication import MANIFEST_NAME, Publication

_READERS = 4


def run(dataset: str | None) -> int:
    """Verify every version under HOME, naming each damaged file; return 1 if a byte is wrong."""
    home = Home.from_environment()
    folders = [path.parent for path in sorted(home.path.glob(f"{dataset or '*'}/*/*/[!.]*/{MANIFEST_NAME}"))]
    if not folders:
        raise StorageError(f"nothing is published in {home.path}{f' for dataset {dataset!r}' if dataset else ''}.")
    opened = {folder: _open(folder) for folder in folders}
    n_bytes = sum(_size(version) for version in opened.values() if isinstance(version, Publication))
    problems = []
    with progress("re-reading", n_bytes, is_bytes=True) as advance:
        for folder, version in opened.items():
            found = _verify(version, advance) if isinstance(version, Publication) else [version]
            problems += found
            print(f"{'damaged' if found else 'sound  '}  {folder.relative_to(home.path)}", flush=True)
    for problem in problems:
        print(problem)
    print(f"{len(folders):,} versions in {home.path}, {n_bytes / 1e6:,.1f} MB read, {len(problems):,} problems")
    return 1 if problems else 0


def _open(folder: Path) -> Publication | str:
    """Open a version, or say why it can't be."""
    try:
        publication = Publication.open(folder)
    except StorageError as error:
        return str(error)
    if publication.version != folder.name:
        return f"{folder} holds version {publication.version}: it was moved by hand. Move it back."
    return publication


def _size(publication: Publication) -> int:
    return sum(entry.size for entry in publication.manifest.files.values())


def _verify(publication: Publication, advance: Callable[[int], None]) -> list[str]:
    """Hash every file; a store's index must agree with its segments too."""

    def read(name: str) -> str | None:
        try:
            publication.path(name)
        except StorageError as error:
            return str(error)
        finally:
            advance(publication.entry(name).size)
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        problems = [problem for problem in pool.map(read, publication.manifest.files) if problem]
    if publication.asset == "stamp_store" and not problems:
        try:
            StampStore.open(publication)
        except StorageError as error:
            problems.append(str(error))
    return problems
