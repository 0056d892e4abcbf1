"""``lens_pipeline verify``: re-read every published byte and compare its hash with its manifest's."""

from lens_pipeline.contracts.errors import StorageError
from lens_pipeline.storage.home import Home
from lens_pipeline.storage.publication import MANIFEST_NAME, Publication


def run(dataset: str | None) -> int:
    """Verify every version under HOME; return 1 if a byte is wrong."""
    home = Home.from_environment()
    manifests = sorted(home.path.glob(f"{dataset or '*'}/*/*/[!.]*/{MANIFEST_NAME}"))
    if not manifests:
        raise StorageError(f"nothing is published in {home.path}{f' for dataset {dataset!r}' if dataset else ''}.")
    problems = []
    for manifest in manifests:
        folder = manifest.parent
        try:
            publication = Publication.open(folder)
            if publication.version != folder.name:
                problems.append(f"{folder} holds version {publication.version}")
            found = publication.verify()
        except StorageError as error:
            found = [str(error)]
        problems += found
        print(f"{'damaged' if found else 'sound  '}  {folder.relative_to(home.path)}")
    for problem in problems:
        print(problem)
    print(f"{len(manifests)} versions in {home.path}, {len(problems)} problems")
    return 1 if problems else 0
