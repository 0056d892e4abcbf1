"""The words that settings of the training can take, each with what it means; torch is not imported here."""

from enum import StrEnum


class Architecture(StrEnum):
    """The timm models whose stem is fitted to small stamps here, and tested; docs/models.md compares them."""

    test_resnet = "test_resnet"
    resnet10t = "resnet10t"
    resnet18 = "resnet18"
    regnetx_002 = "regnetx_002"
    efficientnet_b0 = "efficientnet_b0"
    test_convnext = "test_convnext"
    convnext_tiny = "convnext_tiny"
    vit_tiny = "vit_tiny"

    @property
    def has_batchnorm(self) -> bool:
        """Whether its own layers normalise over the batch."""
        return self not in (Architecture.test_convnext, Architecture.convnext_tiny, Architecture.vit_tiny)


class Normalization(StrEnum):
    """What a layer that normalises over the batch is: as it is, over groups of a row's own channels, or over all ranks."""

    batch = "batch"
    group = "group"
    sync = "sync"


class Device(StrEnum):
    """What to compute on; there is no automatic choice, so that a run never lands elsewhere than it says."""

    cpu = "cpu"
    cuda = "cuda"


class Precision(StrEnum):
    """In what the forward pass multiplies; losses, metrics and weights are float32 in each."""

    float32 = "float32"
    bf16 = "bf16"
    float16 = "float16"


class Monitor(StrEnum):
    """The one metric on val_select that decides both when to stop and which checkpoint is the best."""

    val_loss = "val_loss"
    val_balanced_loss = "val_balanced_loss"
    val_auroc = "val_auroc"
    val_partial_auc = "val_partial_auc"

    @property
    def larger_is_better(self) -> bool:
        """Whether an improvement is upwards."""
        return self in (Monitor.val_auroc, Monitor.val_partial_auc)


class LossName(StrEnum):
    """Cross-entropy (binary, or of k classes), or the focal loss that passes over easy rows."""

    cross_entropy = "cross_entropy"
    focal = "focal"


class ScheduleName(StrEnum):
    """How the learning rate goes on after the warmup: half a cosine; down again (one cycle); or down when nothing improves."""

    cosine = "cosine"
    one_cycle = "one_cycle"
    plateau = "plateau"


class ClassWeighting(StrEnum):
    """Weights of the classes in the training loss: all 1, or inverse to their counts in the training split."""

    none = "none"
    balanced = "balanced"


class StratumWeighting(StrEnum):
    """Weights of the strata of a class in the training loss: all 1, or inverse to their counts in the training split."""

    none = "none"
    balanced = "balanced"


class RowOrder(StrEnum):
    """In which order training rows come: each once; weighted by repeats or by draws; or injections beside their controls."""

    shuffled = "shuffled"
    repeated = "repeated"
    with_replacement = "with_replacement"
    paired = "paired"

    @property
    def is_weighted(self) -> bool:
        """Whether it takes weights of classes or strata."""
        return self in (RowOrder.repeated, RowOrder.with_replacement)


class Stretch(StrEnum):
    """Which preprocessing (lens_pipeline.batches.preprocessing) the model sees its stamps through."""

    asinh_v1 = "asinh_v1"
    robust_clip_v1 = "robust_clip_v1"
