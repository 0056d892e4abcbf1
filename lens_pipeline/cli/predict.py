"""``lens_pipeline predict``: a score for every stamp in some files, or the reason why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lens_pipeline.contracts.catalogue import PREDICTIONS
from lens_pipeline.contracts.errors import ConfigError
from lens_pipeline.defs.sections import RunConfig, load_preset, resource_settings
from lens_pipeline.evaluation.wording import count
from lens_pipeline.scoring.aliases import Alias, asset_of, open_alias
from lens_pipeline.scoring.fits_inputs import FitsOptions
from lens_pipeline.scoring.inputs import expand
from lens_pipeline.storage.home import DEFAULT_MODEL, Home
from lens_pipeline.storage.publication import Publication
from lens_pipeline.training.choices import Device

_PRESETS = (".yaml", ".yml")


@dataclass(frozen=True)
class Which:
    """How a version of a model, a lens_classifier or an ensemble, is named on the command line: in one way.

    Attributes
    ----------
    version, alias : str, Alias or None
        Which of the model's; neither means the candidate.
    folder : Path or None
        Folder of a version, wherever it was copied to; then nothing else is given.
    """

    preset: Path | None = None
    dataset: str | None = None
    model: str | None = None
    version: str | None = None
    alias: Alias | None = None
    folder: Path | None = None

    def dataset_and_model(self) -> tuple[str, str]:
        """Return the names under which versions stand in the home.

        Raises
        ------
        ConfigError
            If neither a preset nor a dataset is given, or both.
        """
        if (self.preset is None) == (self.dataset is None):
            raise ConfigError("name either a preset (presets/NAME.yaml) or --dataset NAME.")
        settings = resource_settings(self.settings(), "workspace")
        return self.dataset or settings.get("dataset", "simulated"), self.model or settings.get("model", DEFAULT_MODEL)

    def settings(self) -> RunConfig:
        """Return what the preset says; without one nothing."""
        return load_preset(self.preset) if self.preset is not None else {}

    def open(self) -> Publication:
        """Open the version.

        Raises
        ------
        ConfigError
            If it is named in more ways than one.
        """
        if self.folder is not None:
            others = [self.preset, self.dataset, self.model, self.version, self.alias]
            if any(other is not None for other in others):
                raise ConfigError(
                    "--folder names a version by itself: leave out the preset, --dataset, --model, --version and --alias."
                )
            return Publication.open(self.folder)
        if self.version is not None and self.alias is not None:
            raise ConfigError(
                f"--version {self.version} and --alias {self.alias} both say which version: leave out one of them."
            )
        dataset, model = self.dataset_and_model()
        home = Home.from_environment()
        if self.version is not None:
            return home.open(dataset, asset_of(home, dataset, model), model=model, version=self.version)
        return open_alias(home, dataset, model, self.alias or Alias.candidate)


def split_preset(names: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Tell a preset that stands before the inputs from them."""
    if names and Path(names[0]).suffix in _PRESETS:
        return Path(names[0]), list(names[1:])
    return None, list(names)


@dataclass(frozen=True)
class Images:
    """A survey's images that galaxies are cut out of, and the picture to draw of them.

    Attributes
    ----------
    where : str
        Folder, or s3:// address of coadds.
    picture : Path or None
        PNG to write.
    """

    where: str
    picture: Path | None = None


def run(
    which: Which,
    names: Sequence[str],
    out: Path,
    options: FitsOptions,
    device: Device,
    *,
    tta: bool = False,
    prevalence: float | None = None,
    images: Images | None = None,
) -> int:
    """Score every input into a parquet file; return 1 if no stamp could be scored.

    Parameters
    ----------
    prevalence : float, optional
        Share of lenses among what is scored, for `p_lens`; by default that of the model's operating point.
    images : Images, optional
        Then the one input is a table of galaxies that are cut out of them.
    """
    # Torch takes seconds to import, which the other commands shouldn't pay.
    from lens_pipeline.scoring.model import open_model
    from lens_pipeline.scoring.places import score_places
    from lens_pipeline.scoring.predict import predict_files
    from lens_pipeline.scoring.probability import odds_of

    if not names:
        raise ConfigError("name at least one input: *.fits, a name with {band} in it, *.npy, *.npz or *.parquet.")
    if images is not None and len(names) != 1:
        raise ConfigError(f"--images takes one table of galaxies, with galaxy_id, ra and dec; {len(names)} are named.")
    publication = which.open()
    home = Home.from_environment()
    classifier = open_model(home, publication, tta=tta)
    odds = odds_of(home, publication, is_turned=classifier.is_turned, prevalence=prevalence)
    members = publication.attributes.get("members", [])
    what = (
        f"the mean of {', '.join(member['model'] for member in members)}" if members else classifier.spec.architecture
    )
    turns = ", mean over 8 turns and flips" if classifier.is_turned else ""
    print(f"{publication.asset} {publication.version} of {publication.dataset}, {what}{turns}")
    if images is not None:
        where, picture = images.where, images.picture
        tally = score_places(classifier, names[0], where, out, odds=odds, picture=picture, device=device)
    else:
        inputs = expand(names, classifier.contract.bands)
        tally = predict_files(classifier, inputs, out, options=options, device=device, odds=odds)
    print(
        f"{count(tally.inputs, 'input')}, {count(tally.rows, 'row')}: "
        f"{tally.scored:,} scored, {tally.refused.total():,} refused"
    )
    for reason, n in tally.refused.most_common():
        print(f"  {reason:<20} {n:,}")
    print(f"p_lens: {odds}")
    if tally.extrapolated:
        print(f"  {'extrapolated':<20} {tally.extrapolated:,}: above every control or below every injection of its fit")
    print(f"{out}: {', '.join(PREDICTIONS.schema.names)}")
    if images is not None and images.picture is not None:
        print(f"{images.picture}: the first galaxies of the table, each with its logit or reason")
    return 0 if tally.scored else 1
