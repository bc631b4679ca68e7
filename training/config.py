"""A training run as data: YAML into a frozen, checked class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.datasets import DatasetKind, DatasetSource
from training.datasets.ferplus import VoteRule

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Chance = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CompactConfig(_Part):
    """The compact network."""

    name: Literal["compact"]
    residual_widths: tuple[Count, ...] | None = None
    """Channels of each stage of the residual small kernels. The first stage has full size, and each
    next stage half the size of the stage before. None: plain small kernels."""
    backbone_size: Annotated[int, Field(ge=32)] | None = None
    """Side in px to which images are enlarged for the backbone. None: no backbone."""
    backbone: Literal["efficientnet_lite", "face_resnet", "face_mobilenet"] = "efficientnet_lite"
    """Published weights: of ImageNet for `efficientnet_lite`, of face recognition for the others."""
    backbone_blocks: Annotated[int, Field(ge=10, le=13)] = 13
    """Number of blocks of a face recognition, counted from its input."""
    backbone_width: Positive = 1.0
    backbone_depths: tuple[Count, Count, Count, Count, Count, Count, Count] = (1, 2, 2, 3, 3, 4, 1)
    """Multiplier of EfficientNet-Lite0's channels, and blocks per stage. Defaults fit pretrained weights."""
    large_kernels: bool = True
    """The branch of large kernels and its mixture."""
    extractor_width: Count = 16
    features: Count = 256
    experts: Count = 4
    top_k: Count = 2
    renormalise: bool = True
    dropout: Share = 0.3

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(f"top_k is {self.top_k}, but there are only {self.experts} experts")
        # Its convolutions without padding reduce smaller images to nothing.
        if self.backbone == "face_resnet" and (self.backbone_size or 0) < 64:
            raise ValueError("backbone: face_resnet needs a backbone_size of at least 64")
        # It pads as its pretraining did only where each halving finds an even size.
        if self.backbone == "face_mobilenet" and (not self.backbone_size or self.backbone_size % 32):
            raise ValueError("backbone: face_mobilenet needs a backbone_size that is a multiple of 32")
        if self.backbone == "efficientnet_lite" and self.backbone_blocks != 13:
            raise ValueError("backbone_blocks needs backbone: face_resnet or face_mobilenet")
        return self


class PaperConfig(_Part):
    """The paper's network; its gate does not renormalise."""

    name: Literal["paper"]
    renormalise: bool = False
    backbone_pixels: Literal["paper", "pretraining"] = "paper"
    """What ResNet-50 sees. `paper`: BGR from 0 to 1, as the authors feed it. `pretraining`: BGR from 0 to 255
    less the mean, as VGGFace2's weights were trained."""


class AttentionConfig(_Part):
    """The sibling without experts."""

    name: Literal["attention"]
    width: Count = 32
    depths: tuple[Count, Count, Count, Count] = (1, 2, 2, 2)
    dropout: Share = 0.3


NetworkConfig = Annotated[CompactConfig | PaperConfig | AttentionConfig, Field(discriminator="name")]


class OptimiserConfig(_Part):
    """Optimiser and learning rate. After the warm-up, the rate follows a cosine to 0 or falls every epoch."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.05
    schedule: Literal["cosine", "exponential"] = "cosine"
    decay: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Factor of the exponential schedule after each epoch. The first epoch has `learning_rate` itself."""
    momentum: Share = 0.9
    """Nesterov momentum of SGD."""
    weight_decay: Weight = 5e-4
    warmup_epochs: Weight = 1.0
    clip_norm: Positive = 5.0
    ema_decay: Share = 0.998
    sam_radius: Weight = 0.0
    """Radius of sharpness-aware minimisation (Foret et al., 2021). Above 0, a step takes two passes."""


class LossConfig(_Part):
    """Cross-entropy of the main head, and the weights of further terms."""

    label_smoothing: Share = 0.0
    label_head: Weight = 1.0
    """Weight of the label head's cross-entropy, on data sets that have labels for it."""
    label_head_smoothing: Share = 0.1
    load_balancing: Weight = 0.01
    rebalancing: Literal["none", "class_balanced", "logit_adjusted"] = "none"
    """For rare emotions: weights by effective number (Cui et al., 2019), or logits shifted by the log prior
    (Menon et al., 2021)."""
    class_balanced_beta: Share = 0.999
    logit_adjustment: Weight = 1.0
    distillation: Chance = 0.0
    """Share of the loss that follows a teacher's answers (Hinton et al., 2015) instead of labels."""
    distillation_temperature: Positive = 2.0
    distillation_inputs: Literal["augmented", "clean"] = "augmented"
    """`augmented`: teachers answer for the image that the student sees. `clean`: they answer once, before the
    first epoch, for the original image and its mirror, which makes epochs faster."""


class AugmentConfig(_Part):
    """Share of training images that get each kind of change. For mixup and cutmix: share of batches."""

    mirror: Chance = 0.5
    pose: Chance = 0.8
    light: Chance = 0.5
    blur: Chance = 0.15
    noise: Chance = 0.2
    jpeg: Chance = 0.1
    occlusion: Chance = 0.4
    mixup: Chance = 0.0
    cutmix: Chance = 0.0
    mixing_alpha: Positive = 0.4
    """Both parameters of the Beta distribution that the shares of mixed images are drawn from."""
    views: Count | None = None
    """Number of epochs with an order and changes of their own. Later epochs repeat these epochs, for teachers
    that answer each view once. None: no epoch repeats another one."""


class EarlyStoppingConfig(_Part):
    """Ends a run after `patience` epochs without an improvement on the validation rows."""

    patience: Count
    monitor: Literal["loss", "accuracy"] = "loss"
    """`loss`: the training loss without teachers. `accuracy`: the mean of the heads, which also chooses the
    epoch of `best.ckpt`."""


class RunConfig(_Part):
    """One run."""

    dataset: DatasetKind | Annotated[tuple[DatasetSource, ...], Field(min_length=1)] = "fer2013"
    """One data set in the folder of the data, or several in folders below it."""
    ferplus_votes: VoteRule = "all"
    """What `fer2013` makes of FER+'s votes for training. `all`: shares of all votes for emotions.
    `published`: the rule of the authors' code, at most three emotions. `none`: FER-2013's own labels."""
    network: NetworkConfig
    emotions: Annotated[int, Field(ge=2, le=8)] | None = None
    """Outputs of the main head; by default as many as the data set has."""
    augment: AugmentConfig = AugmentConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: LossConfig = LossConfig()
    epochs: Count = 30
    early_stopping: EarlyStoppingConfig | None = None
    batch: Count = 128
    """Images per step, over all processes together."""
    balanced_sampling: Chance = 0.0
    """0 draws every image once per epoch. Above 0, an image's chance is its emotion's count to the power of
    minus this value. 1 draws all emotions equally often."""
    precision: Literal["auto"] | Precision = "auto"
    """`auto`: bf16-mixed where the device multiplies bfloat16, 32-true elsewhere."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training split's distinct images. Every run on the same data holds out the same images."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which of the 1 / `validation_share` parts of the training split is held out."""
    seed: Annotated[int, Field(ge=0)] = 0
    measure_tests: bool = False
    """Also measure the test splits after every epoch, as the paper's authors do. They choose nothing."""

    @property
    def dataset_names(self) -> set[str]:
        return {self.dataset} if isinstance(self.dataset, str) else {each.name for each in self.dataset}

    @property
    def views(self) -> int:
        """Number of epochs that differ."""
        return min(self.augment.views or self.epochs, self.epochs)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not isinstance(self.dataset, str) and len({each.root for each in self.dataset}) < len(
            self.dataset
        ):
            raise ValueError("dataset: each set needs a root of its own")
        if (self.fold + 1) * self.validation_share > 1 + 1e-9:
            raise ValueError("fold must be below 1 / validation_share")
        if self.augment.mixup + self.augment.cutmix > 1:
            raise ValueError(
                "augment.mixup and augment.cutmix are shares of batches: their sum must be at most 1"
            )
        if self.loss.distillation_inputs == "clean" and self.augment.mixup + self.augment.cutmix > 0:
            raise ValueError("loss.distillation_inputs: clean does not fit augment.mixup or augment.cutmix")
        if self.optimiser.sam_radius and self.precision == "16-mixed":
            raise ValueError("optimiser.sam_radius does not fit precision: 16-mixed, which scales gradients")
        if self.balanced_sampling and self.loss.rebalancing != "none":
            raise ValueError(
                "balanced_sampling and loss.rebalancing correct for the same rare emotions: use one of them"
            )
        if self.optimiser.warmup_epochs >= self.epochs:
            raise ValueError("optimiser.warmup_epochs must be fewer than epochs")
        return self


def read_config(path: Path) -> RunConfig:
    """Raises `ValueError`, which names the key, when a value is not allowed or the file is not YAML."""
    return RunConfig.model_validate(parse_yaml(path.read_text(), path))


def parse_yaml(text: str, name: object) -> Any:
    """The content of YAML. name: what the message of the `ValueError` names, when it is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from error


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One sentence for each key with another value. Nested keys have dots."""
    old, new = flat(before), flat(now)
    return [
        f"{key} was {old.get(key)!r} and is {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def flat(parts: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as one key with dots."""
    found: dict[str, Any] = {}
    for key, value in parts.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
