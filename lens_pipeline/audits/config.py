"""Settings of shortcut_gates."""

from pydantic import Field

from lens_pipeline.contracts.config import Section
from lens_pipeline.training.choices import Device


class ShortcutGatesConfig(Section):
    """How many stamps are looked at before a model may be promoted."""

    n_stamps: int = Field(
        2000,
        ge=2,
        le=10_000_000,
        description="stamps of each kind of pairs that the data gates compare; half are controls",
    )
    n_counterfactuals: int = Field(
        128,
        ge=20,
        le=10_000,
        description="galaxies of val_calibrate whose injection is rendered again with another arc",
    )
    min_arc_snr: float = Field(
        5.0,
        ge=0,
        le=1000,
        description="least peak signal-to-noise of the arc of these injections: one that can be seen",
    )
    n_maps: int = Field(6, ge=0, le=64, description="of these injections, those whose evidence is mapped and drawn")
    n_path_rows: int = Field(
        128, ge=16, le=2048, description="published stamps that are scored again by every other path"
    )
    max_path_difference: float = Field(
        0.01,
        ge=0,
        le=1,
        description="most by which a logit may differ between two paths, in units of max(1, |logit|); on one CPU it is 0, on a "
        "GPU TF32 moves it by a few 1e-3",
    )
    device: Device = Field(Device.cpu, description="where the model is asked: cpu or cuda")
