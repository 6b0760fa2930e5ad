"""From the artifacts of a build to what its report says of the target. Checks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from emb.pipeline import edgetpu, ethosu
from emb.pipeline.json_files import read_json
from emb.pipeline.plan import Plan
from emb.pipeline.targeting import COMPILE, FIT, FIT_FILE, Deployment, nothing_runs
from emb.spec.fit import Estimate, Fault
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.report import TargetReport
from emb.store import Artifact


def compiled_file(planned: Plan, done: Mapping[str, Artifact]) -> tuple[str, Path] | None:
    """(name in the build, place in the store) of the file in its accelerator's own form, if there is one."""
    for stage, model in ((COMPILE, ethosu.MODEL), (FIT, edgetpu.MODEL)):
        if planned.deployment and stage in done and model in done[stage].files:
            return model.replace("model", PurePath(planned.deployment.file).stem, 1), done[stage].path(model)
    return None


def target_report(planned: Plan, done: Mapping[str, Artifact]) -> TargetReport | None:
    """What the stage "fit" found; None for a build without a target, or whose file could not be made."""
    deployed = planned.deployment
    if deployed is None:
        return None
    if not deployed.file:
        return _without_file(deployed)
    if FIT not in done:
        return None
    found = read_json(done[FIT].path(FIT_FILE))
    placements = tuple(Placement(**placement) for placement in found["placements"])
    target = deployed.aim.target
    has_accelerator = target.accelerator.kind != "none"
    compiled = compiled_file(planned, done)
    return TargetReport(
        name=target.name,
        summary=target.summary,
        file=deployed.file,
        compiled=compiled[0] if compiled else "",
        faults=tuple(Fault(**fault) for fault in found["faults"]),
        arena_bytes=found["arena_bytes"],
        fullest=found["fullest_operation"],
        accelerator=target.accelerator.kind,
        on_accelerator=sum(placement.device != "cpu" for placement in placements),
        operations=len(placements),
        on_cpu=tuple(placement for placement in placements if placement.device == "cpu") if has_accelerator else (),
        latency=Estimate(**found["latency_us"]) if found["latency_us"] else None,
        npu=NpuEstimate(**found["npu"]) if found["npu"] else None,
        compilation=found["compiled"],
        compile_command=found["compile_command"],
        other_files=deployed.other_files,
    )


def _without_file(deployed: Deployment) -> TargetReport:
    target = deployed.aim.target
    return TargetReport(
        name=target.name,
        summary=target.summary,
        file="",
        compiled="",
        faults=(nothing_runs(target, deployed.other_files),),
        arena_bytes=None,
        fullest="",
        accelerator=target.accelerator.kind,
        on_accelerator=0,
        operations=0,
        on_cpu=(),
        latency=None,
        npu=None,
        other_files=deployed.other_files,
    )
