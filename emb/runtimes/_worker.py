"""The process that runs one model: `python -m emb.runtimes._worker`, requests on stdin, replies on stdout.

Answers the requests of `_process.py` in the frames of `_frames.py`. Imports numpy and the one runtime it is told to,
so that nothing else can disturb the runtime or its memory figure. It ends when its stdin does.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from emb.errors import EmbError, ModelError
from emb.runtimes._frames import Header, read_frame, write_frame
from emb.runtimes._interface import Array, Interpreter
from emb.runtimes._registry import RUNTIMES
from emb.spec.contract import TensorContract

Reply = tuple[Header, Array | None]
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the parent's to handle; it ends this process
    _die_with_parent()
    _write_no_core_file()
    requests, replies = _own_pipes()
    interpreter: Interpreter | None = None
    while True:
        try:
            request, array = read_frame(requests)
        except EOFError:
            # Not sys.exit: a runtime that crashes while it is torn down has still done its work.
            os._exit(0)
        try:
            if interpreter is None:
                interpreter, reply = _open(request)
                answer: Reply = (reply, None)
            else:
                answer = _REQUESTS[request["request"]](interpreter, request, array)
        except Exception as error:
            answer = (_failure(error), None)
        write_frame(replies, *answer)


def _open(request: Header) -> tuple[Interpreter, Header]:
    runtime = RUNTIMES.get(request["runtime"])
    runtime.load()
    before_bytes = _forget_peak_memory()
    begin = time.perf_counter_ns()
    interpreter: Interpreter = runtime.open_model(
        Path(request["model"]), mode=request["mode"], threads=request["threads"]
    )
    open_ns = time.perf_counter_ns() - begin
    for tensor in (interpreter.input, interpreter.output):
        _require_single_array(tensor)
    reply = {
        "input": asdict(interpreter.input),
        "output": asdict(interpreter.output),
        "before_bytes": before_bytes,
        "open_ns": open_ns,
    }
    return interpreter, reply


def _require_single_array(tensor: TensorContract) -> None:
    try:
        np.dtype(tensor.dtype)
    except TypeError:
        raise ModelError(
            f"the tensor {tensor.name!r} has the type {tensor.dtype}",
            why="emb exchanges arrays of numbers that numpy knows",
            fix="export the model with float32, int8 or uint8 tensors at its border",
        ) from None
    if not tensor.shape or tensor.shape[0] != 1:
        raise ModelError(
            f"the tensor {tensor.name!r} has the shape {tensor.shape}",
            why="emb runs one image at a time: the first axis must have the length 1",
            fix="export the model with a batch of 1",
        )


def _run_each(interpreter: Interpreter, request: Header, inputs: Array | None) -> Reply:
    assert inputs is not None
    outputs = np.empty((len(inputs), *interpreter.output.shape[1:]), dtype=interpreter.output.dtype)
    for index in range(len(inputs)):
        outputs[index] = interpreter.run(inputs[index : index + 1])[0]
    return {}, outputs


def _time_runs(interpreter: Interpreter, request: Header, inputs: Array | None) -> Reply:
    """Runs the inputs in turn until `duration_s` is over, once at least; the time of each call in ns."""
    assert inputs is not None
    samples: list[int] = []
    now = time.perf_counter_ns
    gc.disable()
    end = now() + int(request["duration_s"] * 1e9)
    while not samples or now() < end:
        index = len(samples) % len(inputs)
        invoke = interpreter.invocation(inputs[index : index + 1])
        start = now()
        invoke()
        samples.append(now() - start)
    gc.enable()
    return {}, np.array(samples, dtype=np.int64)


def _run_ends(interpreter: Interpreter, request: Header, inputs: Array | None) -> Reply:
    """Runs the inputs in turn until `duration_s` is over, twice at least; when each ended, in ns.

    The clock counts for all processes alike (time.perf_counter is system-wide), so that their ends can be compared.
    """
    assert inputs is not None
    ends: list[int] = []
    now = time.perf_counter_ns
    gc.disable()
    stop = now() + int(request["duration_s"] * 1e9)
    while len(ends) < 2 or ends[-1] < stop:
        index = len(ends) % len(inputs)
        interpreter.invocation(inputs[index : index + 1])()
        ends.append(now())
    gc.enable()
    return {}, np.array(ends, dtype=np.int64)


def _memory(interpreter: Interpreter, request: Header, inputs: Array | None) -> Reply:
    return {"peak_bytes": _status_bytes("VmHWM")}, None


def _operations(interpreter: Interpreter, request: Header, inputs: Array | None) -> Reply:
    return {"operations": [asdict(operation) for operation in interpreter.operations()]}, None


_REQUESTS: dict[str, Callable[[Interpreter, Header, Array | None], Reply]] = {
    "run_each": _run_each,
    "time_runs": _time_runs,
    "run_ends": _run_ends,
    "memory": _memory,
    "operations": _operations,
}


def _failure(error: Exception) -> Header:
    if isinstance(error, EmbError):
        return {"error": type(error).__name__, "what": error.what, "why": error.why, "fix": error.fix}
    return {"error": "", "why": f"{type(error).__name__}: {error}".strip()}


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """(requests, replies). Whatever a runtime prints to stdout goes to stderr from now on."""
    replies = os.dup(1)
    os.dup2(2, 1)
    requests = os.dup(0)
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _die_with_parent() -> None:
    """A parent that is killed cannot end a worker that hangs; on Linux the kernel does it in its place."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_no_core_file() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _forget_peak_memory() -> int | None:
    """Start the kernel's high-water mark afresh; the resident bytes at this moment, None if the system keeps none.

    Source: proc(5), /proc/pid/clear_refs, value 5.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status_bytes("VmRSS")


def _status_bytes(field: str) -> int | None:
    """A field of /proc/self/status in bytes, None without one.

    VmHWM belongs to this program alone; ru_maxrss would begin with what the parent had when it forked.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")]
    return found[0] if found else None


if __name__ == "__main__":
    main()
