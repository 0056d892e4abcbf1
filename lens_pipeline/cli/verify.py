"""``lens_pipeline verify``: re-read every published byte and compare its hash with its manifest's."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.progress import Bar, progress
from lens_pipeline.storage.publication import Publication

_READERS = 4


def run(dataset: str | None, *, remote: bool = False) -> int:
    """Verify every version under HOME, naming each damaged file; return 1 if a byte is wrong.

    Parameters
    ----------
    remote : bool
        Read the objects of a home at an s3:// address, not their local copies.
    """
    home = Home.from_environment()
    if remote and home.remote is None:
        raise ConfigError(f"{home} is a folder: --remote is for a LENS_PIPELINE_HOME that is an s3:// address.")
    folders = home.folders(dataset, local=not remote)
    if not folders:
        kept = " on this machine; --remote reads the objects" if home.remote is not None and not remote else ""
        raise StorageError(f"nothing is published in {home}{f' for dataset {dataset!r}' if dataset else ''}{kept}.")
    opened = {folder: _open(home, folder) for folder in folders}
    versions = [version for version in opened.values() if isinstance(version, Publication)]
    problems = []
    with progress("re-reading", sum(_size(version) for version in versions), is_bytes=True) as bar:
        for folder, version in opened.items():
            if isinstance(version, Publication):
                found = _read_there(version, bar) if remote else _read_here(version, bar)
            else:
                found = [version]
            problems += found
            print(f"{'damaged' if found else 'sound  '}  {folder.relative_to(home.path)}", flush=True)
    n_elsewhere = (
        0 if remote else sum(not version.is_here(name) for version in versions for name in version.manifest.files)
    )
    _tell(home, folders, problems, n_elsewhere)
    return 1 if problems else 0


def _open(home: Home, folder: Path) -> Publication | str:
    """Open a version, or say why it can't be."""
    try:
        return home.open_folder(folder)
    except StorageError as error:
        return str(error)


def _size(version: Publication) -> int:
    return sum(entry.size for entry in version.manifest.files.values())


def _read_here(version: Publication, bar: Bar) -> list[str]:
    """Hash every file that is on this machine; where all of a store is, its index must agree with its segments too."""

    def read(name: str) -> str | None:
        try:
            if version.remote is None or version.is_here(name):
                version.path(name)
        except StorageError as error:
            return str(error)
        finally:
            bar.advance(version.entry(name).size)
        return None

    with ThreadPoolExecutor(_READERS) as pool:
        problems = [problem for problem in pool.map(read, version.manifest.files) if problem]
    if version.asset == "stamp_store" and not problems and all(map(version.is_here, version.manifest.files)):
        try:
            StampStore.open(version)
        except StorageError as error:
            problems.append(str(error))
    return problems


def _read_there(version: Publication, bar: Bar) -> list[str]:
    problems = version.verify_there()
    bar.advance(_size(version))
    return problems


def _tell(home: Home, folders: Sequence[Path], problems: list[str], n_elsewhere: int) -> None:
    for problem in problems:
        print(problem)
    print(f"{len(folders):,} versions in {home}, {len(problems):,} problems")
    if home.remote is not None and n_elsewhere:
        print(f"{n_elsewhere:,} of their files aren't on this machine; --remote reads the objects")
