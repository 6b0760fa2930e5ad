"""Repair as a stage: remedies in the order of their cost, each judged by its own int8 file on validation images.

Decides neither what a remedy does (emb.quantize.remedies) nor which files the repaired weights become. Never looks at a
test image.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emb.errors import ExportError, ModelError, RuntimeFailure
from emb.pipeline.json_files import write_json
from emb.pipeline.quantized_models import (
    RANGES,
    REPAIR_FILE,
    Candidate,
    calibration_of,
    groups_of,
    known_in,
    open_plain,
    write_candidate,
    write_unchanged,
)
from emb.pipeline.quantized_training import trained_on
from emb.pipeline.stage import Work
from emb.pipeline.stages import write_float
from emb.spec.repair import Repair, RepairTry
from emb.spec.scheme import Scheme


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tried:
    """A remedy's result. layers: that it changed, the most changed first."""

    candidate: Candidate
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    """What remedies are judged by. images: for calibration, as the model takes them.  scheme: of the file."""

    work: Work
    images: NDArray[np.float32]
    scheme: Scheme

    @property
    def bits(self) -> int:
        """Of the weights."""
        return self.scheme.weight_bits

    @property
    def total(self) -> int:
        return len(self.work.context.dataset.validation)

    def correct_of(self, path: Path) -> int:
        """How many validation images a .tflite file gives the right class on LiteRT."""
        from emb.runtimes import open_runtime
        from emb.spec.contract import Pixels

        validation = self.work.context.dataset.validation
        with open_runtime("litert", model=path) as process:
            scores = process.scores(validation.images, pixels=Pixels())
        return int(np.sum(scores.argmax(axis=1) == validation.labels))

    def judge(self, folder: Path) -> int:
        """The same of the file that becomes of the model.keras and ranges.json in `folder`."""
        from emb.quantize import quantize_tflite

        recipe = self.work.context.recipe
        pixels = write_float(folder / "model.keras", folder / "float.tflite", work=self.work)
        quantize_tflite(
            folder / "float.tflite",
            folder / "quantized.tflite",
            scheme=self.scheme,
            calibration=np.load(self.work.file("calibration", "calibration.npy")),
            method=recipe.quantize.calibration_method,
            pixels=pixels,
            known=known_in(folder),
        )
        return self.correct_of(folder / "quantized.tflite")


def repair(work: Work, *, source: str, model: str, scheme: Scheme) -> None:
    """model.keras and ranges.json of a model that loses no more than repair.max_drop; repair.json: what was tried.

    source: the stage whose model it is.  scheme: what it is measured in. Where the file loses no more without any
    remedy, both are as `source` left them. Raises ModelError where no remedy reaches the goal.
    """
    bench = _Bench(work=work, images=calibration_of(work), scheme=scheme)
    scratch = work.folder / "progress"
    scratch.mkdir(exist_ok=True)
    write_float(work.done["model"].path(_float_model(work)), scratch / "float.tflite", work=work)
    reference = bench.correct_of(scratch / "float.tflite")
    write_unchanged(scratch, work, source=source, model=model)
    first, failure = _judged(bench, scratch)
    found = Repair(
        scheme=scheme.name,
        goal_points=work.context.recipe.repair.max_drop,
        images=bench.total,
        float_correct=reference,
        first_correct=first,
        first_failure=failure,
        tries=(),
    )
    if found.is_reached:
        write_unchanged(work.folder, work, source=source, model=model)
    else:
        found = _repaired(work, bench, found, source=source, model=model, scratch=scratch)
    if not found.is_reached:
        raise _missed(found)
    write_json(work.folder / REPAIR_FILE, found.to_json())
    shutil.rmtree(scratch, ignore_errors=True)


def _float_model(work: Work) -> str:
    """The name of the model's own file in the artifact of its stage."""
    return next(name for name in work.done["model"].files if name.startswith("model."))


def _repaired(work: Work, bench: _Bench, found: Repair, *, source: str, model: str, scratch: Path) -> Repair:
    """What was tried, in order; the best candidate's files are in the stage's folder."""
    from emb.quantize.remedies.simulation import ranges_of

    plain = open_plain(work, source=source, model=model)
    method = work.context.recipe.quantize.calibration_method
    ranges = groups_of(work.done[source]) or ranges_of(plain, bench.images, method=method)
    best = Candidate(model=plain, floats=plain, ranges=ranges)
    waiting, undone, again = list(_REMEDIES), [], set[str]()
    while waiting and not found.is_reached:
        name = waiting.pop(0)
        folder = scratch / "candidate"
        candidate, one = _tried(name, best, bench, correct_before=found.correct, scratch=scratch, folder=folder)
        found = replace(found, tries=(*found.tries, one))
        if not one.is_kept:
            undone.append(name)
            continue
        best = candidate
        for file in ("model.keras", RANGES):
            shutil.copyfile(folder / file, work.folder / file)
        # What could gain nothing while another fault hid it may do so now; once.
        waiting = [*(other for other in undone if other not in again), *waiting]
        again.update(undone)
        undone = []
    return found


def _tried(
    name: str, best: Candidate, bench: _Bench, *, correct_before: int, scratch: Path, folder: Path
) -> tuple[Candidate, RepairTry]:
    """(what a remedy makes of the best candidate so far, how good it is); its files are in `folder`."""
    began = time.monotonic()
    tried = _REMEDIES[name](best, bench, scratch)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_candidate(folder, tried.candidate, bench.images)
    correct, failure = _judged(bench, folder)
    return tried.candidate, RepairTry(
        remedy=name,
        layers=tried.layers,
        correct_before=correct_before,
        correct_after=correct,
        seconds=round(time.monotonic() - began, 1),
        failure=failure,
    )


def _judged(bench: _Bench, folder: Path) -> tuple[int, str]:
    """(correct images, ""), or (0, why) for a candidate of which no file can be made or run."""
    try:
        return bench.judge(folder), ""
    except (ExportError, RuntimeFailure) as error:
        return 0, " ".join((error.why or error.what).split())


def _choose_ranges(best: Candidate, bench: _Bench, scratch: Path) -> _Tried:
    from emb.quantize.remedies.range_choice import chosen_ranges

    method = bench.work.context.recipe.quantize.calibration_method
    ranges, choices = chosen_ranges(best.floats, bench.images, first=method)
    return _Tried(
        candidate=replace(best, ranges=ranges, per_tensor=True),
        layers=tuple(f"{group} ({choice})" for group, choice in choices.items()),
    )


def _equalize(best: Candidate, bench: _Bench, scratch: Path) -> _Tried:
    from emb.quantize.remedies.equalization import equalized
    from emb.quantize.remedies.simulation import ranges_of

    # From the floats: what was fitted to the rounding of other weights is to be fitted anew.
    model, pairs = equalized(best.floats)
    method = bench.work.context.recipe.quantize.calibration_method
    equal = Candidate(model=model, floats=model, ranges=ranges_of(model, bench.images, method=method))
    if best.per_tensor:
        equal = _choose_ranges(equal, bench, scratch).candidate
    pairs = sorted(pairs, key=lambda pair: pair.spread, reverse=True)
    return _Tried(candidate=equal, layers=tuple(f"{pair.first} and {pair.second}" for pair in pairs))


def _correct_biases(best: Candidate, bench: _Bench, scratch: Path) -> _Tried:
    from emb.quantize.remedies.bias_correction import bias_corrected

    model, changes = bias_corrected(best.model, bench.images, best.ranges, floats=best.floats, bits=bench.bits)
    return _Tried(candidate=replace(best, model=model), layers=_by_size(changes, largest_first=True))


def _learn_rounding(best: Candidate, bench: _Bench, scratch: Path) -> _Tried:
    from emb.quantize.remedies.bias_correction import bias_corrected
    from emb.quantize.remedies.rounding import rounding_learned

    seed = bench.work.context.recipe.train.seed
    model, shares = rounding_learned(best.floats, bench.images, best.ranges, seed=seed, bits=bench.bits)
    model, _ = bias_corrected(model, bench.images, best.ranges, floats=best.floats, bits=bench.bits)
    changed = {name: share for name, share in shares.items() if share < 1}
    return _Tried(candidate=replace(best, model=model), layers=_by_size(changed, largest_first=False))


def _train_on(best: Candidate, bench: _Bench, scratch: Path) -> _Tried:
    from emb.quantize.remedies.placement import calls_of, has_kernel

    candidate, _, _ = trained_on(best, bench.work, bits=bench.bits, directory=scratch / "training")
    layers = tuple(call.name for call in calls_of(best.model) if has_kernel(call.layer))
    return _Tried(candidate=candidate, layers=layers)


# In the order of their cost.
_REMEDIES: dict[str, Callable[[Candidate, _Bench, Path], _Tried]] = {
    "calibration method per tensor": _choose_ranges,
    "cross-layer equalization": _equalize,
    "bias correction": _correct_biases,
    "learned rounding": _learn_rounding,
    "quantization-aware training": _train_on,
}


def _by_size(changes: dict[str, float], *, largest_first: bool) -> tuple[str, ...]:
    return tuple(sorted(changes, key=lambda name: changes[name], reverse=largest_first))


def _missed(found: Repair) -> ModelError:
    kept = [one.remedy for one in found.tries if one.is_kept]
    lines = [
        found.begin(),
        *(one.line(found) for one in found.tries),
    ]
    return ModelError(
        f"{found.scheme} loses {found.drop_points:.2f} points, {found.goal_points:g} are allowed "
        f"(best with {', '.join(kept) or 'no remedy'})",
        why="\n       ".join(lines),
        fix="allow more with --max-drop, train longer with --set qat.epochs=N, or choose int16x8 or float16",
    )
