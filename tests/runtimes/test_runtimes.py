"""Every runtime on real models: the same answers, exactly once per input, and a true description of the model."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from emb.errors import ModelError, RuntimeFailure
from emb.runtimes import RUNTIMES, open_runtime, present, to_input
from emb.runtimes.tflite_runtime import _absence
from emb.spec.contract import TensorContract

SCHEMES = ("float32", "float16", "dynamic", "int8", "int8-uint8", "int16x8")
ONNX_FILES = ("float32.onnx", "open-batch.onnx", "int8.onnx")
TFLITE_CASES = [
    pytest.param(scheme, name, mode, id=f"{scheme}-{name}-{mode}")
    for scheme in SCHEMES
    for name, mode in present("tflite")
    if RUNTIMES.get(name).refusal(scheme) is None
]
# How far a scheme's scores may lie from the float reference on average; those reach from about -1 to 1.
TOLERANCE = {"float32": 1e-5, "float16": 1e-3, "dynamic": 5e-3, "int8": 0.01, "int8-uint8": 0.01, "int16x8": 5e-3}


@pytest.fixture(scope="module")
def float_scores(models: Path, images: np.ndarray) -> np.ndarray:
    with open_runtime("litert", model=models / "float32.tflite", mode="reference") as runtime:
        return runtime.scores(images[:300])


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_describes_itself_without_its_library(name: str) -> None:
    runtime = RUNTIMES.get(name)
    assert runtime.FORMATS in (("tflite",), ("onnx",))
    assert runtime.MODES[0] == "default"
    if runtime.absence() is None:
        assert runtime.version() == version({"litert": "ai-edge-litert"}.get(name, name))


def test_imports_no_runtime() -> None:
    heavy = ("tensorflow", "keras", "tflite_runtime", "onnxruntime", "ai_edge_litert", "onnx")
    script = (
        "import sys, emb.runtimes, emb.bench\n"
        "print(emb.runtimes.present('tflite'), emb.runtimes.present('onnx'), file=sys.stderr)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


@pytest.mark.parametrize("name", [name for name in RUNTIMES.names() if RUNTIMES.get(name).absence() is None])
def test_worker_imports_its_own_runtime_alone(name: str) -> None:
    libraries = {"litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime", "onnxruntime": "onnxruntime"}
    others = ("tensorflow", "keras", "onnx", "PIL", "sklearn", "scipy", *libraries.values())
    script = (
        "import sys, emb.runtimes._worker\n"
        "from emb.runtimes import RUNTIMES\n"
        f"RUNTIMES.get({name!r}).load()\n"
        f"print([other for other in {others} if other in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == f"[{libraries[name]!r}]\n"


def test_present_lists_every_mode() -> None:
    assert set(present("onnx")) <= {("onnxruntime", "default")}
    assert ("litert", "default") in present("tflite")
    assert ("litert", "reference") in present("tflite")
    assert present("pickle") == ()


@pytest.mark.parametrize(("scheme", "name", "mode"), TFLITE_CASES)
def test_scheme_runs_right(
    scheme: str, name: str, mode: str, models: Path, images: np.ndarray, float_scores: np.ndarray
) -> None:
    with open_runtime(name, model=models / f"{scheme}.tflite", mode=mode) as runtime:
        scores = runtime.scores(images[:300])
    assert scores.dtype == np.float32
    assert np.abs(scores - float_scores).mean() < TOLERANCE[scheme]


@pytest.mark.parametrize(("file", "name", "mode"), [("int8.tflite", *way) for way in present("tflite")])
def test_many_inputs_give_the_bits_of_single_calls(
    file: str, name: str, mode: str, models: Path, images: np.ndarray
) -> None:
    with open_runtime(name, model=models / file, mode=mode) as runtime:
        x = to_input(images, runtime.input)
        together = runtime.run_each(x)
        single = np.concatenate([runtime.run_each(x[index : index + 1]) for index in range(len(x))])
    assert together.dtype == np.int8
    assert len(np.unique(together)) > 10
    assert together.tobytes() == single.tobytes()


@pytest.mark.parametrize("file", ONNX_FILES)
def test_onnx_gives_the_bits_of_single_calls(file: str, models: Path, images: np.ndarray) -> None:
    with open_runtime("onnxruntime", model=models / file) as runtime:
        x = to_input(images, runtime.input)
        together = runtime.run_each(x)
        single = np.concatenate([runtime.run_each(x[index : index + 1]) for index in range(len(x))])
    assert len(np.unique(together)) > 10
    assert together.tobytes() == single.tobytes()


def test_onnx_agrees_with_tflite(models: Path, images: np.ndarray, float_scores: np.ndarray) -> None:
    for file in ("float32.onnx", "open-batch.onnx"):
        with open_runtime("onnxruntime", model=models / file) as runtime:
            assert np.abs(runtime.scores(images[:300]) - float_scores).max() < 1e-5


@pytest.mark.skipif(RUNTIMES.get("tflite-runtime").absence() is not None, reason="tflite-runtime is not installed")
def test_both_tflite_runtimes_in_one_parent(models: Path, images: np.ndarray) -> None:
    """Their reference kernels differ by a last bit now and then: a golden output belongs to one runtime and mode."""
    model = models / "int8.tflite"
    with (
        open_runtime("litert", model=model, mode="reference") as litert,
        open_runtime("tflite-runtime", model=model, mode="reference") as tflite_runtime,
    ):
        x = to_input(images, litert.input)
        assert litert.input == tflite_runtime.input
        distance = np.abs(litert.run_each(x).astype(int) - tflite_runtime.run_each(x))
    assert distance.max() <= 1
    assert np.count_nonzero(distance) < 0.02 * distance.size


@pytest.mark.skipif(RUNTIMES.get("tflite-runtime").absence() is not None, reason="tflite-runtime is not installed")
class TestDynamicOnTfliteRuntime:
    """Why `refusal` names this scheme: measured, so that a newer version shows when the reason is gone."""

    def test_is_refused_with_the_reason(self) -> None:
        assert RUNTIMES.get("tflite-runtime").refusal("dynamic") == (
            "tflite-runtime 2.14 does not know TensorFlow's dynamic-range FULLY_CONNECTED (version 12), and runs "
            "that of ai-edge-quantizer without an error but with wrong results"
        )

    def test_the_converters_model_does_not_open(self, models: Path) -> None:
        with (
            pytest.raises(RuntimeFailure) as caught,
            open_runtime("tflite-runtime", model=models / "dynamic.tflite"),
        ):
            pass
        assert "FULLY_CONNECTED' version '12'" in caught.value.why

    def test_the_quantizers_model_is_wrong_without_a_word(
        self, models: Path, images: np.ndarray, float_scores: np.ndarray
    ) -> None:
        model = models / "dynamic-quantizer.tflite"
        with open_runtime("litert", model=model) as runtime:
            assert np.abs(runtime.scores(images[:300]) - float_scores).mean() < TOLERANCE["dynamic"]
        with open_runtime("tflite-runtime", model=model) as runtime:
            assert np.abs(runtime.scores(images[:300]) - float_scores).mean() > 0.1


def test_describes_tflite_tensors(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        assert runtime.input == TensorContract(
            name="image", shape=(1, 12, 12, 1), dtype="int8", layout="NHWC", scale=1.0, zero_point=-128
        )
        assert (runtime.output.shape, runtime.output.dtype, runtime.output.layout) == ((1, 4), "int8", "NC")
        assert runtime.output.scale is not None
    with open_runtime("litert", model=models / "float32.tflite") as runtime:
        assert (runtime.input.dtype, runtime.input.scale, runtime.input.zero_point) == ("float32", None, None)


def test_describes_onnx_tensors_with_the_files_own_quantization(models: Path) -> None:
    with open_runtime("onnxruntime", model=models / "int8.onnx") as runtime:
        assert runtime.input == TensorContract(
            name="x", shape=(1, 1, 12, 12), dtype="uint8", layout="NCHW", scale=1.0, zero_point=0
        )
        assert runtime.output == TensorContract(
            name="y", shape=(1, 4), dtype="uint8", layout="NC", scale=0.5, zero_point=120
        )
    with open_runtime("onnxruntime", model=models / "open-batch.onnx") as runtime:
        assert runtime.input == TensorContract(name="x", shape=(1, 1, 12, 12), dtype="float32", layout="NCHW")


def test_litert_delegates_all_of_int8_to_xnnpack(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        operations = runtime.operations()
    assert [(operation.name, operation.delegate) for operation in operations] == [
        ("CONV_2D", "XNNPACK"),
        ("MAX_POOL_2D", "XNNPACK"),
        ("RESHAPE", "XNNPACK"),
        ("FULLY_CONNECTED", "XNNPACK"),
        ("FULLY_CONNECTED", "XNNPACK"),
    ]


def test_reference_mode_delegates_nothing(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite", mode="reference") as runtime:
        assert {operation.delegate for operation in runtime.operations()} == {None}


@pytest.mark.skipif(RUNTIMES.get("tflite-runtime").absence() is not None, reason="tflite-runtime is not installed")
def test_tells_operations_that_the_delegate_left(models: Path) -> None:
    """Two delegated parts with an operation between them that tflite-runtime's XNNPACK does not know."""
    with open_runtime("tflite-runtime", model=models / "partly.tflite") as runtime:
        operations = runtime.operations()
    assert [operation.name for operation in operations if operation.delegate is None] == ["SIN"]
    assert [operation.name for operation in operations if operation.delegate == "XNNPACK"] == [
        "MUL",
        "CONV_2D",
        "MAX_POOL_2D",
        "RESHAPE",
        "FULLY_CONNECTED",
        "FULLY_CONNECTED",
    ]


def test_onnxruntime_fuses_every_conv_and_dense_layer(models: Path) -> None:
    with open_runtime("onnxruntime", model=models / "int8.onnx") as runtime:
        names = [operation.name for operation in runtime.operations()]
    assert [name for name in names if "Conv" in name or "Gemm" in name or "MatMul" in name] == ["QLinearConv", "QGemm"]


@pytest.mark.parametrize(
    ("name", "file"), [("litert", "int8.tflite"), ("tflite-runtime", "float32.tflite"), ("onnxruntime", "float32.onnx")]
)
def test_threads_are_those_asked_for(name: str, file: str, models: Path, images: np.ndarray) -> None:
    if absence := RUNTIMES.get(name).absence():
        pytest.skip(absence)
    if not Path("/proc/self/status").exists():
        pytest.skip("the system keeps no /proc")
    counts = []
    for threads in (1, 3):
        with open_runtime(name, model=models / file, threads=threads) as runtime:
            runtime.scores(images[:2])
            status = Path(f"/proc/{runtime.pid}/status").read_text()
            counts += [int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads:")]
    # ONNX Runtime keeps one more of its own.
    assert counts[1] - counts[0] == 2


def test_times_single_runs(models: Path, images: np.ndarray) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        x = to_input(images[:3], runtime.input)
        samples = runtime.time_runs(x, warm_up_s=0.1, measure_s=0.05, min_runs=7)
    assert samples.dtype == np.int64
    assert samples.ndim == 1
    assert len(samples) >= 7
    assert samples.min() > 0


def test_onnx_times_single_runs(models: Path, images: np.ndarray) -> None:
    with open_runtime("onnxruntime", model=models / "int8.onnx") as runtime:
        x = to_input(images[:3], runtime.input)
        samples = runtime.time_runs(x, warm_up_s=0.0, measure_s=0.0, min_runs=5)
    assert len(samples) >= 5


@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_two_processes_tell_when_their_runs_ended_by_one_clock(name: str, models: Path, images: np.ndarray) -> None:
    model = models / f"int8.{RUNTIMES.get(name).FORMATS[0]}"
    with open_runtime(name, model=model) as one, open_runtime(name, model=model) as other:
        moments = [time.perf_counter_ns()]
        for runtime in (one, other, one):
            ends = runtime.run_ends(to_input(images[:3], runtime.input), duration_s=0.01)
            assert ends.dtype == np.int64
            assert len(ends) >= 2
            assert (np.diff(ends) > 0).all()
            assert moments[-1] < ends[0]
            moments.append(time.perf_counter_ns())
            assert ends[-1] < moments[-1]
        assert len(one.run_ends(to_input(images[:3], one.input), duration_s=0.0)) == 2


def test_a_cold_start_is_the_opening_and_one_run(models: Path, images: np.ndarray) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        x = to_input(images[:2], runtime.input)
        first = runtime.cold_start_ns(x)
        assert first > runtime._open_ns > 0
        with pytest.raises(ModelError):
            runtime.cold_start_ns(x[:, :6])


def test_memory_separates_the_model_from_the_process(models: Path, images: np.ndarray) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        runtime.run_each(to_input(images[:1], runtime.input))
        memory = runtime.memory()
        whole = runtime.peak_memory_bytes()
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the system keeps no /proc")
    assert memory is not None
    assert whole is not None
    assert 10 << 20 < memory.before_bytes < memory.peak_bytes <= whole < 500 << 20
    assert memory.model_bytes == memory.peak_bytes - memory.before_bytes


def test_inputs_must_fit(models: Path) -> None:
    with open_runtime("litert", model=models / "int8.tflite") as runtime:
        with pytest.raises(ModelError) as caught:
            runtime.run_each(np.zeros((2, 12, 12, 1), np.float32))
        assert str(caught.value) == (
            "int8.tflite takes int8 inputs of shape (12, 12, 1), not float32 of (12, 12, 1)\n"
            "  fix: make the inputs with emb.runtimes.to_input"
        )
        with pytest.raises(ModelError, match=r"not int8 of \(28, 28, 1\)"):
            runtime.run_each(np.zeros((2, 28, 28, 1), np.int8))
        with pytest.raises(ModelError, match="no input to time"):
            runtime.time_runs(np.zeros((0, 12, 12, 1), np.int8))
        assert runtime.run_each(np.zeros((0, 12, 12, 1), np.int8)).shape == (0, 4)


def test_tflite_runtime_says_why_it_is_missing() -> None:
    here = {"python": (3, 11), "platform": "linux", "numpy_version": "1.26.4"}
    assert _absence(installed=True, **here) is None
    assert _absence(installed=True, **{**here, "numpy_version": "2.1.0"}) == (
        "tflite-runtime needs numpy below 2, found 2.1.0; pip install 'numpy<2'"
    )
    assert _absence(installed=False, **{**here, "python": (3, 12)}) == (
        "tflite-runtime has wheels for Python 3.11 and older only, and this is 3.12; use Python 3.11"
    )
    assert _absence(installed=False, **{**here, "platform": "darwin"}) == (
        "tflite-runtime has wheels for Linux only; use litert here"
    )
