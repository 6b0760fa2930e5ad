"""What has been published about the architectures of the zoo: published.toml. Computes and compares nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from emb.errors import SpecError
from emb.spec.decode import decode, read_toml

FILE = Path(__file__).with_name("published.toml")
CONVENTION = (
    "one MAC is one multiplication with its addition, in a convolution or a matrix product, for one image; "
    "biases, activation functions, normalization and pooling count nothing"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number about one architecture.

    figure: "trainable" counts weights, biases and what normalization learns; "parameters" its moving means and
    variances as well; "macs" is for one image.  source: who says so, and where.
    explanation: heading that explains a deviation, or "".
    """

    figure: Literal["trainable", "parameters", "macs"]
    value: int
    source: str
    explanation: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A builder with its arguments at the size that was published.

    input_shape: (height, width, channels).  figures: what is known of it, maybe nothing.
    """

    name: str
    builder: str
    input_shape: tuple[int, ...]
    classes: int
    arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRow:
    """A row of the lecture's table of parameter memory. memory_of, macs_of: names of architectures.

    input: (height, width).  mebibytes: of float32 parameters.  explained: figure -> heading.
    """

    label: str
    memory_of: str
    macs_of: str
    input: tuple[int, ...]
    mebibytes: int
    macs: int
    explained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureRow:
    """A row of the lecture's table of structures. architectures: names, the shallowest and the deepest of the family.

    small_kernels: whether all kernels are 3x3 at most.  depth: layers with weights, of each architecture; empty if
    the table does not say.  explained: figure -> heading.
    """

    label: str
    architectures: tuple[str, ...]
    single_path: bool
    small_kernels: bool
    depth: tuple[int, ...] = ()
    explained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The convolutions or the dense layers of a column. kernels, strides: sides. channels, filters: least and most."""

    layers: int
    kernels: tuple[int, ...]
    channels: tuple[int, ...]
    filters: tuple[int, ...]
    weights: int
    macs: int
    strides: tuple[int, ...] = ()
    depth: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of the lecture's large table. explained: row ("convolution.macs") -> heading."""

    label: str
    architecture: str
    input: tuple[int, ...]
    convolution: Layers
    dense: Layers
    weights: int
    macs: int
    explained: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The whole file. Raises ValueError for two architectures of one name, or a table that names an unknown one."""

    architecture: tuple[Architecture, ...]
    structure: tuple[StructureRow, ...]
    memory: tuple[MemoryRow, ...]
    column: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [architecture.name for architecture in self.architecture]
        if len(set(names)) < len(names):
            raise ValueError("architecture has two entries of one name")
        used = {name for row in self.structure for name in row.architectures}
        used |= {row.memory_of for row in self.memory} | {row.macs_of for row in self.memory}
        if unknown := (used | {column.architecture for column in self.column}) - set(names):
            raise ValueError(f"architecture lacks {', '.join(sorted(unknown))}, which a table names")


@cache
def published() -> Published:
    """The figures. Raises SpecError if the file is damaged."""
    return decode(Published, read_toml(FILE), source=FILE.name, text=FILE.read_text(encoding="utf-8"))


def architecture(name: str) -> Architecture:
    """One entry. Raises SpecError for an unknown name, offering the nearest."""
    from emb.registry import nearest

    known = {entry.name: entry for entry in published().architecture}
    if name not in known:
        raise SpecError(f"unknown architecture {name!r}", fix=nearest(name, known))
    return known[name]
