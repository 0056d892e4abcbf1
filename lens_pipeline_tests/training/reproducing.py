"""A program that makes a store and splits, trains, publishes, and prints the hash of everything: ``... FOLDER``."""

import json
import sys
from pathlib import Path

from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.training import rank
from lens_pipeline.training.run import collect
from lens_pipeline_tests.training.making import prepared, small_survey


def main(path: Path) -> None:
    """Do so in a folder that is empty."""
    home = Home(path / "home")
    survey = small_survey(home, n_galaxies=116)
    folder = prepared(path / "run", survey, world_size=1, dropout=0.2, ema_decay=0.9, mixup_alpha=0.2)
    if rank.main([str(folder.specification)]):
        raise RuntimeError("the run did not end")
    with home.stage("tried", "lens_classifier", inputs=[*survey]) as staging:
        collect(folder.path, staging)
        made = staging.commit()
    print(json.dumps({f"{p.asset}/{file.name}": sha256_of(file) for p in (*survey, made) for file in _files(p.folder)}))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
