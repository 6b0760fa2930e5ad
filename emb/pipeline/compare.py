"""Measures two model files or builds in turn, so that what disturbs one disturbs the other. Keeps nothing.

Where a process's memory comes to lie decides up to a few percent of its speed. So every pair of times comes from two
fresh processes, and the interval is over pairs of processes, not over runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emb.bench import bootstrap_median, describe_machine, mcnemar
from emb.errors import EmbError, ModelError, SpecError
from emb.pipeline.classify import preferred_runtime
from emb.pipeline.deliverable import Deliverable, find_all
from emb.pipeline.measured_on import MeasuredOn, images_for, require_same_classes, require_same_images
from emb.pipeline.measuring import Timed, medians_in_turn_ns, ways_to_run
from emb.registry import nearest
from emb.runtimes import open_runtime
from emb.spec.comparison import AccuracyPair, ChangedImage, Comparison, Pair
from emb.spec.contract import Pixels
from emb.spec.dataset import Images

# Pairs of processes.
PROCESSES = 12
_IMAGES = 16
# Of the cores, as the load average counts them; more than that is somebody else's work.
_BUSY = 0.5


def compare(
    baseline: Path,
    candidate: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    runtime: str | None = None,
    threads: int = 1,
    pixels: Pixels | None = None,
) -> Comparison:
    """Time and, with test images, judge two files, or the files of two builds that have format and scheme in common.

    data: as for `bench`, by default that of the baseline's build.  runtime: for those pairs that it runs, by
    default each that runs both; two formats have none in common, and each then runs on the first that is present.
    What fails on one runtime stands in `errors`. Raises EmbError for everything else.
    """
    notes = _load_notes()
    pairs: list[Pair] = []
    errors: list[str] = []
    images: MeasuredOn | None = None
    paired = _paired(find_all(baseline, pixels=pixels), find_all(candidate, pixels=pixels))
    for one, other, both_ways in _run_by(runtime, paired):
        _require_same_task(one, other)
        if images is None:
            images = images_for(one, data=data, data_dir=data_dir)
            if data is None:
                _require_same_images(images, one, other, data_dir=data_dir)
        for ways in both_ways:
            try:
                pairs.append(_pair((one, other), ways, images, threads=threads))
            except EmbError as error:
                errors.append(f"{one.path.name} on {' and '.join(dict.fromkeys(ways))}: {' '.join(str(error).split())}")
    assert images is not None  # there is a pair, or _paired had raised
    return Comparison(
        baseline=str(baseline),
        candidate=str(candidate),
        images=images.name,
        machine=describe_machine().title,
        pairs=tuple(pairs),
        errors=tuple(errors),
        notes=notes,
    )


def _paired(baseline: Sequence[Deliverable], candidate: Sequence[Deliverable]) -> list[tuple[Deliverable, Deliverable]]:
    """Those of the same format and scheme; then, of a format, the only ones that are left on both sides."""
    if len(baseline) == len(candidate) == 1:
        return [(baseline[0], candidate[0])]
    others = {(one.format, one.scheme): one for one in candidate}
    found = [(one, others[one.format, one.scheme]) for one in baseline if (one.format, one.scheme) in others]
    paired = {id(one) for pair in found for one in pair}
    for file_format in dict.fromkeys(one.format for one in baseline):
        left, right = (
            [one for one in side if one.format == file_format and id(one) not in paired]
            for side in (baseline, candidate)
        )
        if len(left) == len(right) == 1:
            found.append((left[0], right[0]))
    if not found:
        raise ModelError(
            "the two have no files of the same format and scheme",
            why=f"{_listed(baseline)} against {_listed(candidate)}",
            fix="name two files instead: emb bench A.tflite B.tflite --compare",
        )
    return found


def _listed(files: Sequence[Deliverable]) -> str:
    return ", ".join(f"{one.path.name} ({one.scheme})" for one in files)


def _run_by(
    runtime: str | None, pairs: Sequence[tuple[Deliverable, Deliverable]]
) -> list[tuple[Deliverable, Deliverable, list[tuple[str, str]]]]:
    """Each pair with its ways; with a runtime, those pairs that it runs. Raises SpecError if it runs none."""
    ways = [_ways(*pair) for pair in pairs]
    kept = [
        (*pair, [way for way in found if runtime is None or way == (runtime, runtime)])
        for pair, found in zip(pairs, ways, strict=True)
    ]
    if any(found for *_, found in kept):
        return [one for one in kept if one[2]]
    common = sorted({one for found in ways for one, other in found if one == other})
    listed = "; ".join(f"{one.path.name} and {other.path.name}" for one, other in pairs)
    raise SpecError(
        f"{runtime!r} does not run both {listed}",
        fix=nearest(str(runtime), common) if common else "leave --runtime out: each then runs on its own",
    )


def _ways(one: Deliverable, other: Deliverable) -> list[tuple[str, str]]:
    """(runtime of the one, runtime of the other), the same where there is one for both."""
    present = [
        [name for name, mode, absence in _modes(file) if mode == "default" and not absence] for file in (one, other)
    ]
    common = [name for name in present[0] if name in present[1]]
    return [(name, name) for name in common] or [(preferred_runtime(one), preferred_runtime(other))]


def _modes(file: Deliverable) -> list[tuple[str, str, str]]:
    return ways_to_run(file.format, scheme=file.scheme, with_reference_kernels=False)


def _pair(
    files: tuple[Deliverable, Deliverable], runtimes: tuple[str, str], images: MeasuredOn, *, threads: int
) -> Pair:
    one, other = (
        Timed(path=file.path, pixels=file.pixels, runtime=runtime)
        for file, runtime in zip(files, runtimes, strict=True)
    )
    shown = images.views[0][:_IMAGES]
    rounds = [medians_in_turn_ns((one, other), shown, threads=threads) for _ in range(PROCESSES)]
    ratios = [one / other for one, other in rounds]
    low, high = bootstrap_median(ratios)
    return Pair(
        format=_both(file.format for file in files),
        scheme=_both(file.scheme for file in files),
        runtime=_both(runtimes),
        baseline=str(files[0].path),
        candidate=str(files[1].path),
        baseline_us=median(one for one, _ in rounds) / 1000,
        candidate_us=median(other for _, other in rounds) / 1000,
        speed=median(ratios),
        low=low,
        high=high,
        threads=threads,
        accuracy=None if images.labels is None else _judged(files, runtimes, images.views[0], images.labels),
    )


def _both(words: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(words))


def _judged(
    files: tuple[Deliverable, Deliverable], runtimes: tuple[str, str], images: Images, labels: NDArray[np.int64]
) -> AccuracyPair:
    classes = []
    for file, runtime in zip(files, runtimes, strict=True):
        with open_runtime(runtime, model=file.path) as process:
            classes.append(process.scores(images, pixels=file.pixels).argmax(axis=1))
    right = [one == labels for one in classes]
    alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    return AccuracyPair(
        images=len(labels),
        baseline_correct=int(right[0].sum()),
        candidate_correct=int(right[1].sum()),
        baseline_alone=alone[0],
        candidate_alone=alone[1],
        p_value=mcnemar(*alone),
        changed=tuple(
            ChangedImage(
                number=int(number),
                label=int(labels[number]),
                baseline=int(classes[0][number]),
                candidate=int(classes[1][number]),
            )
            for number in np.flatnonzero(classes[0] != classes[1])
        ),
    )


def _require_same_task(one: Deliverable, other: Deliverable) -> None:
    shapes = [file.graph.tensors[file.graph.inputs[0]].shape or () for file in (one, other)]
    # Channels stand first or last.
    if sorted(map(str, shapes[0])) != sorted(map(str, shapes[1])):
        raise ModelError(
            f"{one.path} and {other.path} take images of different sizes",
            why=" and ".join("x".join(map(str, shape)) for shape in shapes),
            fix="compare models of the same input",
        )
    require_same_classes((one, other))


def _require_same_images(images: MeasuredOn, one: Deliverable, other: Deliverable, *, data_dir: Path | None) -> None:
    """Of two builds with their own test images: the baseline's must not be what the candidate was trained on."""
    if images.labels is None or "data" not in other.recipe or _split(one) == _split(other):
        return
    require_same_images(one, images, other, images_for(other, data=None, data_dir=data_dir))


def _split(file: Deliverable) -> tuple[Any, Any]:
    """What decides which images are the test images."""
    return file.recipe.get("data"), file.recipe.get("train", {}).get("seed")


def _load_notes() -> tuple[str, ...]:
    """What else the machine does, before anything is measured."""
    machine = describe_machine()
    load = machine.load_average
    if load is None or load <= _BUSY * machine.cores:
        return ()
    return (
        f"the machine was busy before (load {load:.2f} on {machine.cores} cores): intervals are wider than need be",
    )
