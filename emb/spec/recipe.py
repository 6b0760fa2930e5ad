"""A recipe: what to build, from which data, how to train, quantize and export it. Knows no builder and no loader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from emb.spec import pruning

Scalar = bool | int | float | str
Argument = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Either a builder or a file.

    builder: a public name of the registry emb.zoo.  arguments: handed to its `build`.
    file: somebody's own model: .keras, .h5, a SavedModel folder, a float .tflite or a float .onnx.
    weights: what a builder's network begins with: "imagenet", or a .keras file of the same architecture; random
    weights if empty. Where the classes differ, the last dense layer begins with random ones.
    """

    builder: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    file: str = ""
    weights: str = ""

    def __post_init__(self) -> None:
        if bool(self.builder) == bool(self.file):
            raise ValueError("builder or file must be given, and only one of them")
        if self.file and self.weights:
            raise ValueError("weights are given to a builder's network; a file has its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """name: a public name of the registry emb.data.  path: folder or file, for `folder` and `arrays`.

    skip_bad: leave out image files that cannot be decoded; the report names them.
    """

    name: str = "digits"
    path: str = ""
    validation_fraction: float = 0.1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.validation_fraction < 1:
            raise ValueError("validation_fraction must lie between 0 and 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """shape: (height, width, channels), or empty for the shape of the data set's own images.

    pixels: what the model's first layer expects. "raw" (0..255) for every model of the zoo; a model of
    somebody else's may have been trained on "0..1" or "-1..1", and emb then puts the rescaling into the graph.
    """

    shape: tuple[int, ...] = ()
    pixels: Literal["raw", "0..1", "-1..1"] = "raw"

    def __post_init__(self) -> None:
        if self.shape and (len(self.shape) != 3 or min(self.shape) < 1):
            raise ValueError("shape must be three positive numbers: height, width, channels")
        if self.shape and self.shape[2] not in (1, 3):
            raise ValueError("shape must end in 1 channel (grey) or 3 (RGB)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random changes of a train image; 0 switches a change off. None of them changes what another one draws.

    shift_fraction: of height and width.  rotation_degrees, shear_degrees: each way.  scale_fraction: each way.
    flip: mirror left and right half of the time.
    crop_pixels: add so many black pixels on every side and cut the old size out again, anywhere.
    crop_area_fraction: cut out between this share and all of the area, sides 3:4 to 4:3, and enlarge it again.
    brightness_fraction, contrast_fraction, saturation_fraction: each way.
    cutout_pixels: side of a square that the image's mean colour covers; part of it may lie outside.
    mixup_alpha: two images and their targets are mixed, lambda : 1 - lambda, lambda from Beta(alpha, alpha).
    """

    shift_fraction: float = 0.0
    rotation_degrees: float = 0.0
    shear_degrees: float = 0.0
    scale_fraction: float = 0.0
    flip: bool = False
    crop_pixels: int = 0
    crop_area_fraction: float = 0.0
    brightness_fraction: float = 0.0
    contrast_fraction: float = 0.0
    saturation_fraction: float = 0.0
    cutout_pixels: int = 0
    mixup_alpha: float = 0.0

    def __post_init__(self) -> None:
        _check(
            (0 <= self.shift_fraction < 1, "shift_fraction must lie in [0, 1)"),
            (0 <= self.scale_fraction < 1, "scale_fraction must lie in [0, 1)"),
            (0 <= self.rotation_degrees <= 180, "rotation_degrees must lie in [0, 180]"),
            (0 <= self.shear_degrees < 90, "shear_degrees must lie in [0, 90)"),
            (self.crop_pixels >= 0, "crop_pixels must not be negative"),
            (0 <= self.crop_area_fraction <= 1, "crop_area_fraction must lie in [0, 1]"),
            (0 <= self.brightness_fraction <= 1, "brightness_fraction must lie in [0, 1]"),
            (0 <= self.contrast_fraction <= 1, "contrast_fraction must lie in [0, 1]"),
            (0 <= self.saturation_fraction <= 1, "saturation_fraction must lie in [0, 1]"),
            (self.cutout_pixels >= 0, "cutout_pixels must not be negative"),
            (0 <= self.mixup_alpha < math.inf, "mixup_alpha must be a number that is not negative"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """How to train.

    weight_decay: of sgd it is L2 as in the papers (added to the gradient), of adam it is decoupled (AdamW).
    warmup_learning_rate: constant during warmup_epochs; 0 lets the rate rise linearly to learning_rate instead.
    decay_factor: of "step", every decay_epochs, and of "plateau", whenever the validation accuracy has not
    improved for patience_epochs.
    ema_momentum: of the mean of weights over the steps that is validated and kept; 0 keeps the weights themselves.
    early_stopping_epochs: so many epochs without a better validation accuracy end the training, and the best
    epoch's weights are kept; 0 trains all epochs and keeps the last.
    freeze_epochs: at the beginning only the head is trained, at freeze_learning_rate; warm-up and schedule follow.
    """

    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step", "plateau"] = "cosine"
    decay_factor: float = 0.1
    decay_epochs: int = 30
    patience_epochs: int = 5
    warmup_epochs: int = 0
    warmup_learning_rate: float = 0.0
    freeze_epochs: int = 0
    freeze_learning_rate: float = 1e-3
    epochs: int = 10
    early_stopping_epochs: int = 0
    batch_size: int = 128
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    ema_momentum: float = 0.0
    label_smoothing: float = 0.0
    seed: int = 0
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        _check(
            (self.learning_rate > 0, "learning_rate must be above 0"),
            (0 <= self.momentum < 1, "momentum must lie in [0, 1)"),
            (self.weight_decay >= 0, "weight_decay must not be negative"),
            (0 < self.decay_factor < 1, "decay_factor must lie between 0 and 1"),
            (self.decay_epochs >= 1, "decay_epochs must be at least 1"),
            (self.patience_epochs >= 1, "patience_epochs must be at least 1"),
            (self.warmup_epochs >= 0, "warmup_epochs must not be negative"),
            (self.warmup_learning_rate >= 0, "warmup_learning_rate must not be negative"),
            (self.freeze_epochs >= 0, "freeze_epochs must not be negative"),
            (self.freeze_learning_rate > 0, "freeze_learning_rate must be above 0"),
            (self.epochs >= 0, "epochs must not be negative"),
            (self.early_stopping_epochs >= 0, "early_stopping_epochs must not be negative"),
            (self.batch_size >= 1, "batch_size must be at least 1"),
            (0 <= self.ema_momentum < 1, "ema_momentum must lie in [0, 1)"),
            (0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)"),
            (0 <= self.seed < 2**32, "seed must lie in [0, 2**32)"),
        )


# Channels that a kernel computes at once: benchmarks/README.md has what the rest of a block costs.
_BLOCK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """How the trained model is made smaller, and trained on afterwards.

    method: a public name of the registry emb.prune, or "none".  goal: what it shall reach, see emb.spec.pruning.
    criterion: of channels, what one is worth, see emb.prune.channels.  Blocks go by the loss without each.
    scope: "global" compares channels or weights over all layers, "uniform" removes the same share of each.
    channel_multiple: of which each layer keeps a multiple, see Recipe.channel_multiple for what 0 takes.
    steps: of channels, how often some are removed and the model is trained on.
    epochs: of that training, each time; the schedule is a cosine, all else is as in [train].
    learning_rate: its highest value; 0 takes that of [train].
    ramp_fraction: of magnitude, the share of the steps over which the zeros grow to their number.
    distill: also train on what the unpruned model says, with its scores softened by distill_temperature;
    distill_weight: the share of that in the loss. Source: Hinton et al. 2015, section 2.
    """

    method: str = "none"
    goal: float | str = ""
    criterion: Literal["taylor", "l1", "l2", "bn-scale"] = "taylor"
    scope: Literal["global", "uniform"] = "global"
    channel_multiple: int = 0
    steps: int = 1
    epochs: int = 10
    learning_rate: float = 0.0
    ramp_fraction: float = 0.5
    distill: bool = False
    distill_temperature: float = 4.0
    distill_weight: float = 0.9

    def __post_init__(self) -> None:
        _check(
            (0 <= self.channel_multiple <= 256, "channel_multiple must lie in [0, 256]"),
            (self.steps >= 1, "steps must be at least 1"),
            (self.epochs >= 0, "epochs must not be negative"),
            (0 <= self.learning_rate < math.inf, "learning_rate must be a number that is not negative"),
            (0 <= self.ramp_fraction < 1, "ramp_fraction must lie in [0, 1)"),
            (0 < self.distill_temperature < math.inf, "distill_temperature must be a number above 0"),
            (0 < self.distill_weight <= 1, "distill_weight must lie in (0, 1]"),
            (not self.distill or self.epochs > 0, "distill needs epochs in which to train"),
            *_goal_checks(self),
        )

    @property
    def is_asked_for(self) -> bool:
        return self.method != pruning.NONE

    @property
    def target(self) -> pruning.Goal:
        """The goal as a value. Raises ValueError without a method."""
        return pruning.goal_of(self.method, str(self.goal).removesuffix(".0"))


# What the widest kernels take or compute at once.
_MOST_CHANNELS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSpec:
    """schemes: public names of the registry emb.quantize; float32 is always exported as the reference.

    calibration_images: train images whose activations set the integer ranges.  calibration_method: how a range
    follows from them.
    lanes, maps: channels that the int8 kernels take at once, and channels of the output that they compute at once;
    neighbouring pixels become channels where that fills them, see docs/explanation/packed-pixels.md. 0 takes the
    target's, of maps unless the recipe names lanes; 1 of both leaves every convolution as it is.
    """

    schemes: tuple[str, ...] = ("int8",)
    calibration_images: int = 200
    calibration_method: Literal["minmax", "percentile", "mse"] = "minmax"
    lanes: int = 0
    maps: int = 0

    def __post_init__(self) -> None:
        for name in ("lanes", "maps"):
            if not 0 <= getattr(self, name) <= _MOST_CHANNELS:
                raise ValueError(f"{name} must lie between 0 and {_MOST_CHANNELS}")
        if self.calibration_images < 1:
            raise ValueError("calibration_images must be at least 1")
        if not self.schemes:
            raise ValueError("schemes must name at least one scheme")
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("schemes must not repeat")


@dataclass(frozen=True, slots=True, kw_only=True)
class QatSpec:
    """Quantization-aware training, which the scheme int8-qat and the last remedy of a repair use.

    Adam at learning_rate, falling to 0 as a cosine; batches and seed are those of [train], without augmentation. The
    epoch with the best validation accuracy is kept, if it is better than none.
    """

    epochs: int = 5
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        _check(
            (self.epochs >= 1, "epochs must be at least 1"),
            (self.learning_rate > 0, "learning_rate must be above 0"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairSpec:
    """max_drop: so many points of validation accuracy an int8 file may lose against the float model. Where it loses
    more, remedies are tried; where they do not suffice, the build ends in an error. 100 asks for nothing.
    keep_float: whether the worst layers may compute in float32, in a file that is int8 otherwise. "auto": for a target
    whose runtimes run both; "allow": without a target as well; "never".
    """

    max_drop: float = 100.0
    keep_float: Literal["auto", "allow", "never"] = "auto"

    def __post_init__(self) -> None:
        _check(
            (0 <= self.max_drop <= 100, "max_drop must lie in [0, 100]"),
            (
                self.keep_float == "auto" or self.is_wanted,
                "keep_float belongs to a repair, which max_drop asks for",
            ),
        )

    @property
    def is_wanted(self) -> bool:
        return self.max_drop < 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSpec:
    """formats: file formats to write; TFLite always, as it holds the reference.

    softmax: "drop" leaves a final softmax out of the files, whose scores are logits then. The class is the same,
    and a runtime that has no int8 softmax (XNNPACK) can take the whole graph.
    """

    formats: tuple[Literal["tflite", "onnx"], ...] = ("tflite", "onnx")
    softmax: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if "tflite" not in self.formats:
            raise ValueError("formats must hold tflite, the format of the reference model")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySpec:
    """minimum_agreement: the share of test images on which an exported file must give the class that the Keras
    model gives. Below it the file counts as wrong, whatever its accuracy.
    """

    minimum_agreement: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.minimum_agreement <= 1:
            raise ValueError("minimum_agreement must lie in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what a build makes. `name` is also the stem of the files it makes."""

    name: str
    summary: str = ""
    model: ModelSpec
    data: DataSpec = field(default_factory=DataSpec)
    input: InputSpec = field(default_factory=InputSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    prune: PruneSpec = field(default_factory=PruneSpec)
    quantize: QuantizeSpec = field(default_factory=QuantizeSpec)
    qat: QatSpec = field(default_factory=QatSpec)
    repair: RepairSpec = field(default_factory=RepairSpec)
    export: ExportSpec = field(default_factory=ExportSpec)
    verify: VerifySpec = field(default_factory=VerifySpec)

    @property
    def channel_multiple(self) -> int:
        """Of which a layer that loses channels keeps a multiple, see emb.prune.channels.

        Where prune.channel_multiple does not say it: 1 for a goal in bytes, else what kernels compute at once, which is
        16 or, where the target's compute more, quantize.maps.
        """
        if self.prune.channel_multiple:
            return self.prune.channel_multiple
        return 1 if self.prune.target.kind == "bytes" else max(_BLOCK, self.quantize.maps)


def _check(*checks: tuple[bool, str]) -> None:
    """Raises ValueError with the messages of all checks that do not hold; each opens with its field's name."""
    faults = [message for holds, message in checks if not holds]
    if faults:
        raise ValueError(*faults)


def _goal_checks(prune: PruneSpec) -> list[tuple[bool, str]]:
    """That the goal's text can be read, or, without a method, that nothing is asked for.

    The goal of a method that is unknown here cannot be told; its name is the fault, which is found elsewhere.
    """
    if prune.method == pruning.NONE:
        given = [one.name for one in fields(prune) if getattr(prune, one.name) != one.default]
        return [(False, f"{name} needs a method, e.g. channels") for name in given]
    if prune.method not in pruning.METHODS:
        return []
    checks = []
    if prune.method != "channels":
        checks = [
            (prune.steps == 1, f"steps are of channels alone; {prune.method} has no steps"),
            (prune.channel_multiple == 0, f"channel_multiple is of channels alone; {prune.method} keeps them all"),
            (prune.criterion == "taylor", f"criterion is of channels alone; {prune.method} has none to choose"),
        ]
    if prune.method in ("blocks", "cluster"):
        checks.append((prune.scope == "global", f"scope is of channels and magnitude; {prune.method} has none"))
    try:
        _ = prune.target
    except ValueError as fault:
        checks.append((False, str(fault)))
    return checks
