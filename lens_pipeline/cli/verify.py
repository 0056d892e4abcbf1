"""``lens_pipeline verify``: re-read every published byte and compare its hash with its manifest's."""

from collections.abc import Sequence
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, StorageError
from lens_pipeline.storage.home import Home


def run(dataset: str | None, *, remote: bool = False) -> int:
    """Verify every version under HOME; return 1 if a byte is wrong.

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
    problems = []
    n_elsewhere = 0
    for folder in folders:
        try:
            publication = home.open_folder(folder)
            found = publication.verify_there() if remote else publication.verify_here()
            n_elsewhere += 0 if remote else sum(not publication.is_here(name) for name in publication.manifest.files)
        except StorageError as error:
            found = [str(error)]
        problems += found
        print(f"{'damaged' if found else 'sound  '}  {folder.relative_to(home.path)}")
    _tell(home, folders, problems, n_elsewhere)
    return 1 if problems else 0


def _tell(home: Home, folders: Sequence[Path], problems: list[str], n_elsewhere: int) -> None:
    for problem in problems:
        print(problem)
    print(f"{len(folders)} versions in {home}, {len(problems)} problems")
    if home.remote is not None and n_elsewhere:
        print(f"{n_elsewhere} of their files aren't on this machine; --remote reads the objects")
