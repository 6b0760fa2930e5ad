"""A runtime that crashes, hangs or refuses is an error with a reason, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from emb.errors import ModelError, RuntimeFailure, SpecError
from emb.runtimes import RUNTIMES, _process, open_runtime
from emb.runtimes._last_words import death, last_words

ZEROS = np.zeros((1, 12, 12, 1), np.int8)


def gone(pid: int) -> bool:
    """Whether no process, not even a zombie, bears this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ends_soon(pid: int) -> bool:
    """Whether a process of somebody else's ends; whoever inherits it may leave it a zombie."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_worker_is_reaped_after_use(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        pid = runtime.pid
        assert not gone(pid)
    assert gone(pid)
    with pytest.raises(RuntimeFailure) as caught:
        runtime.run_each(ZEROS)
    assert str(caught.value) == "the process of litert has ended\n  fix: open the runtime again"


def test_kill_while_running(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        os.kill(runtime.pid, signal.SIGSTOP)  # so that it surely still runs when it is killed
        killer = threading.Timer(0.2, os.kill, (runtime.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(RuntimeFailure) as caught:
            runtime.run_each(ZEROS)
        killer.join()
        assert gone(runtime.pid)
        assert str(caught.value) == (
            "litert was killed while it ran int8.tflite (SIGKILL)\n"
            "  why: usually the system does so when memory runs out; it left no last words\n"
            "  fix: free memory or run less at the same time, then try again"
        )
        with pytest.raises(RuntimeFailure, match="the process of litert has ended"):
            runtime.memory()


@pytest.mark.skipif(RUNTIMES.get("tflite-runtime").absence() is not None, reason="tflite-runtime is not installed")
def test_half_a_file_is_a_failure_whatever_the_runtime_makes_of_it(models: Path) -> None:
    """tflite-runtime 2.14 does not verify a file and reads on behind its end: a crash or a refusal, by chance."""
    with (
        pytest.raises(RuntimeFailure) as caught,
        open_runtime("tflite-runtime", model=models / "truncated.tflite", mode="reference"),
    ):
        pass
    assert caught.value.what in (
        "tflite-runtime (reference) crashed on truncated.tflite (SIGSEGV)",
        "tflite-runtime (reference) refused truncated.tflite",
    )


def test_segmentation_fault_of_a_runtime(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        os.kill(runtime.pid, signal.SIGSEGV)
        with pytest.raises(RuntimeFailure) as caught:
            runtime.run_each(np.zeros((1, 12, 12, 1), np.int8))
    assert str(caught.value) == (
        "litert crashed on int8.tflite (SIGSEGV)\n"
        "  why: it left no last words\n"
        "  fix: check that the file is whole; if it is, run it on another runtime or in another mode"
    )


def test_hang_ends_at_the_time_limit(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite", mode="reference") as runtime:
        runtime.timeout_s = 0.5
        os.kill(runtime.pid, signal.SIGSTOP)
        with pytest.raises(RuntimeFailure) as caught:
            runtime.run_each(np.repeat(ZEROS, 5000, axis=0))
        assert gone(runtime.pid)
    assert str(caught.value) == (
        "litert (reference) did not answer within 0.5 s on int8.tflite\n"
        "  why: it left no last words\n"
        "  fix: if the model is large, allow more time; else it hangs: run it on another runtime or in another mode"
    )


@pytest.mark.parametrize(("answer_s", "carried"), [(0.0, [1, 1, 1, 1, 1]), (1e9, [1, 4])])
def test_a_request_carries_what_is_answered_soon(
    models: Path, monkeypatch: pytest.MonkeyPatch, answer_s: float, carried: list[int]
) -> None:
    """The limit is for one answer, and a test split on reference kernels may take longer than that."""
    monkeypatch.setattr(_process, "_ANSWER_S", answer_s)
    inputs = np.random.default_rng(0).integers(-128, 128, (5, *ZEROS.shape[1:]), np.int8)
    asked = []
    with open_runtime("litert", model=models / "int8.tflite", mode="reference") as runtime:
        ask = runtime._ask
        monkeypatch.setattr(runtime, "_ask", lambda request, x: asked.append(len(x)) or ask(request, x))
        outputs = runtime.run_each(inputs)
        assert asked == carried
        np.testing.assert_array_equal(outputs, np.concatenate([runtime.run_each(one[np.newaxis]) for one in inputs]))


def test_last_words_of_an_abort(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation whose native code aborts while it is loaded."""
    broken = tmp_path / "ai_edge_litert"
    broken.mkdir()
    (broken / "__init__.py").write_text(
        "import os, sys\n"
        "print('INFO: loading kernels', file=sys.stderr)\n"
        "print('on stdout, and harmless there', flush=True)\n"
        "print('FATAL: this library was built for another processor', file=sys.stderr, flush=True)\n"
        "os.abort()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeFailure) as caught, open_runtime("litert", model=models / "int8.tflite"):
        pass
    assert str(caught.value) == (
        "litert crashed on int8.tflite (SIGABRT)\n"
        "  why: its last words:\n"
        "       on stdout, and harmless there\n"
        "       FATAL: this library was built for another processor\n"
        "  fix: check that the file is whole; if it is, run it on another runtime or in another mode"
    )


@pytest.mark.parametrize("file", ["garbage.tflite", "truncated.tflite"])
def test_litert_refuses_a_damaged_file(file: str, models: Path) -> None:
    with pytest.raises(RuntimeFailure) as caught, open_runtime("litert", model=models / file):
        pass
    assert str(caught.value) == (
        f"litert refused {file}\n"
        "  why: ValueError: The model is not a valid Flatbuffer buffer\n"
        "  fix: check that the file is whole; if it is, run it on another runtime or in another mode"
    )
    assert caught.value.exit_code == 1


def test_onnxruntime_refuses_a_damaged_file(models: Path) -> None:
    with pytest.raises(RuntimeFailure) as caught, open_runtime("onnxruntime", model=models / "garbage.onnx"):
        pass
    assert caught.value.what == "onnxruntime refused garbage.onnx"
    assert caught.value.why.startswith("InvalidProtobuf: ")
    assert "Protobuf parsing failed" in caught.value.why


def test_error_in_the_block_ends_the_worker(models: Path) -> None:
    pids: list[int] = []

    def fail() -> None:
        with open_runtime("litert", model=models / "int8.tflite") as runtime:
            pids.append(runtime.pid)
            raise KeyError("somebody else's error")

    with pytest.raises(KeyError):
        fail()
    assert gone(pids[0])


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "two-outputs.tflite",
            "two-outputs.tflite has 1 inputs and 2 outputs\n"
            "  why: emb runs models with one input, an image, and one output, a score for each class\n"
            "  fix: export the part of the model that leads from the image to the scores",
        ),
        (
            "batch-of-two.tflite",
            "the tensor 'image' has the shape (2, 12, 12, 1)\n"
            "  why: emb runs one image at a time: the first axis must have the length 1\n"
            "  fix: export the model with a batch of 1",
        ),
        (
            "missing.tflite",
            "there is no model file missing.tflite\n  fix: check the path, or build the model first",
        ),
    ],
)
def test_unfit_models(file: str, message: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(models)
    with pytest.raises(ModelError) as caught, open_runtime("litert", model=Path(file)):
        pass
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("name", "file", "options", "message"),
    [
        (
            "litrt",
            "int8.tflite",
            {},
            "unknown runtime 'litrt'\n  fix: did you mean 'litert'? known: litert, onnxruntime, tflite-runtime",
        ),
        (
            "litert",
            "int8.tflite",
            {"mode": "referense"},
            "litert has no mode 'referense'\n  fix: did you mean 'reference'? known: default, reference",
        ),
        (
            "onnxruntime",
            "int8.tflite",
            {},
            "onnxruntime cannot run int8.tflite\n  why: it reads .onnx files\n"
            "  fix: choose a runtime for .tflite files: litert, tflite-runtime",
        ),
        ("litert", "int8.tflite", {"threads": 0}, "threads must be at least 1, not 0"),
    ],
)
def test_wrong_requests(name: str, file: str, options: dict, message: str, models: Path) -> None:
    with pytest.raises(SpecError) as caught, open_runtime(name, model=models / file, **options):
        pass
    assert str(caught.value) == message


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def heed_interrupts() -> None:
    """A job in the background of a shell inherits that SIGINT is ignored, and Python then leaves it so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_ends_the_worker_without_noise(models: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        import numpy as np
        from emb.runtimes import open_runtime
        try:
            with open_runtime("litert", model=Path(sys.argv[1])) as runtime:
                os.kill(runtime.pid, signal.SIGSTOP)
                print(runtime.pid, flush=True)
                runtime.run_each(np.zeros((1, 12, 12, 1), np.int8))
        except KeyboardInterrupt:
            print("interrupted")
    """
    with start(script, str(models / "int8.tflite")) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGINT)
        out, err = parent.communicate(timeout=20)
    assert (out, err, parent.returncode) == ("interrupted\n", "", 0)
    assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a process with its parent")
def test_killed_parent_takes_a_hanging_worker_with_it(models: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from emb.runtimes import open_runtime
        with open_runtime("litert", model=Path(sys.argv[1])) as runtime:
            os.kill(runtime.pid, signal.SIGSTOP)
            print(runtime.pid, flush=True)
            sys.stdin.read()
    """
    with start(script, str(models / "int8.tflite")) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    assert ends_soon(pid)


def test_last_words_are_the_tail_of_a_long_story(tmp_path: Path) -> None:
    file = tmp_path / "stderr"
    file.write_text("".join(f"line {number}\n\n" for number in range(5000)) + "INFO: Created a delegate.\nthe end")
    with file.open("rb") as stderr:
        assert last_words(stderr) == ["line 4996", "line 4997", "line 4998", "line 4999", "the end"]


def test_exit_code_is_told() -> None:
    error = death("litert", "a.tflite", exit_code=1, hung_s=None, words=["ImportError: no numpy"])
    assert str(error) == (
        "litert ended on a.tflite (exit code 1)\n"
        "  why: its last words:\n"
        "       ImportError: no numpy\n"
        "  fix: `emb doctor` shows whether the runtime is installed as it should be"
    )
    assert (
        death("litert", "a.tflite", exit_code=-8, hung_s=None, words=[]).what == "litert crashed on a.tflite (SIGFPE)"
    )
