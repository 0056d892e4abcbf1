"""The split of any region by a frozen region_splits, of those that no stored row tells of too."""

from collections.abc import Mapping

from lens_pipeline.splits.assignment import SPLITS, assign, assign_within_survey_split
from lens_pipeline.splits.config import SplitConfig
from lens_pipeline.splits.region_splits import SURVEY_SPLITS
from lens_pipeline.storage.publication import Publication


def split_of_regions(splits: Publication, survey_split: Mapping[str, str | None]) -> dict[str, str | None]:
    """Say the split of each region: as published, else as the frozen seed or the survey's own split gives it.

    Parameters
    ----------
    survey_split : mapping of str to str or None
        Each region that is asked for, and the survey's own split of it where it names one.

    Returns
    -------
    dict
        Region to split; None where regions follow the survey's own split and it names none of those there are.
    """
    table = splits.read_table(columns=["region_id", "split"])
    known = dict(zip(table["region_id"].to_pylist(), table["split"].to_pylist(), strict=True))
    config, seed = SplitConfig(**splits.attributes["settings"]), int(splits.attributes["seed"])
    absent = [region for region in survey_split if region not in known]
    if splits.attributes["by_survey"]:
        absent = [region for region in absent if survey_split[region] in SURVEY_SPLITS]
        places = assign_within_survey_split(absent, [str(survey_split[region]) for region in absent], seed, config)
    else:
        places = assign(absent, seed, config)
    known |= {region: SPLITS[place] for region, place in zip(absent, places, strict=True)}
    return {region: known.get(region) for region in survey_split}
