"""What a report says of the target, line by line. Knows no terminal and no markup."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from emb.spec.fit import Estimate
from emb.spec.npu import NpuEstimate
from emb.spec.placement import Placement
from emb.spec.report import TargetReport

_SHOWN = 10  # operations on the processor; report.json has all of them


def target_lines(target: TargetReport) -> list[str]:
    """Whether the build fits its target, and what of it nobody has measured yet. Faults have lines of their own."""
    return list(_lines(target))


def fault_lines(target: TargetReport) -> list[str]:
    """One line for each fault: what, why and the remedy."""
    return [f"does not fit: {fault.what}; {' '.join(fault.why.split())}; {fault.fix}" for fault in target.faults]


def latency_line(latency: Estimate) -> str:
    """An estimate, called one, with its source."""
    lowest, highest = (value / 1000 for value in (latency.lowest_us, latency.highest_us))
    return f"latency: {lowest:.3g} to {highest:.3g} ms, an estimate and no measurement: {latency.source}"


def npu_line(npu: NpuEstimate) -> str:
    """The compiler's own figures."""
    memories = ((npu.sram_bytes, "SRAM"), (npu.dram_bytes, "DRAM"), (npu.flash_bytes, "flash"))
    taken = ", ".join(f"{count:,} bytes of {memory}" for count, memory in memories if count)
    return (
        f"{npu.compiler} estimates {npu.cycles:,} cycles ({npu.latency_us / 1000:.3g} ms at "
        f"{npu.clock_hz / 1e6:,.0f} MHz) and {taken or 'no memory'}; nothing of it was measured"
    )


def compiler_lines(compilation: Mapping[str, Any] | None, command: str) -> list[str]:
    """What the Edge TPU's compiler made of the model, or how to have it compiled elsewhere.

    compilation: of `emb check --json`, "compiled".  command: that compiles it, "" where that was done or is in vain.
    """
    if command:
        tool = command.split()[0]
        return [
            f"not compiled: {tool} is not on the PATH here, so that the int8 model is delivered as it is",
            f"  any Linux on x86-64 that has it compiles the model: {command}",
        ]
    if compilation is None:
        return []
    told = [
        f"  {one['subject']}: predicted {one['predicted']}; compiled {one['compiled']}"
        for one in compilation["differences"]
    ]
    return [
        f"compiled, version {compilation['compiler']}: {compilation['mapped']} of {compilation['operations']} "
        f"operations on the accelerator, {compilation['cached_bytes']:,} bytes of parameters on its chip, "
        f"{compilation['streamed_bytes']:,} streamed for every image",
        *(told or ["  as predicted"]),
    ]


def placement_line(placement: Placement) -> str:
    """One operation that an accelerator leaves to the processor."""
    why = f"{placement.status}: {placement.detail}" if placement.detail else placement.status
    return f"on the processor: {placement.kind} {placement.layer or placement.operation}: {why}"


def _lines(target: TargetReport) -> Iterator[str]:
    if target.file:
        yield f"{target.file} {'does not fit' if target.faults else 'fits'} {target.name}: {target.summary}"
    else:
        yield f"nothing runs on {target.name}: {target.summary}"
    if target.arena_bytes is not None and target.npu is None:
        yield f"activations: {target.arena_bytes:,} bytes planned, most of them around {target.fullest}"
    if target.accelerator != "none" and target.file:
        # Vela decides what its accelerator gets; of the Edge TPU's compiler that is foretold.
        foretold = "" if target.npu else "predicted: "
        share = f"{target.on_accelerator} of {target.operations} operations"
        yield f"{foretold}{share} on the accelerator ({target.accelerator})"
    yield from map(placement_line, target.on_cpu[:_SHOWN])
    if len(target.on_cpu) > _SHOWN:
        yield f"and {len(target.on_cpu) - _SHOWN} more operations on the processor"
    if target.npu:
        yield npu_line(target.npu)
    yield from compiler_lines(target.compilation, target.compile_command)
    if target.latency:
        yield latency_line(target.latency)
    if target.compiled:
        yield f"{target.compiled} is {target.file} compiled for {target.name}; it runs nowhere else"
    yield from (f"{name} is not for {target.name}: {reason}" for name, reason in target.other_files.items())
