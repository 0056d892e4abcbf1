"""A program that makes a store and splits, trains, publishes, and prints the hash of everything: ``... FOLDER``."""

import json
import sys
from pathlib import Path

from lens_pipeline.storage.atomic import sha256_of
from lens_pipeline.storage.home import Home
from lens_pipeline.training import rank
from lens_pipeline.training.config import TrainingConfig
from lens_pipeline.training.run import collect, prepare_run
from lens_pipeline_tests.training.making import small_survey


def main(path: Path) -> None:
    """Do so in a folder that is empty."""
    home = Home(path / "home")
    survey = small_survey(home, n_galaxies=116)
    config = TrainingConfig(world_size=1, epochs=3, batch_size=32, dropout=0.2, ema_decay=0.9, mixup_alpha=0.2)
    specification = prepare_run(config, *survey, path / "run")
    if rank.main([str(specification)]):
        raise RuntimeError("the run did not end")
    with home.stage("tried", "lens_classifier", inputs=[*survey]) as staging:
        collect(specification.parent, staging)
        made = staging.commit()
    print(json.dumps({f"{p.asset}/{file.name}": sha256_of(file) for p in (*survey, made) for file in _files(p.folder)}))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
