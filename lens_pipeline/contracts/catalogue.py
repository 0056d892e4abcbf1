"""Every table that the chain publishes, declared once; docs/tables.md is generated from here."""

from lens_pipeline.contracts.arc_tables import NOISELESS_ARCS
from lens_pipeline.contracts.audit_tables import SHORTCUT_GATES
from lens_pipeline.contracts.data_tables import (
    QUARANTINE,
    REGION_SPLITS,
    SET_ASIDE,
    SPLIT_ROWS,
    STAMP_STORE,
    STORED_FRAGMENTS,
)
from lens_pipeline.contracts.doctor_tables import DOCTOR
from lens_pipeline.contracts.model_tables import (
    COMPLETENESS,
    FOLD_THRESHOLDS,
    HISTORY,
    METRICS,
    OPERATING_POINT,
    OUT_OF_FOLD,
    OUT_OF_FOLD_COMPLETENESS,
    PREDICTIONS,
    SCORES,
    SWEEP,
)
from lens_pipeline.contracts.parent_tables import (
    IMAGE_FILES,
    KNOWN_LENSES,
    PARENT_COMPLETENESS,
    PARENT_LEFT_OUT,
    PARENT_SAMPLE,
)
from lens_pipeline.contracts.real_lens_tables import REAL_LENS_RECOVERY, REAL_LENS_STAMPS
from lens_pipeline.contracts.realism_tables import REALISM, REALISM_CURVES
from lens_pipeline.contracts.survey_tables import INJECTION_DESIGN, INJECTION_MANIFEST, NULL_FLUX, REAL_SOURCES, STAMPS
from lens_pipeline.contracts.tables import TableContract

__all__ = [
    "CATALOGUE",
    "COMPLETENESS",
    "DOCTOR",
    "FOLD_THRESHOLDS",
    "HISTORY",
    "IMAGE_FILES",
    "INJECTION_DESIGN",
    "INJECTION_MANIFEST",
    "KNOWN_LENSES",
    "METRICS",
    "NOISELESS_ARCS",
    "NULL_FLUX",
    "OPERATING_POINT",
    "OUT_OF_FOLD",
    "OUT_OF_FOLD_COMPLETENESS",
    "PARENT_COMPLETENESS",
    "PARENT_LEFT_OUT",
    "PARENT_SAMPLE",
    "PREDICTIONS",
    "QUARANTINE",
    "REALISM",
    "REALISM_CURVES",
    "REAL_LENS_RECOVERY",
    "REAL_LENS_STAMPS",
    "REAL_SOURCES",
    "REGION_SPLITS",
    "SCORES",
    "SET_ASIDE",
    "SHORTCUT_GATES",
    "SPLIT_ROWS",
    "STAMPS",
    "STAMP_STORE",
    "STORED_FRAGMENTS",
    "SWEEP",
]

CATALOGUE: tuple[TableContract, ...] = (
    PARENT_SAMPLE,
    PARENT_LEFT_OUT,
    IMAGE_FILES,
    KNOWN_LENSES,
    PARENT_COMPLETENESS,
    INJECTION_MANIFEST,
    NULL_FLUX,
    REAL_SOURCES,
    INJECTION_DESIGN,
    STAMPS,
    NOISELESS_ARCS,
    REALISM,
    REALISM_CURVES,
    STAMP_STORE,
    QUARANTINE,
    STORED_FRAGMENTS,
    REGION_SPLITS,
    SPLIT_ROWS,
    SET_ASIDE,
    HISTORY,
    SCORES,
    OUT_OF_FOLD,
    OPERATING_POINT,
    COMPLETENESS,
    OUT_OF_FOLD_COMPLETENESS,
    FOLD_THRESHOLDS,
    REAL_LENS_RECOVERY,
    REAL_LENS_STAMPS,
    METRICS,
    SHORTCUT_GATES,
    DOCTOR,
    SWEEP,
    PREDICTIONS,
)
