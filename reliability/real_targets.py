"""DESI's 1,001 real targets: which of their LRG bits each published selection gives, and which lens systems it would lose.

They lie beside the project, in the folder that `LENS_PIPELINE_REAL_DATA` names. The cuts of 2020 must give every bit and no
other row; of those of the main survey, which came later, what they give is counted. With a blue arc of r = 22 in their fluxes,
the galaxies that a selection keeps are judged again.
"""

import os
from pathlib import Path

import polars as pl
import pyarrow as pa

from lens_pipeline.survey.parent_completeness import parent_completeness
from lens_pipeline.survey.selections import SELECTIONS
from lens_pipeline.survey.tractor import Catalogue
from reliability.subject import Case, Subject

# Selection, and whether it is the one whose bits the targets carry.
_SELECTIONS = (("lrg_dr8_2020_colours", True), ("lrg_dr9_main_colours", False))
_LRG_BIT = 1
_ARC_MAG_R, _ARC_COLOUR = 22.0, "star_forming"


def case(number: int) -> Case:
    """Judge every target by one selection, and those that it keeps again with an arc."""
    name, must_agree = _SELECTIONS[number]
    selection = SELECTIONS[name]
    targets = targets_with((*selection.columns, "DESI_TARGET"))
    is_lrg, kept = (targets["DESI_TARGET"] & _LRG_BIT) > 0, selection.keeps(targets)
    missed, others = int((is_lrg & ~kept).sum()), int((kept & ~is_lrg).sum())
    counts = {
        f"LRG bits that {name} gives": int((kept & is_lrg).sum()),
        f"LRG bits that {name} doesn't give": missed,
        f"other rows that {name} keeps": others,
    }
    lost = pl.DataFrame(parent_completeness(selection.keeps, targets.filter(kept)))
    arcs = lost.filter((pl.col("arc_mag_r") == _ARC_MAG_R) & (pl.col("source_colour") == _ARC_COLOUR))
    shares = {
        f"% of {row['n']} that {name} keeps with {row['blended_share']:.0%} of a blue arc of r = {_ARC_MAG_R:g}": 100
        * row["share_kept"]
        for row in arcs.to_dicts()
    }
    problem = f"{name}: {missed} bits missed, {others} other rows kept" if must_agree and missed + others else None
    return Case(problem, n=targets.height, largest=shares, counts=counts)


def targets_with(columns: tuple[str, ...]) -> pl.DataFrame:
    """Read columns of the real targets; without them the command ends, and nothing is counted."""
    beside = Path(__file__).parent.parent.parent / "shared" / "data"
    path = Path(os.environ.get("LENS_PIPELINE_REAL_DATA") or beside) / "desi_targets" / "targets.fits"
    if not path.is_file():
        raise SystemExit(f"there is no {path}: set LENS_PIPELINE_REAL_DATA to the folder of real data")
    found = pl.from_arrow(pa.Table.from_batches(Catalogue.open(path).batches(columns)))
    assert isinstance(found, pl.DataFrame)
    return found


SUBJECT = Subject(
    name="real_targets",
    question="the published LRG cuts of 2020 give all LRG bits of DESI's 1,001 real targets and keep no other row; what those of "
    "the main survey give, and what share each keeps with a blue arc in the fluxes, is counted",
    unit="targets judged",
    goal=2_002,
    case=case,
    n_cases=len(_SELECTIONS),
)
