"""Repair as a stage: remedies in the order of their cost, each judged by its own int8 file on validation images.

Decides neither what a remedy does (emb.quantize.remedies, emb.pipeline.keeping_float) nor which files the repaired
weights become. Never looks at a test image.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from emb.errors import EmbError, ExportError, ModelError, RuntimeFailure
from emb.pipeline.json_files import write_json
from emb.pipeline.keeping_float import keep_float
from emb.pipeline.quantized_models import (
    RANGES,
    REPAIR_FILE,
    Candidate,
    calibration_of,
    groups_of,
    open_plain,
    write_candidate,
    write_unchanged,
)
from emb.pipeline.quantized_training import trained_on
from emb.pipeline.repair_bench import Bench, Tried
from emb.pipeline.stage import Work
from emb.pipeline.stages import write_float
from emb.spec.repair import Repair, RepairTry
from emb.spec.scheme import Scheme


def repair(work: Work, *, source: str, model: str, scheme: Scheme, float_refusal: str) -> None:
    """model.keras and ranges.json of a model that loses no more than repair.max_drop; repair.json: what was tried.

    source: the stage whose model it is.  scheme: what it is measured in.  float_refusal: why no layer may compute in
    float32, "" if some may. Where the file loses no more without any remedy, both are as `source` left them.
    Raises ModelError where no remedy reaches the goal.
    """
    bench = Bench(work=work, images=calibration_of(work), scheme=scheme)
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
        bench = replace(bench, enough=found.enough)
        asked_for = work.context.recipe.repair.keep_float == "allow"
        remedies = remedies_in_order(floats=not float_refusal, floats_last=not asked_for and not failure)
        found = _repaired(work, bench, found, remedies=remedies, source=source, model=model, scratch=scratch)
    if not found.is_reached:
        raise _missed(found, float_refusal=float_refusal)
    write_json(work.folder / REPAIR_FILE, found.to_json())
    shutil.rmtree(scratch, ignore_errors=True)


def remedies_in_order(*, floats: bool, floats_last: bool) -> list[str]:
    """The remedies by their cost. floats: whether layers may stay in float32.

    floats_last: only after the training, as a file with floats cannot be bundled; in vain where there is no file of
    integers to train for.
    """
    names = [name for name in _REMEDIES if name != _IN_FLOAT or floats]
    return sorted(names, key=lambda name: name == _IN_FLOAT) if floats_last else names


def _float_model(work: Work) -> str:
    """The name of the model's own file in the artifact of its stage."""
    return next(name for name in work.done["model"].files if name.startswith("model."))


def _repaired(
    work: Work, bench: Bench, found: Repair, *, remedies: list[str], source: str, model: str, scratch: Path
) -> Repair:
    """What was tried, in order; the best candidate's files are in the stage's folder."""
    from emb.quantize.remedies.simulation import ranges_of

    plain = open_plain(work, source=source, model=model)
    method = work.context.recipe.quantize.calibration_method
    ranges = groups_of(work.done[source]) or ranges_of(plain, bench.images, method=method)
    best = Candidate(model=plain, floats=plain, ranges=ranges)
    waiting, undone, again = list(remedies), [], set[str]()
    while waiting and not found.is_reached:
        name = waiting.pop(0)
        folder = scratch / "candidate"
        tried, one = _tried(name, best, bench, correct_before=found.correct, scratch=scratch, folder=folder)
        found = replace(found, tries=(*found.tries, one))
        if not one.is_kept:
            undone.append(name)
            continue
        best = tried.candidate
        found = replace(found, float_layers=tried.float_layers)
        for file in ("model.keras", RANGES):
            shutil.copyfile(folder / file, work.folder / file)
        # What could gain nothing while another fault hid it may do so now; once.
        waiting = [*(other for other in undone if other not in again), *waiting]
        again.update(undone)
        undone = []
    return found


def _tried(
    name: str, best: Candidate, bench: Bench, *, correct_before: int, scratch: Path, folder: Path
) -> tuple[Tried, RepairTry]:
    """(what a remedy makes of the best candidate so far, how good it is); its files are in `folder`."""
    began = time.monotonic()
    try:
        tried = _REMEDIES[name](best, bench, scratch)
    except (ExportError, RuntimeFailure) as error:
        # There is no file yet that it could begin with.
        tried, correct, failure = Tried(candidate=best, layers=()), 0, _reason(error)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_candidate(folder, tried.candidate, bench.images)
        correct, failure = _judged(bench, folder)
    return tried, RepairTry(
        remedy=name,
        layers=tried.layers,
        correct_before=correct_before,
        correct_after=correct,
        seconds=round(time.monotonic() - began, 1),
        failure=failure,
        # Floats are for the goal alone: short of it they would only hide from the training what it should mend.
        shortfall="" if correct >= bench.enough or tried.float_layers is None else tried.shortfall,
    )


def _judged(bench: Bench, folder: Path) -> tuple[int, str]:
    """(correct images, ""), or (0, why) for a candidate of which no file can be made or run."""
    try:
        return bench.judge(folder), ""
    except (ExportError, RuntimeFailure) as error:
        return 0, _reason(error)


def _reason(error: EmbError) -> str:
    return " ".join((error.why or error.what).split())


def _choose_ranges(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    from emb.quantize.remedies.range_choice import chosen_ranges

    method = bench.work.context.recipe.quantize.calibration_method
    ranges, choices = chosen_ranges(best.floats, bench.images, first=method)
    return Tried(
        candidate=replace(best, ranges=ranges, per_tensor=True),
        layers=tuple(f"{group} ({choice})" for group, choice in choices.items()),
    )


def _equalize(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    from emb.quantize.remedies.equalization import equalized
    from emb.quantize.remedies.simulation import ranges_of

    # From the floats: what was fitted to the rounding of other weights is to be fitted anew.
    model, pairs = equalized(best.floats)
    method = bench.work.context.recipe.quantize.calibration_method
    equal = Candidate(model=model, floats=model, ranges=ranges_of(model, bench.images, method=method))
    if best.per_tensor:
        equal = _choose_ranges(equal, bench, scratch).candidate
    pairs = sorted(pairs, key=lambda pair: pair.spread, reverse=True)
    return Tried(candidate=equal, layers=tuple(f"{pair.first} and {pair.second}" for pair in pairs))


def _correct_biases(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    from emb.quantize.remedies.bias_correction import bias_corrected

    model, changes = bias_corrected(best.model, bench.images, best.ranges, floats=best.floats, bits=bench.bits)
    return Tried(candidate=replace(best, model=model), layers=_by_size(changes, largest_first=True))


def _learn_rounding(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    from emb.quantize.remedies.bias_correction import bias_corrected
    from emb.quantize.remedies.rounding import rounding_learned

    seed = bench.work.context.recipe.train.seed
    model, shares = rounding_learned(best.floats, bench.images, best.ranges, seed=seed, bits=bench.bits)
    model, _ = bias_corrected(model, bench.images, best.ranges, floats=best.floats, bits=bench.bits)
    changed = {name: share for name, share in shares.items() if share < 1}
    return Tried(candidate=replace(best, model=model), layers=_by_size(changed, largest_first=False))


def _train_on(best: Candidate, bench: Bench, scratch: Path) -> Tried:
    from emb.quantize.remedies.placement import calls_of, has_kernel

    candidate, _, _ = trained_on(best, bench.work, bits=bench.bits, directory=scratch / "training")
    layers = tuple(call.name for call in calls_of(best.model) if has_kernel(call.layer))
    return Tried(candidate=candidate, layers=layers)


_IN_FLOAT = "layers in float32"
# In the order of their cost.
_REMEDIES: dict[str, Callable[[Candidate, Bench, Path], Tried]] = {
    "calibration method per tensor": _choose_ranges,
    "cross-layer equalization": _equalize,
    "bias correction": _correct_biases,
    "learned rounding": _learn_rounding,
    _IN_FLOAT: keep_float,
    "quantization-aware training": _train_on,
}


def _by_size(changes: dict[str, float], *, largest_first: bool) -> tuple[str, ...]:
    return tuple(sorted(changes, key=lambda name: changes[name], reverse=largest_first))


def _missed(found: Repair, *, float_refusal: str) -> ModelError:
    kept = [one.remedy for one in found.tries if one.is_kept]
    lines = [
        found.begin(),
        *(one.line(found) for one in found.tries),
        *([f"{_IN_FLOAT} not tried: {float_refusal}"] if float_refusal else []),
    ]
    return ModelError(
        f"{found.scheme} loses {found.drop_points:.2f} points, {found.goal_points:g} are allowed "
        f"(best with {', '.join(kept) or 'no remedy'})",
        why="\n       ".join(lines),
        fix="allow more with --max-drop, train longer with --set qat.epochs=N, or choose int16x8 or float16",
    )
