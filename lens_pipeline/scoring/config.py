"""Settings of scoring. No torch here."""

from pydantic import Field, model_validator

from lens_pipeline.batches.reader import Reader
from lens_pipeline.contracts.config import Section
from lens_pipeline.training.choices import Device


class ScoringConfig(Section):
    """How a checkpoint is run over a store."""

    members: list[str] = Field(
        [],
        max_length=100,
        description="names of the models whose mean logit is the score (docs/several-models.md); empty: the workspace's own",
    )
    tta: bool = Field(
        False,
        description="score each stamp as the mean over its 8 turns and flips (test-time augmentation); 8 times the work",
    )
    device: Device = Field(Device.cpu, description="cpu or cuda; cuda on a machine without a GPU is refused")
    batch_size: int = Field(
        128, ge=1, le=65_536, description="rows of one forward pass; on cpu it moves no bit of any score"
    )
    threads: int = Field(0, ge=0, le=256, description="batches at work side by side on cpu; 0: one for each core")
    reader: Reader = Field(
        Reader.auto,
        description="where batches are taken from, the same bytes each: mapped, pread (a store larger than memory), memory "
        "or device (held whole in host or GPU memory); auto: what fits",
    )
    channels_last: bool = Field(
        True, description="bands of a pixel side by side in what the model sees; moves last bits"
    )
    matched_filter: bool = Field(
        True,
        description="let a classical finder, a matched filter, look at val_calibrate and test too (docs/completeness.md); 0.3 ms "
        "a stamp and core",
    )
    max_tied_share: float = Field(
        0.01, ge=0, le=1, description="share of the negatives that may hold the one top logit before saturation is red"
    )
    min_distinct_share: float = Field(
        0.5, ge=0, le=1, description="distinct logits over rows below which saturation is red"
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> "ScoringConfig":
        if self.reader is Reader.device and self.device is Device.cpu:
            raise ValueError("reader is device, and device is cpu: there is no GPU to hold the rows; set reader: auto")
        twice = sorted({name for name in self.members if self.members.count(name) > 1})
        if twice:
            raise ValueError(f"members names {', '.join(twice)} more than once: each model counts once")
        return self
