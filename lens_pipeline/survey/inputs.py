"""What the settings of the survey side name of the user's: whether it is there, asked before any work.

Belongs here: a look at names. Files are listed and none is opened, no server is asked; what is inside is for whoever reads it.
"""

from collections.abc import Callable
from pathlib import Path

from lens_pipeline.contracts.errors import ConfigError, PipelineError, no_file, no_folder
from lens_pipeline.storage.s3_address import Address, is_address
from lens_pipeline.survey.config import InjectionConfig, ParentSampleConfig, Source
from lens_pipeline.survey.external_files import find_files
from lens_pipeline.survey.tractor import catalogue_files


def missing_inputs(parent: ParentSampleConfig, injections: InjectionConfig) -> list[str]:
    """Say what parent_sample and injection_manifest would miss, each as ``setting: what isn't there``."""
    looks: dict[str, Callable[[], object]] = {
        "parent_sample.folder": lambda: _look_at_folder(parent),
        "parent_sample.catalogue": lambda: _look_for_file(parent.catalogue),
        "parent_sample.images": lambda: _look_for_images(parent.images),
        "parent_sample.known_lenses": lambda: _look_for_file(parent.known_lenses),
        "injection_manifest.real_source_catalogue": lambda: _look_for_file(injections.real_source_catalogue),
    }
    missing = []
    for setting, look in looks.items():
        try:
            look()
        except (PipelineError, OSError) as error:
            missing.append(f"{setting}: {error}")
    return missing


def addresses(parent: ParentSampleConfig) -> list[str]:
    """Return the s3:// addresses among the settings: of these only the spelling can be judged here."""
    return [text for text in (parent.folder, parent.images) if is_address(text)]


def _look_at_folder(parent: ParentSampleConfig) -> None:
    if parent.source is Source.simulated:
        return
    if is_address(parent.folder):
        Address.parse(parent.folder)
        if parent.source is Source.real_cutouts:
            _refuse_images_alone(parent)
    elif parent.source is Source.external_stamps:
        find_files(parent.folder)
    elif parent.source is Source.legacy_catalogue:
        catalogue_files(parent.folder)
    else:
        _look_at_cutouts(parent)


def _look_at_cutouts(parent: ParentSampleConfig) -> None:
    # astropy takes a second to load.
    from lens_pipeline.survey.images_at import holds_images
    from lens_pipeline.survey.object_files import object_files
    from lens_pipeline.survey.real_cutouts import cube_paths, refuse_missing_cubes

    folder = _folder(parent.folder)
    paths = cube_paths(folder)
    if holds_images(parent.folder):
        _refuse_images_alone(parent)
    elif any(path.exists() for path in paths.values()):
        refuse_missing_cubes(folder, paths)
    else:
        object_files(folder, tuple(paths))


def _refuse_images_alone(parent: ParentSampleConfig) -> None:
    if not parent.catalogue:
        raise ConfigError(
            f"{parent.folder} holds a survey's images: set parent_sample.catalogue to a table of the galaxies to cut."
        )


def _look_for_images(text: str) -> None:
    if is_address(text):
        Address.parse(text)
    elif text:
        from lens_pipeline.survey.images_at import holds_images

        folder = _folder(text)
        if not holds_images(text):
            raise ConfigError(f"{folder} holds neither coadd/ nor survey-ccds*.fits.")


def _folder(text: str) -> Path:
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"{no_folder(folder)}; a relative path begins where the command is typed.")
    return folder


def _look_for_file(text: str) -> None:
    path = Path(text).expanduser().absolute()
    if text and not path.is_file():
        raise ConfigError(f"{no_file(path)}; a relative path begins where the command is typed.")
