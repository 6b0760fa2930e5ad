"""The Edge TPU's part of `emb check`: the forms that it takes of a model, and its compiler where that is at hand."""

from __future__ import annotations

import inspect
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from emb.deploy import edgetpu_compiler, edgetpu_forms
from emb.deploy.edgetpu import DATA_TYPE, EdgeTpuMapping
from emb.deploy.edgetpu_compiler import Compilation
from emb.errors import ExportError, SpecError
from emb.graph.vocabulary import PRODUCTS
from emb.spec.fit import Fault
from emb.spec.placement import Placement
from emb.spec.recipe import Recipe
from emb.spec.target import Target

KIND = "edge-tpu"
MODEL = "model_edgetpu.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """compilation, compile_command, forms: as of emb.pipeline.check.Check."""

    faults: tuple[Fault, ...] = ()
    compilation: Compilation | None = None
    compile_command: str = ""
    forms: Mapping[str, str] | None = None


def forms_of(model: Mapping[str, Any]) -> dict[str, str] | None:
    """The arguments with which the zoo's builder makes what the Edge TPU takes, where these differ from the model's.

    model: a recipe's [model]. None if no builder that is known here has made it.
    """
    from emb.zoo import ZOO

    builder, arguments = model.get("builder", ""), model.get("arguments", {})
    if builder not in ZOO.names():
        return None
    parameters = inspect.signature(ZOO.get(builder).build).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return edgetpu_forms.forms({**defaults, **arguments})


def in_forms(recipe: Recipe, target: Target) -> tuple[Recipe, dict[str, str]]:
    """(the recipe in the forms that the target's accelerator takes, what had to change).

    Raises SpecError if the target has no accelerator that asks for any.
    """
    if recipe.model.file:
        raise SpecError(
            f"--forms does not apply to {recipe.model.file}",
            why="emb knows the forms of its own builders' networks; this model is what it is",
            fix="leave it out; emb check says what the accelerator does not take",
        )
    if target.accelerator.kind != KIND:
        raise SpecError(
            f"--forms does not apply to {target.name}",
            why="it has no Edge TPU, which alone asks for other forms",
            fix="leave it out, or choose a target that has one",
        )
    changes = forms_of(asdict(recipe.model)) or {}
    arguments = {**recipe.model.arguments, **changes}
    return replace(recipe, model=replace(recipe.model, arguments=arguments)), changes


def verdict(
    prediction: EdgeTpuMapping,
    *,
    path: Path,
    source: str,
    file: str,
    target: Target,
    model: Mapping[str, Any],
    keep_in: Path | None = None,
) -> Verdict:
    """Whether the Edge TPU does all the multiplying; what stands behind the last product may run elsewhere.

    prediction: for the .tflite at `path`; where the compiler is at hand, it decides instead.
    source: what messages call the model.  file: its path, or the name that a build will give it.
    model: the recipe's [model] that built it; empty if that is not known.
    keep_in: a folder that gets the compiled file as MODEL, if it is compiled.
    """
    forms = forms_of(model)
    first = prediction.first_on_cpu
    compiler = edgetpu_compiler.find()
    if first is not None and first.status == DATA_TYPE:
        # No model of 8 bits: its compiler would only say so again.
        return Verdict(faults=_predicted(prediction, source, target, forms), forms=forms)
    if compiler is None:
        command = shlex.join(edgetpu_compiler.command_line(file, "."))
        return Verdict(faults=_predicted(prediction, source, target, forms), compile_command=command, forms=forms)
    try:
        with tempfile.TemporaryDirectory(prefix="emb-") as folder:
            compilation = edgetpu_compiler.compile_model(
                path, Path(folder), name=source, prediction=prediction, compiler=compiler
            )
            if keep_in:
                shutil.copyfile(compilation.model, keep_in / MODEL)
    except ExportError as error:
        return Verdict(faults=(Fault(what=error.what, why=error.why, fix=error.fix),), forms=forms)
    return Verdict(faults=_compiled(compilation, source, target, forms), compilation=compilation, forms=forms)


def to_json(compilation: Compilation) -> dict[str, Any]:
    """The compiler's part of the document of `emb check --json`."""
    log = compilation.log
    return {
        "compiler": log.version,
        "operations": log.operations,
        "mapped": log.mapped,
        "subgraphs": log.subgraphs,
        "cached_bytes": log.on_chip_bytes,
        "streamed_bytes": log.off_chip_bytes,
        "rows": [asdict(row) for row in log.rows],
        "differences": [asdict(difference) for difference in compilation.differences],
    }


def _predicted(
    prediction: EdgeTpuMapping, source: str, target: Target, forms: Mapping[str, str] | None
) -> tuple[Fault, ...]:
    first = prediction.first_on_cpu
    lost = {placement.kind for placement in prediction.placements if placement.device == "cpu"}
    if first is None or (prediction.mapped and PRODUCTS.isdisjoint(lost)):
        return ()
    share = f"{prediction.mapped} of the {len(prediction.placements)} operations of {source}"
    return (_fault(f"{share} run on {target.name}'s accelerator, as predicted", first, forms),)


def _compiled(
    compilation: Compilation, source: str, target: Target, forms: Mapping[str, str] | None
) -> tuple[Fault, ...]:
    log, first = compilation.log, compilation.first_on_cpu
    if first is None or PRODUCTS.isdisjoint(log.lost):
        return ()
    share = f"{log.mapped} of the {log.operations} operations of {source}"
    return (_fault(f"{share} run on {target.name}'s accelerator, as compiled", first, forms),)


def _fault(what: str, first: Placement, forms: Mapping[str, str] | None) -> Fault:
    name = f"{first.kind} {first.layer or first.operation}".strip()
    detail = f" ({first.detail})" if first.detail else ""
    behind = "until then every operation behind it runs on the processor as well"
    return Fault(
        what=what,
        why=f"{name}: {first.status}{detail}",
        fix=f"{edgetpu_forms.remedy(first, forms)}; {behind}",
        operation=first.operation,
    )
