"""What an HTML report shows of each build beside its rows. Knows no markup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emb.spec.overview import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One operation of a model file. output_bytes: of its activations.  macs, output_bytes: None if unknown."""

    name: str
    kind: str
    macs: int | None
    parameters: int
    output_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What int8 does to one layer. sqnr_db: None where nothing is lost.  clipped_share, cosine: of its output."""

    layer: str
    sqnr_db: float | None
    cosine: float
    clipped_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Of one file on one runtime: (label, predicted class, images) of every pair that occurred."""

    file: str
    runtime: str
    mode: str
    counts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """A test image that a file was sure of, and wrong about. png: the picture.  confidence: in [0, 1]."""

    image: int
    label: str
    answer: str
    confidence: float
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildDetails:
    """One build. name: as in the rows.  machine: what its times were measured on.

    seconds: stage -> wall time.  epochs: of the training, first to last; empty without one.
    mistakes_of: the file and runtime that made them.  left_out: how many pictures the page had no room for.
    layers_of: the file that `layers` is of.  layer_errors: the worst first; empty if nobody measured them.
    target: that part of report.json, None without one.  tools: name -> version.  digests: file -> sha256 (hex).
    """

    name: str
    recipe: str
    machine: str
    notes: tuple[str, ...]
    errors: tuple[str, ...]
    seconds: Mapping[str, float]
    epochs: tuple[Mapping[str, float | None], ...]
    labels: tuple[str, ...]
    confusions: tuple[Confusion, ...]
    mistakes_of: str
    mistakes: tuple[Mistake, ...]
    left_out: int
    layers_of: str
    layers: tuple[LayerCost, ...]
    layer_errors: tuple[LayerError, ...]
    target: Mapping[str, Any] | None
    tools: Mapping[str, str]
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that one HTML report shows."""

    sections: tuple[Section, ...]
    builds: tuple[BuildDetails, ...]
