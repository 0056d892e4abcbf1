"""Settings of the classifier's training. Every one of them acts; torch is not imported here."""

from pydantic import Field, model_validator

from lens_pipeline.batches.reader import Reader
from lens_pipeline.contracts.config import Section
from lens_pipeline.stamps.weighted import LARGEST_WEIGHT, LEAST_WEIGHT
from lens_pipeline.training.choices import (
    Architecture,
    ClassWeighting,
    Device,
    LossName,
    Monitor,
    Normalization,
    Precision,
    RowOrder,
    ScheduleName,
    StratumWeighting,
    Stretch,
)
from lens_pipeline.training.recipes import refuse_uncomposable

# Statistics of fewer rows are noise (batch normalisation), so such a batch is refused.
MIN_BATCHNORM_ROWS = 16

# How a run is fed, watched and kept: no bit that it trains depends on these, and they may differ between two starts of it.
HANDLING = frozenset(
    {
        "attempts",
        "checkpoint_every_steps",
        "checkpoints_kept",
        "hang_seconds",
        "loader_threads",
        "reader",
        "report_every_steps",
    }
)


class TrainingConfig(Section):
    """How the classifier is trained."""

    model: Architecture = Field(Architecture.test_resnet, description="timm architecture (docs/models.md)")
    normalization: Normalization = Field(
        Normalization.batch,
        description="of layers that normalise over the batch: batch (16 rows a rank at least), sync (over all ranks of a "
        "step, cuda only) or group (each row by itself)",
    )
    pretrained: str | None = Field(
        None, description="safetensors file of the architecture's weights to start from; null: fresh weights"
    )
    pretrained_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of that file; another file is refused"
    )
    metadata: list[str] = Field(
        [],
        description="columns that the head sees beside the pixels (seeing, depth); none may be named before a published "
        "metadata-only probe is blind",
    )
    preprocessing: Stretch = Field(Stretch.asinh_v1, description="named function from pixels to what the model sees")
    softening: float = Field(
        1.0, gt=0, le=1000, description="noise sigmas at which the stretch turns from linear to logarithmic"
    )
    device: Device = Field(Device.cpu, description="cpu or cuda; cuda on a machine without enough GPUs is refused")
    precision: Precision = Field(
        Precision.float32,
        description="what a GPU multiplies in: float32, bf16, or float16 with a gradient scaler (GPUs without bf16)",
    )
    compile: bool = Field(False, description="compile the model (torch.compile); moves last bits, needs a C++ compiler")
    deterministic: bool = Field(
        True, description="only kernels that give the same bits every time; false: faster on a GPU, no bit-exact resume"
    )
    world_size: int = Field(2, ge=1, le=64, description="ranks that torchrun starts on this machine")
    threads_per_rank: int = Field(
        1,
        ge=0,
        le=256,
        description="compute threads of a rank, whose number moves last bits on a CPU; 0: this machine's cores divided by ranks",
    )
    loader_threads: int = Field(1, ge=1, le=64, description="threads of a rank that gather rows ahead of the model")
    reader: Reader = Field(
        Reader.auto,
        description="where batches are taken from, the same bytes each: mapped, pread (a store larger than memory), memory "
        "or device (held whole in host or GPU memory); auto: what fits",
    )
    channels_last: bool = Field(
        True, description="bands of a pixel side by side in what the model sees; moves last bits"
    )
    seed: int = Field(1, ge=0, le=2**31 - 1, description="seed of weights, order, augmentation and dropout")
    folds: int = Field(
        0,
        ge=0,
        le=100,
        description="folds that the regions of train and val_select are dealt into, for cross-validation; 0: train and "
        "val_select as they are",
    )
    fold: int = Field(0, ge=0, le=99, description="the fold that is validated on; all others are trained on")
    epochs: int = Field(6, ge=1, le=10_000, description="most epochs to train")
    batch_size: int = Field(
        64, ge=1, le=65_536, description="rows of one step over all ranks; a multiple of world_size"
    )
    micro_batch_size: int = Field(
        0,
        ge=0,
        le=65_536,
        description="most rows that a rank takes through the model at once, gradients summed up to batch_size; 0: all",
    )
    order: RowOrder = Field(
        RowOrder.shuffled,
        description="in which order, and how often, training rows come in an epoch; paired: an injection next to its control",
    )
    order_weights: dict[str, float] = Field(
        {},
        description="weight of a class or a stratum, by name, 0.01 to 100, others have 1 (order repeated or with_replacement)",
    )
    validation_batch_size: int = Field(128, ge=1, le=65_536, description="rows of one validation batch of a rank")
    schedule: ScheduleName = Field(
        ScheduleName.cosine,
        description="learning rate after the warmup: cosine, one_cycle, or plateau (lowered when the monitor stands still)",
    )
    learning_rate: float = Field(2e-3, gt=0, le=1, description="peak learning rate of AdamW")
    min_learning_rate: float = Field(
        1e-6, ge=0, le=1, description="learning rate at the last step; plateau: the lowest"
    )
    warmup_epochs: float = Field(
        1.0,
        ge=0,
        le=1000,
        description="epochs until the peak, by step: linear, in one_cycle half a cosine from 1/25 of it",
    )
    plateau_factor: float | None = Field(
        None, ge=0.01, le=0.99, description="what plateau multiplies the learning rate by; null with another schedule"
    )
    plateau_patience: int | None = Field(
        None, ge=0, le=10_000, description="epochs without improvement that plateau bears; null with another schedule"
    )
    layer_decay: float = Field(
        1.0,
        ge=0.3,
        le=1,
        description="learning rate of a layer over that of the next one towards the head; 1: all alike",
    )
    frozen_epochs: int = Field(0, ge=0, le=10_000, description="first epochs in which only the head is trained")
    thaw_every_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="then epochs from one stage's thawing to the next, head to stem, as far as epochs reach; 0: all at once",
    )
    weight_decay: float = Field(0.05, ge=0, le=10, description="AdamW weight decay of matrices and kernels")
    clip_norm: float | None = Field(5.0, gt=0, description="largest gradient norm; null: no clipping")
    loss: LossName = Field(LossName.cross_entropy, description="training loss of a row: cross_entropy or focal")
    focal_gamma: float | None = Field(
        None, ge=0, le=10, description="focal loss: how strongly easy rows are passed over, 2 in the paper; else null"
    )
    focal_alpha: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="focal loss of two classes: weight of lenses, the others have 1 - alpha; null: none",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="share of a label that is spread over all classes (cross_entropy)"
    )
    class_weighting: ClassWeighting = Field(ClassWeighting.none, description="weights of the classes in the loss")
    stratum_weighting: StratumWeighting = Field(
        StratumWeighting.none, description="weights of the strata within their class in the loss"
    )
    mixup_alpha: float = Field(
        0.0, ge=0, le=10, description="mixup: parameter of the Beta law of the share (cross_entropy); 0: off"
    )
    cutmix_alpha: float = Field(
        0.0, ge=0, le=10, description="cutmix: likewise, by area; with mixup on too, each has half of the steps; 0: off"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path: float = Field(
        0.0, ge=0, lt=1, description="share of rows that skip the last residual block; less in the blocks before it"
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay a step of the moving average of the weights that is validated and published; 0: the weights",
    )
    swa_epochs: int = Field(
        0,
        ge=0,
        le=10_000,
        description="last epochs whose weights are averaged equally (stochastic weight averaging); their mean, with batch "
        "statistics taken anew, is validated and published; 0: the weights",
    )
    monitor: Monitor = Field(Monitor.val_loss, description="decides stopping and the best checkpoint")
    patience: int = Field(5, ge=1, le=10_000, description="epochs without improvement after which training stops")
    min_delta: float = Field(
        0.0,
        ge=0,
        le=10,
        description="smallest improvement of the monitor that counts, in its standard errors on val_select",
    )
    partial_auc_max_fpr: float = Field(
        0.01, gt=0, le=1, description="largest false-positive rate that val_partial_auc takes in"
    )
    checkpoint_every_steps: int = Field(200, ge=1, description="steps between checkpoints within an epoch")
    checkpoints_kept: int = Field(2, ge=1, le=1000, description="newest checkpoints that are kept, beside the best")
    report_every_steps: int = Field(10, ge=1, description="steps between progress events")
    attempts: int = Field(
        5,
        ge=1,
        le=1000,
        description="starts of torchrun in a row that may end without a new checkpoint before the run is given up",
    )
    hang_seconds: float = Field(
        300,
        ge=1,
        le=86_400,
        description="longest that a rank may take for one step; then its stacks are logged and the ranks started anew "
        "(six times as long before the first step)",
    )

    @model_validator(mode="after")
    def _settings_agree(self) -> "TrainingConfig":
        if self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size} is over all ranks and must be a multiple of world_size {self.world_size}"
            )
        self._refuse_other_normalization()
        self._refuse_other_model()
        if self.precision is Precision.float16 and self.device is Device.cpu:
            raise ValueError("precision float16 is for GPUs; on device cpu take float32")
        if self.reader is Reader.device and self.device is Device.cpu:
            raise ValueError("reader is device, and device is cpu: there is no GPU to hold the rows; set reader: auto")
        self._refuse_other_order()
        self._refuse_other_fold()
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} is more than epochs {self.epochs}")
        refuse_uncomposable(self)
        return self

    def _refuse_other_normalization(self) -> None:
        if self.normalization is not Normalization.batch and not self.model.has_batchnorm:
            raise ValueError(
                f"normalization {self.normalization.value} acts on layers that normalise over the batch, and "
                f"{self.model.value} has none: leave it out"
            )
        if self.normalization is Normalization.sync and self.device is Device.cpu:
            raise ValueError("normalization sync works on cuda only, and device is cpu: set normalization: group")
        rows = self.least_rows_at_once
        if self.normalization is Normalization.sync:
            rows *= self.world_size
        if not self.model.has_batchnorm or self.normalization is Normalization.group or rows >= MIN_BATCHNORM_ROWS:
            return
        within = "over all ranks" if self.normalization is Normalization.sync else "of a rank"
        raise ValueError(
            f"{self.model.value} normalises over the batch, and {rows} rows at once {within} (batch_size {self.batch_size}, "
            f"world_size {self.world_size}, micro_batch_size {self.micro_batch_size}) are too few for that: at least "
            f"{MIN_BATCHNORM_ROWS} are needed. Raise batch_size or micro_batch_size, or set normalization: group"
        )

    @property
    def least_rows_at_once(self) -> int:
        """Least rows that a rank takes through the model at once in a full step.

        A step is cut into as many micro-batches as the rank with most rows needs, of almost equal size, as many on every rank.
        """
        least, most = self.batch_size // self.world_size, -(-self.batch_size // self.world_size)
        return least // -(-most // (self.micro_batch_size or most))

    def _refuse_other_model(self) -> None:
        if (self.pretrained is None) != (self.pretrained_sha256 is None):
            raise ValueError(
                "pretrained and pretrained_sha256 are given together or not at all: sha256sum FILE says it"
            )
        if self.metadata:
            raise ValueError(
                f"metadata {self.metadata} can't be used: seeing or depth may give the label away, so they are allowed only "
                "when a published probe that sees nothing else is blind (AUROC 0.49 to 0.51), and there is no such probe "
                "yet. Leave metadata out"
            )

    def _refuse_other_fold(self) -> None:
        if self.folds == 1:
            raise ValueError(
                "folds 1 leaves nothing to train on: set 2 or more, or 0 for train and val_select as they are"
            )
        if self.fold and self.fold >= self.folds:
            raise ValueError(
                f"fold {self.fold} of folds {self.folds}: folds are numbered from 0, and without folds there is none to name"
            )

    def _refuse_other_order(self) -> None:
        out = {name: w for name, w in self.order_weights.items() if not LEAST_WEIGHT <= w <= LARGEST_WEIGHT}
        if out:
            raise ValueError(
                f"order_weights {out} are out of range: {LEAST_WEIGHT:g} to {LARGEST_WEIGHT:g} are possible"
            )
        if self.order.is_weighted != bool(self.order_weights):
            raise ValueError(
                f"order {self.order.value} with order_weights {self.order_weights}: the orders repeated and "
                "with_replacement take weights of classes or strata by name, the others take none"
            )
        if self.order_weights and all(weight == 1 for weight in self.order_weights.values()):
            raise ValueError(
                f"order_weights {self.order_weights} are all 1, which has no effect, since others have 1 too: give a weight that "
                "isn't 1, or take order shuffled"
            )
        if self.order is RowOrder.paired and self.batch_size % (2 * self.world_size):
            raise ValueError(
                f"order paired keeps pairs within a rank's part of a step, which must be even: batch_size {self.batch_size} "
                f"must be a multiple of 2 x world_size {self.world_size}"
            )
