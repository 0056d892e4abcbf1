"""``lens_pipeline verify``: re-read every published byte and compare its hash with its manifest's."""

from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.stamps.store import StampStore
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.progress import progress
from lens_pipeline.storage.publication import Publication


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
    n_bytes = sum(_size(version, remote) for version in opened.values() if isinstance(version, Publication))
    problems = []
    with progress("re-reading", n_bytes, is_bytes=True) as bar:
        for folder, version in opened.items():
            if isinstance(version, str):
                found = [version]
            elif remote:
                found = version.verify_there()
                bar.advance(_size(version, remote))
            else:
                found = version.verify_here(bar) or _index_problems(version)
            problems += found
            print(f"{'damaged' if found else 'sound  '}  {folder.relative_to(home.path)}", flush=True)
    for problem in problems:
        print(problem)
    print(f"{len(folders):,} versions in {home}, {n_bytes / 1e6:,.1f} MB read, {len(problems):,} problems")
    if not remote and (n_elsewhere := sum(_n_elsewhere(version) for version in opened.values())):
        print(f"{n_elsewhere:,} of their files aren't on this machine; --remote reads the objects")
    return 1 if problems else 0


def _open(home: Home, folder: Path) -> Publication | str:
    """Open a version, or say why it can't be."""
    try:
        return home.open_folder(folder)
    except StorageError as error:
        return str(error)


def _size(publication: Publication, remote: bool) -> int:
    files = publication.manifest.files
    return sum(entry.size for name, entry in files.items() if remote or publication.is_here(name))


def _n_elsewhere(version: Publication | str) -> int:
    if isinstance(version, str) or version.remote is None:
        return 0
    return sum(not version.is_here(name) for name in version.manifest.files)


def _index_problems(publication: Publication) -> list[str]:
    """Say where a store's index and its segments disagree, if all of it is here."""
    if publication.asset != "stamp_store" or _n_elsewhere(publication):
        return []
    try:
        StampStore.open(publication)
    except StorageError as error:
        return [str(error)]
    return []
