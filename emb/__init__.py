"""emb: a compiler for small machines.

import emb
report = emb.build("lenet", quantize="int8", data="mnist")
for row in report.rows:
    print(row.file, row.runtime, row.accuracy, row.latency)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emb.spec.report import Report

__all__ = ["build"]


def build(
    recipe: str | Path,
    *,
    quantize: str | Sequence[str] | None = None,
    prune: str | None = None,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    output: str | Path | None = None,
    trust_model: bool = False,
    backend: str | None = None,
    devices: int | str | None = None,
    target: str | None = None,
    force: bool = False,
    forms: bool = False,
    **fields: Any,
) -> Report:
    """What `emb build` does, as a function; the report comes back as a value.

    recipe: a recipe's name, a .toml file, or a model (.keras, .h5, SavedModel, .tflite, .onnx).
    quantize: schemes, "int8" or "float32,int8" or ["float32", "int8"].
    prune: a method and its goal, "channels:0.5"; more by fields, prune__distill=True.
    data: a data set's name, a folder with one directory per class, or a .npz file.
    output: where to write; builds/<name>-<schemes> by default.
    backend, devices: what to train on, "tensorflow" or "jax", and on how many devices (a number or "all").
    target: a target's name or .toml file; a model that does not fit it is refused.  force: build it all the same.
    forms: change the recipe to the forms that the target's accelerator takes.
    fields: any other field of the recipe, its dots as two underscores: train__epochs=3.
    Raises emb.errors.EmbError; what fails for one file on one runtime stands in `report.errors`.
    """
    from emb.pipeline.build import build as run_build

    schemes = quantize if quantize is None or isinstance(quantize, str) else ",".join(quantize)
    return run_build(
        recipe,
        data=data,
        data_dir=Path(data_dir) if data_dir is not None else None,
        trust_model=trust_model,
        backend=backend,
        devices=devices,
        target=target,
        force=force,
        forms=forms,
        output_directory=Path(output) if output is not None else None,
        overrides={
            "quantize.schemes": schemes,
            "prune": prune,
            **{key.replace("__", "."): value for key, value in fields.items()},
        },
    )
