"""A recipe: what to build, from which data, how to train, quantize and export it. Knows no builder and no loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Scalar = bool | int | float | str
Argument = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Either a builder or a file.

    builder: a public name of the registry emb.zoo.  arguments: handed to its `build`.
    file: somebody's own model: .keras, .h5, a SavedModel folder, a float .tflite or a float .onnx.
    """

    builder: str = ""
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    file: str = ""

    def __post_init__(self) -> None:
        if bool(self.builder) == bool(self.file):
            raise ValueError("builder or file must be given, and only one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSpec:
    """name: a public name of the registry emb.data.  path: folder or file, for `folder` and `arrays`."""

    name: str = "digits"
    path: str = ""
    validation_fraction: float = 0.1

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
    """Random changes of a train image; 0 switches a change off.

    shift_fraction: of height and width.  rotation_degrees, shear_degrees: each way.  scale_fraction: each way.
    flip: mirror left and right half of the time.
    """

    shift_fraction: float = 0.0
    rotation_degrees: float = 0.0
    shear_degrees: float = 0.0
    scale_fraction: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift_fraction < 1:
            raise ValueError("shift_fraction must lie in [0, 1)")
        if not 0 <= self.scale_fraction < 1:
            raise ValueError("scale_fraction must lie in [0, 1)")
        if not 0 <= self.rotation_degrees <= 180:
            raise ValueError("rotation_degrees must lie in [0, 180]")
        if not 0 <= self.shear_degrees < 90:
            raise ValueError("shear_degrees must lie in [0, 90)")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """How to train. weight_decay is decoupled (AdamW, SGDW); warmup_epochs ramp the learning rate up from 0."""

    optimizer: Literal["sgd", "adam"] = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: int = 0
    epochs: int = 10
    batch_size: int = 128
    label_smoothing: float = 0.0
    seed: int = 0
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError("learning_rate must be above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError("momentum must lie in [0, 1)")
        if self.weight_decay < 0:
            raise ValueError("weight_decay must not be negative")
        if self.epochs < 0:
            raise ValueError("epochs must not be negative")
        if self.warmup_epochs < 0:
            raise ValueError("warmup_epochs must not be negative")
        if self.batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError("label_smoothing must lie in [0, 1)")
        if not 0 <= self.seed < 2**32:
            raise ValueError("seed must lie in [0, 2**32)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSpec:
    """method: a public name of the registry emb.prune, or "none"."""

    method: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeSpec:
    """schemes: public names of the registry emb.quantize; float32 is always exported as the reference.

    calibration_images: train images whose activations set the integer ranges.  calibration_method: how a range
    follows from them.
    """

    schemes: tuple[str, ...] = ("int8",)
    calibration_images: int = 200
    calibration_method: Literal["minmax", "percentile", "mse"] = "minmax"

    def __post_init__(self) -> None:
        if self.calibration_images < 1:
            raise ValueError("calibration_images must be at least 1")
        if not self.schemes:
            raise ValueError("schemes must name at least one scheme")
        if len(set(self.schemes)) != len(self.schemes):
            raise ValueError("schemes must not repeat")


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
    export: ExportSpec = field(default_factory=ExportSpec)
    verify: VerifySpec = field(default_factory=VerifySpec)
