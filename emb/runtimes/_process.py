"""Runs a model on a runtime in a process of its own, so that a crash or hang there is an error here and nothing worse.

The worker (`_worker.py`) is started without a shell, talked to through two pipes and always reaped. Knows no
particular runtime.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from emb import errors
from emb.errors import ModelError, RuntimeFailure, SpecError
from emb.registry import nearest
from emb.runtimes import _timing
from emb.runtimes._frames import Header, read_frame, write_frame
from emb.runtimes._interface import Array, RuntimeOperation
from emb.runtimes._last_words import death, last_words
from emb.runtimes._onnx_border import border_quantization
from emb.runtimes._registry import RUNTIMES
from emb.runtimes._tensors import to_input, to_scores
from emb.spec.contract import ModelContract, Pixels, TensorContract
from emb.spec.dataset import Images
from emb.spec.measurement import Memory

# One request carries no more than this, and no more than is answered in so many seconds, so that a slow model on a busy
# machine is not taken for one that hangs.
_CHUNK_BYTES = 1 << 20
_CHUNK_INPUTS = 256
_ANSWER_S = 5.0
_IMAGES_AT_ONCE = 1024
_IMAGE_BYTES_AT_ONCE = 1 << 25


class RuntimeProcess:
    """One model on one runtime in a process of its own. Made by `open_runtime`, ended with its `with` block.

    When the process has ended, there or because the runtime died, every call raises RuntimeFailure.
    timeout_s: the longest time for one answer; may be set between calls.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], stderr: IO[bytes], *, label: str, model: Path, timeout_s: float
    ) -> None:
        self._process = process
        self._stderr = stderr
        self._label = label
        self._model = model
        self.timeout_s = timeout_s
        self._hung = False
        self._before_bytes: int | None = None
        self._open_ns = 0
        self.input: TensorContract
        self.output: TensorContract

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def run_each(self, x: Array) -> Array:
        """Run the inputs one by one, as n single calls would: the same bits.

        x: (n, *input.shape[1:]) in input.dtype. Returns (n, *output.shape[1:]) in output.dtype.
        Raises ModelError if x does not fit, RuntimeFailure if the runtime fails.
        """
        self._require_fit(x)
        outputs = np.empty((len(x), *self.output.shape[1:]), dtype=self.output.dtype)
        start, step = 0, 1
        while start < len(x):
            began = time.monotonic()
            _, part = self._ask({"request": "run_each"}, x[start : start + step])
            outputs[start : start + step] = part
            input_s = (time.monotonic() - began) / step
            start += step
            step = max(1, min(_chunk_inputs(x), int(_ANSWER_S / max(input_s, 1e-9))))
        return outputs

    def scores(
        self,
        images: Images,
        *,
        pixels: Pixels | None = None,
        contract: ModelContract | None = None,
    ) -> NDArray[np.float32]:
        """Real-valued scores of raw images, each run alone: (n, height, width, channels) uint8 -> (n, values) float32.

        contract: of this file, where the file alone would leave its input's layout to be guessed.
        """
        tensor_in = contract.input if contract else self.input
        tensor_out = contract.output if contract else self.output
        step = max(1, min(_IMAGES_AT_ONCE, _IMAGE_BYTES_AT_ONCE // max(1, int(np.prod(images.shape[1:])))))
        parts = [
            to_scores(self.run_each(to_input(images[start : start + step], tensor_in, pixels or Pixels())), tensor_out)
            for start in range(0, max(1, len(images)), step)
        ]
        return np.concatenate(parts)

    def time_runs(
        self, x: Array, *, warm_up_s: float = 0.5, measure_s: float = 0.5, min_runs: int = 20
    ) -> NDArray[np.int64]:
        """Wall time of the inference call alone, taken inside the worker: (runs,) int64 ns, in order.

        x: inputs as for `run_each`, used in turn, one at least. Warm-up lasts until the times are steady (two medians
        over 0.05 s within 2 %) or for warm_up_s; then at least measure_s and min_runs.
        """
        self._require_fit(x)
        if len(x) == 0:
            raise ModelError("no input to time", fix="hand at least one input to time_runs")

        def run_for(duration_s: float) -> NDArray[np.int64]:
            _, samples = self._ask({"request": "time_runs", "duration_s": duration_s}, x[: _chunk_inputs(x)])
            assert samples is not None
            return samples

        return _timing.measure(run_for, warm_up_s=warm_up_s, measure_s=measure_s, min_runs=min_runs)

    def cold_start_ns(self, x: Array) -> int:
        """Time to open the file and to run it once, on x[:1]. Of a process that has run nothing yet.

        Taken inside the worker. Not contained: the start of Python, the import of the runtime's library, and the copy
        of the input. The file is in the system's cache if something has read it before.
        """
        self._require_fit(x)
        _, first = self._ask({"request": "time_runs", "duration_s": 0.0}, x[:1])
        assert first is not None
        return self._open_ns + int(first[0])

    def run_ends(self, x: Array, *, duration_s: float) -> NDArray[np.int64]:
        """Run the inputs in turn for so long, twice at least; when each run ended: (runs,) int64 ns.

        Of a clock that is the same in all processes of the machine. Every run contains the copy of its input.
        """
        self._require_fit(x)
        _, ends = self._ask({"request": "run_ends", "duration_s": duration_s}, x[: _chunk_inputs(x)])
        assert ends is not None
        return ends

    def memory(self) -> Memory | None:
        """Peak memory of the worker so far; None where the system has no /proc (anything but Linux).

        To compare models, ask in a process that ran one input: `run_each` holds up to 1 MiB of inputs at once.
        """
        reply, _ = self._ask({"request": "memory"})
        if self._before_bytes is None or reply["peak_bytes"] is None:
            return None
        return Memory(peak_bytes=reply["peak_bytes"], before_bytes=self._before_bytes)

    def peak_memory_bytes(self) -> int | None:
        """The whole worker's peak, see `emb.spec.measurement.Memory.peak_bytes`; None where it cannot be read."""
        memory = self.memory()
        return None if memory is None else memory.peak_bytes

    def operations(self) -> tuple[RuntimeOperation, ...]:
        """What the runtime executes after its own rewriting. Ask after `memory`: for ONNX it opens the model again."""
        reply, _ = self._ask({"request": "operations"})
        return tuple(RuntimeOperation(**operation) for operation in reply["operations"])

    def _open(self, request: Header) -> None:
        reply, _ = self._ask(request)
        self._before_bytes = reply["before_bytes"]
        self._open_ns = reply["open_ns"]
        self.input, self.output = _tensor(reply["input"]), _tensor(reply["output"])
        if self._model.suffix == ".onnx":
            self.input, self.output = border_quantization(self._model, self.input, self.output)

    def _ask(self, request: Header, array: Array | None = None) -> tuple[Header, Array | None]:
        """One request, one reply. The worker is killed if the reply takes longer than the time limit."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._process.returncode is not None:
            raise RuntimeFailure(f"the process of {self._label} has ended", fix="open the runtime again")
        watch = threading.Timer(self.timeout_s, self._kill_hung)
        watch.daemon = True
        watch.start()
        try:
            write_frame(self._process.stdin, request, array)
            reply, result = read_frame(self._process.stdout)
        except (OSError, EOFError):
            raise self._died() from None
        finally:
            watch.cancel()
        if "error" in reply:
            raise self._refused(request["request"], reply)
        return reply, result

    def _kill_hung(self) -> None:
        self._hung = True
        self._process.kill()

    def _died(self) -> RuntimeFailure:
        exit_code = self._end()
        return death(
            self._label,
            self._model.name,
            exit_code=exit_code,
            hung_s=self.timeout_s if self._hung else None,
            words=last_words(self._stderr),
        )

    def _refused(self, request: str, reply: Header) -> errors.EmbError:
        kind = getattr(errors, reply["error"], None)
        if kind is not None:
            error: errors.EmbError = kind(reply["what"], why=reply["why"], fix=reply["fix"])
            return error
        verb = "refused" if request == "open" else "failed on"
        words = last_words(self._stderr)
        return RuntimeFailure(
            f"{self._label} {verb} {self._model.name}",
            why="\n       ".join([*reply["why"].splitlines(), *words]),
            fix="check that the file is whole; if it is, run it on another runtime or in another mode",
        )

    def _end(self) -> int:
        """Close the pipes and reap the worker, which gets a moment to die by itself; its exit code."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # bytes that a worker which is gone will never read
                pipe.close()
        try:
            return self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _require_fit(self, x: Array) -> None:
        if x.dtype.name != self.input.dtype or x.shape[1:] != self.input.shape[1:] or x.ndim == 0:
            raise ModelError(
                f"{self._model.name} takes {self.input.dtype} inputs of shape {self.input.shape[1:]}, "
                f"not {x.dtype.name} of {x.shape[1:]}",
                fix="make the inputs with emb.runtimes.to_input",
            )


@contextmanager
def open_runtime(
    name: str, *, model: Path, mode: str = "default", threads: int = 1, timeout_s: float = 120.0
) -> Iterator[RuntimeProcess]:
    """Open a model file on a runtime in a process of its own, which ends with the `with` block.

    name: a public name of the registry emb.runtimes.  mode: one of the runtime's MODES.
    threads: how many the runtime may use for one inference.
    timeout_s: the longest time for one answer: opening the model, or one inference of a model that takes seconds.
    Raises SpecError for an unknown runtime or mode, ModelError for a missing or unfit file, RuntimeFailure if the
    runtime is not installed, refuses the model, crashes or hangs.
    """
    _check(name, model, mode=mode, threads=threads)
    with tempfile.TemporaryFile(prefix="emb-runtime-") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emb.runtimes._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=_environment(threads),
            # A Ctrl-C in the terminal goes to this process alone, which then ends the worker.
            process_group=0 if os.name == "posix" else None,
        )
        label = name if mode == "default" else f"{name} ({mode})"
        runtime = RuntimeProcess(process, stderr, label=label, model=model, timeout_s=timeout_s)
        try:
            runtime._open(
                {
                    "request": "open",
                    "runtime": name,
                    "model": str(model.resolve()),
                    "mode": mode,
                    "threads": threads,
                }
            )
            yield runtime
        finally:
            process.kill()  # it keeps nothing worth a farewell
            runtime._end()


def _check(name: str, model: Path, *, mode: str, threads: int) -> None:
    runtime = RUNTIMES.get(name)
    if mode not in runtime.MODES:
        raise SpecError(f"{name} has no mode {mode!r}", fix=nearest(mode, runtime.MODES))
    if threads < 1:
        raise SpecError(f"threads must be at least 1, not {threads}")
    file_format = model.suffix.removeprefix(".").lower()
    if file_format not in runtime.FORMATS:
        raise SpecError(
            f"{name} cannot run {model.name}",
            why=f"it reads {', '.join(f'.{known}' for known in runtime.FORMATS)} files",
            fix=f"choose a runtime for .{file_format} files: {_readers(file_format)}",
        )
    if not model.is_file():
        raise ModelError(f"there is no model file {model}", fix="check the path, or build the model first")
    absence = runtime.absence()
    if absence is not None:
        raise RuntimeFailure(f"{name} cannot be used here", why=absence)


def _readers(file_format: str) -> str:
    names = [name for name in RUNTIMES.names() if file_format in RUNTIMES.get(name).FORMATS]
    return ", ".join(names) or "there is none"


def _environment(threads: int) -> dict[str, str]:
    """The worker searches modules exactly where this process does, and only the runtime may start threads."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path)
    environment["OMP_NUM_THREADS"] = str(threads)
    environment["OPENBLAS_NUM_THREADS"] = "1"  # numpy's, which has nothing to multiply there
    return environment


def _chunk_inputs(x: Array) -> int:
    """How many inputs one request carries."""
    return max(1, min(_CHUNK_INPUTS, _CHUNK_BYTES // max(1, x[:1].nbytes)))


def _tensor(described: Header) -> TensorContract:
    tensor = TensorContract(**described)
    return replace(tensor, shape=tuple(tensor.shape))
