"""The dataset contract: what a set of stamps says of itself (key, bands, size, classes, strata, quality cut).

Nothing downstream knows that there are two classes, three bands or 64 pixels; it asks this object.
"""

import hashlib
import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

NANOMAGGY_ZERO_POINT_AB = 22.5


class StampClass(BaseModel):
    """One class of stamps: its name and the values of the label column that mean it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label_values: tuple[str, ...] = Field(min_length=1)


class DatasetContract(BaseModel):
    """What a set of stamps says of itself.

    Attributes
    ----------
    classes : tuple of StampClass
        In the order of their integer labels; the first is the negative class (no lens).
    stamp_size : int
        Pixels on a side; arrays are (band, y, x).
    theta_e_edges_arcsec : tuple of float
        Inner edges of the Einstein-radius strata that splits are balanced on; the outermost reach 0 and infinity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "decals_dr10_grz"
    key: str = "task_id"
    bands: tuple[str, ...] = Field(default=("g", "r", "z"), min_length=1)
    stamp_size: int = Field(default=64, ge=8, le=1024)
    pixel_scale_arcsec: float = Field(default=0.262, gt=0)
    flux_unit: str = "nanomaggy"
    blob_column: str = "stamp_npz"
    member_prefix: str = "image_"
    label_column: str = "lens_model"
    classes: tuple[StampClass, ...] = Field(
        default=(
            StampClass(name="control", label_values=("CONTROL",)),
            StampClass(name="lens", label_values=("SIE", "SIS", "EPL", "SIE_SHEAR")),
        ),
        min_length=2,
    )
    region_column: str = "region_id"
    galaxy_column: str = "galaxy_id"
    quality_column: str = "cutout_ok"
    theta_e_edges_arcsec: tuple[float, ...] = (0.75, 1.25, 1.75)

    @model_validator(mode="after")
    def _label_values_are_unique(self) -> "DatasetContract":
        values = [value for stamp_class in self.classes for value in stamp_class.label_values]
        if len(values) != len(set(values)):
            raise ValueError(f"a label value belongs to two classes: {values}")
        return self

    @property
    def stamp_shape(self) -> tuple[int, int, int]:
        """(band, y, x)."""
        return (len(self.bands), self.stamp_size, self.stamp_size)

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the arrays in a stamp blob, in band order."""
        return tuple(f"{self.member_prefix}{band}" for band in self.bands)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of their integer labels."""
        return tuple(stamp_class.name for stamp_class in self.classes)

    @property
    def control_value(self) -> str:
        """Value of the label column of a galaxy as the survey has them: the first one of the negative class.

        Its others (fakes, hard negatives, a set's own classes of contaminants) are there in a share that somebody chose.
        """
        return self.classes[0].label_values[0]

    @property
    def label_of(self) -> dict[str, int]:
        """Integer label of each known value of the label column; an absent value has no label."""
        return {value: label for label, stamp_class in enumerate(self.classes) for value in stamp_class.label_values}

    @property
    def n_outputs(self) -> int:
        """Size of a classifier's head: one logit for two classes, else one a class."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    def stratum(self, label: int, lens_model: str, theta_e_arcsec: float | None) -> str:
        """Name the stratum that a row is balanced in: class, Einstein-radius bin and lens model.

        Of the negative class, rows of any but its first label value (fakes, say) are strata of their own.
        """
        if label == 0 and lens_model != self.control_value:
            return f"{self.class_names[0]}/{lens_model}"
        if label == 0 or theta_e_arcsec is None:
            return self.class_names[label]
        edges = (0.0, *self.theta_e_edges_arcsec, math.inf)
        place = max(i for i in range(len(edges) - 1) if theta_e_arcsec >= edges[i])
        return f"{self.class_names[label]}/{lens_model}/theta_e {edges[place]:g}-{edges[place + 1]:g}"

    def sha256(self) -> str:
        """Hash of everything the contract says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()
