"""Every scheme in TFLite: close to float, clean, and true on the runtimes that take it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.errors import DataError, ExportError, ModelError
from emb.export.tflite import border, read_graph, type_name
from emb.quantize import SCHEMES, quantize_tflite
from emb.spec.contract import Pixels

NAMES = (
    *("lenet", "batch_norm", "residual", "inception", "mobile", "pre_activation", "leaky", "logits"),
    *("two_groups", "batch_norm_everywhere", "bottleneck"),
)
INTEGER = tuple(name for name in SCHEMES.names() if SCHEMES.get(name).SCHEME.integer_only)
# Largest difference of a probability, over random networks on the images that they were calibrated with; logits are
# about 5 wide.
CLOSE = {"float32": 1e-4, "float16": 2e-3, "dynamic": 0.02, "int8": 0.04, "int8-uint8": 0.04, "int16x8": 0.02}
# Of weights that were not trained for them.
CLOSE |= {"int8-qat": CLOSE["int8"], "int4w": 0.6}


@pytest.fixture(scope="module")
def quantized(float_file: Any, networks: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """quantized(network, scheme): path of the file, written once."""
    folder = tmp_path_factory.mktemp("quantized")

    def write(name: str, scheme: str, method: str = "minmax") -> Path:
        path = folder / f"{name}-{scheme}-{method}.tflite"
        if not path.exists():
            quantize_tflite(
                float_file(name, "tflite"),
                path,
                scheme=SCHEMES.get(scheme).SCHEME,
                calibration=networks.images(name, 32),
                method=method,
            )
        return path

    return write


@pytest.mark.parametrize("scheme", SCHEMES.names())
@pytest.mark.parametrize("name", NAMES)
def test_close_to_float(name: str, scheme: str, built: Any, networks: Any, quantized: Any, run: Any) -> None:
    images = networks.images(name, 32)
    expected = np.asarray(built(name)(images.astype(np.float32), training=False))
    scores = run(quantized(name, scheme), images)
    width = max(1.0, float(np.ptp(expected)))
    assert np.abs(scores - expected).max() <= CLOSE[scheme] * width
    kernels = run(quantized(name, scheme), images[:4], reference=False)
    assert np.abs(kernels - expected[:4]).max() <= CLOSE[scheme] * width


@pytest.mark.parametrize(
    # With 65,536 steps clipping never pays, so that mse of int16x8 is minmax.
    ("scheme", "method"),
    [("int8", "percentile"), ("int8", "mse"), ("int16x8", "percentile")],
)
def test_other_methods_of_calibration(
    method: str, scheme: str, built: Any, networks: Any, quantized: Any, run: Any
) -> None:
    images = networks.images("batch_norm", 32)
    expected = np.asarray(built("batch_norm")(images.astype(np.float32), training=False))
    path = quantized("batch_norm", scheme, method)
    assert np.abs(run(path, images) - expected).max() <= CLOSE[scheme]
    assert path.read_bytes() != quantized("batch_norm", scheme).read_bytes()


@pytest.mark.parametrize("scheme", INTEGER)
@pytest.mark.parametrize("name", NAMES)
def test_no_float_tensor_remains(name: str, scheme: str, quantized: Any) -> None:
    kinds = {type_name(tensor.type) for tensor in read_graph(quantized(name, scheme)).tensors}
    assert not kinds & {"float32", "float16"}


def test_int8_lenet_is_nothing_but_its_layers(quantized: Any, operations: Any) -> None:
    assert operations(quantized("lenet", "int8")) == [
        *("CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D"),
        *("RESHAPE", "FULLY_CONNECTED", "FULLY_CONNECTED", "SOFTMAX"),
    ]


def test_uint8_border_costs_two_operations(quantized: Any, operations: Any) -> None:
    inner = operations(quantized("lenet", "int8"))
    assert operations(quantized("lenet", "int8-uint8")) == ["QUANTIZE", *inner, "QUANTIZE"]


@pytest.mark.parametrize(
    ("scheme", "given", "scores"),
    [
        ("float32", ("float32", None, None), ("float32", None, None)),
        ("float16", ("float32", None, None), ("float32", None, None)),
        ("dynamic", ("float32", None, None), ("float32", None, None)),
        ("int8", ("int8", 1.0, -128), ("int8", 1 / 256, -128)),
        ("int8-uint8", ("uint8", 1.0, 0), ("uint8", 1 / 256, 0)),
        ("int16x8", ("int16", 1.0, 0), ("int16", 1 / 32768, 0)),
    ],
)
def test_pixels_go_in_as_they_are(scheme: str, given: Any, scores: Any, quantized: Any) -> None:
    first, last = border(quantized("lenet", scheme))
    assert (first.name, first.shape, first.layout) == ("image", (1, 28, 28, 1), "NHWC")
    assert (last.name, last.shape, last.layout) == ("scores", (1, 10), "NC")
    assert (first.dtype, first.scale, first.zero_point) == given
    assert (last.dtype, last.scale, last.zero_point) == scores


@pytest.mark.parametrize(
    ("pixels", "scale", "zero_point"),
    [(Pixels(scale=1 / 255), 1 / 255, -128), (Pixels(scale=2 / 255, offset=-1.0), 2 / 255, 0)],
)
def test_pixels_of_another_scale(
    pixels: Pixels, scale: float, zero_point: int, float_file: Any, networks: Any, tmp_path: Path
) -> None:
    path = tmp_path / "model.tflite"
    quantize_tflite(
        float_file("residual", "tflite"),
        path,
        scheme=SCHEMES.get("int8").SCHEME,
        calibration=networks.images("residual", 4),
        pixels=pixels,
    )
    given, _ = border(path)
    assert given.scale == pytest.approx(scale, rel=1e-6)
    assert given.zero_point == zero_point


def test_same_input_gives_same_bytes_and_prints_nothing(
    quantized: Any, float_file: Any, networks: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = quantized("inception", "int8").read_bytes()
    capfd.readouterr()
    again = tmp_path / "again.tflite"
    images = networks.images("inception", 32)
    quantize_tflite(float_file("inception", "tflite"), again, scheme=SCHEMES.get("int8").SCHEME, calibration=images)
    assert again.read_bytes() == first
    assert capfd.readouterr() == ("", "")


def test_weights_lie_at_multiples_of_16_bytes(quantized: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    content = quantized("lenet", "int8").read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    held = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [buffer._tab.Vector(buffer._tab.Offset(4)) for buffer in held if buffer.DataLength()]
    assert len(starts) > 5
    assert {start % 16 for start in starts} == {0}
    assert all(buffer.Offset() <= 1 for buffer in held)


def test_equal_to_tensorflows_own_converter(
    built: Any, networks: Any, quantized: Any, run: Any, tmp_path: Path
) -> None:
    """What docs/adr/0004 rests on: the same integers in the same graph."""
    import tensorflow as tf

    from emb.export._converter import converting
    from emb.export._inference import as_function

    images = networks.images("lenet", 32)
    function, weights = as_function(built("lenet"), pixels=Pixels())
    assert not weights
    with converting("the plain converter failed"):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[np.newaxis]] for image in images.astype(np.float32))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        (tmp_path / "plain.tflite").write_bytes(converter.convert())
    ours, plain = (_codes(path) for path in (quantized("lenet", "int8"), tmp_path / "plain.tflite"))
    assert ours.keys() == plain.keys()
    for key, scales in ours.items():
        # A scale may end in another bit: one is computed in 32, the other in 64 bits.
        np.testing.assert_allclose(scales, plain[key], rtol=3e-7)
    fresh = np.random.default_rng(3).integers(0, 256, (50, 28, 28, 1)).astype(np.uint8)
    np.testing.assert_array_equal(run(quantized("lenet", "int8"), fresh), run(tmp_path / "plain.tflite", fresh))


def _codes(path: Path) -> dict[Any, Any]:
    """{(shape, type, zero point, occurrence): scales} of every quantized tensor; the files order them differently."""
    codes: dict[Any, Any] = {}
    tensors = [tensor for tensor in read_graph(path).tensors if getattr(tensor.quantization, "scale", None) is not None]
    for tensor in sorted(tensors, key=lambda tensor: tuple(tensor.quantization.scale)):
        key = (tuple(tensor.shape), type_name(tensor.type), int(tensor.quantization.zeroPoint[0]))
        codes[key, sum(known == key for known, _ in codes)] = np.array(tensor.quantization.scale)
    return codes


@pytest.mark.slow
def test_a_convolution_kernel_of_more_than_32_mebibytes(tmp_path: Path, run: Any) -> None:
    """On which ai-edge-quantizer 0.10 alone fails."""
    import keras

    from emb.export.tflite import export

    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    x = keras.layers.Conv2D(1024, 1, activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(1024, 3, activation="relu")(x)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x)))
    export(model, tmp_path / "model.tflite")
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    quantize_tflite(
        tmp_path / "model.tflite", tmp_path / "int8.tflite", scheme=SCHEMES.get("int8").SCHEME, calibration=images
    )
    expected = np.asarray(model(images.astype(np.float32)))
    assert np.abs(run(tmp_path / "int8.tflite", images) - expected).max() <= CLOSE["int8"]


# --- tflite-runtime, in a process of its own ------------------------------------------------------------------------

_TFLITE_RUNTIME = """
import json, sys
import numpy as np
from tflite_runtime.interpreter import Interpreter, OpResolverType
images = np.load(sys.argv[1])
result = {}
for path in sys.argv[2:]:
    try:
        model = Interpreter(path, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
        model.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        result[path] = str(error).splitlines()[0]
        continue
    given, scores = model.get_input_details()[0], model.get_output_details()[0]
    scale, zero_point = given["quantization"]
    rows = []
    for image in images:
        stored = np.rint(image / scale) + zero_point if scale else image
        model.set_tensor(given["index"], stored.astype(given["dtype"])[np.newaxis])
        model.invoke()
        rows.append(model.get_tensor(scores["index"])[0].tolist())
    result[path] = rows
print(json.dumps(result))
"""


@pytest.mark.skipif(find_spec("tflite_runtime") is None, reason="tflite-runtime is not installed for this Python")
def test_tflite_runtime_agrees_to_the_bit_or_refuses(networks: Any, quantized: Any, run: Any, tmp_path: Path) -> None:
    images = networks.images("lenet", 8)
    np.save(tmp_path / "images.npy", images)
    paths = {name: quantized("lenet", name) for name in SCHEMES.names()}
    paths |= {f"{name}/int8": quantized(name, "int8") for name in NAMES}
    of_lenet = {name: path for name, path in paths.items() if path.name.startswith("lenet")}
    command = [sys.executable, "-c", _TFLITE_RUNTIME, str(tmp_path / "images.npy"), *map(str, of_lenet.values())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    # Its kernel would read one scale for all units and answer wrongly: the version that the file asks for stops it.
    assert "FULLY_CONNECTED' version '12'" in result[str(paths["dynamic"])]
    assert "filter->type == kTfLiteInt8) was not true" in result[str(paths["int4w"])]
    for name in (name for name in INTEGER if name != "int4w"):
        _, scores = border(paths[name])
        stored = np.rint(run(paths[name], images) / scores.scale + scores.zero_point)
        # The two runtimes' int16 softmax differs in its table; everything in 8 bits is equal.
        step = 1 if name == "int16x8" else 0
        np.testing.assert_allclose(np.array(result[str(paths[name])]), stored, rtol=0, atol=step, err_msg=name)
    for name in ("float32", "float16"):
        np.testing.assert_allclose(np.array(result[str(paths[name])]), run(paths[name], images), atol=1e-5)


@pytest.mark.skipif(find_spec("tflite_runtime") is None, reason="tflite-runtime is not installed for this Python")
def test_tflite_runtime_agrees_on_every_motif(networks: Any, quantized: Any, run: Any, tmp_path: Path) -> None:
    names = ("residual", "inception", "pre_activation", "two_groups", "batch_norm_everywhere", "bottleneck")
    images = networks.images("two_groups", 8)
    np.save(tmp_path / "images.npy", images)
    paths = [quantized(name, "int8") for name in names]
    command = [sys.executable, "-c", _TFLITE_RUNTIME, str(tmp_path / "images.npy"), *map(str, paths)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for name, path in zip(names, paths, strict=True):
        _, scores = border(path)
        stored = np.rint(run(path, images) / scores.scale + scores.zero_point)
        # The two runtimes' RSQRT, which LRN needs, rounds otherwise; everything else is equal.
        step = 1 if name == "two_groups" else 0
        np.testing.assert_allclose(np.array(result[str(path)]), stored, rtol=0, atol=step, err_msg=name)


def test_float16_leaves_single_numbers_alone(run: Any, tmp_path: Path) -> None:
    """Widening one would cost an operation, and a tensor without extents, whose shape no reader could be sure of."""
    from keras import Input, Model, layers

    from emb.export.tflite import export
    from emb.graph.files import read
    from emb.graph.rules import check, static_shapes

    image = Input((8, 8, 3))
    beginning = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(layers.Rescaling(0.5)(beginning)))
    x = layers.Concatenate()([beginning, x])
    export(Model(image, layers.Flatten()(x)), tmp_path / "float.tflite")
    quantize_tflite(tmp_path / "float.tflite", tmp_path / "half.tflite", scheme=SCHEMES.get("float16").SCHEME)
    half = read(tmp_path / "half.tflite")
    assert check(half, [static_shapes]) == ()
    single = [tensor for tensor in read(tmp_path / "float.tflite").tensors if tensor.constant and tensor.shape == ()]
    assert single
    assert {tensor.dtype for tensor in half.tensors if tensor.shape == () and tensor.constant} == {"float32"}
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    scores = run(tmp_path / "float.tflite", images)
    np.testing.assert_allclose(run(tmp_path / "half.tflite", images), scores, atol=2e-3 * np.abs(scores).max())


def test_a_normalization_behind_a_concatenation_is_one_operation(run: Any, tmp_path: Path) -> None:
    """As in a DenseNet, with a scale for each channel: a product and a sum would have one for all."""
    from keras import Input, Model, layers

    from emb.export.tflite import export
    from emb.graph.files import read

    rng = np.random.default_rng(3)
    image = Input((8, 8, 3))
    joined = layers.Concatenate()([layers.Conv2D(4, 3, padding="same")(image), layers.Conv2D(4, 1)(image)])
    norm = layers.BatchNormalization()
    model = Model(image, layers.Flatten()(layers.MaxPooling2D(2)(layers.ReLU()(norm(joined)))))
    images = rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    norm.set_weights([np.geomspace(0.01, 1, 8), np.geomspace(0.1, 10, 8), np.zeros(8), np.full(8, 1e3)])
    expected = np.asarray(model(images.astype(np.float32)))
    export(model, tmp_path / "float.tflite")
    for scheme in ("int8", "dynamic"):
        path = tmp_path / f"{scheme}.tflite"
        quantize_tflite(
            tmp_path / "float.tflite", path, scheme=SCHEMES.get(scheme).SCHEME, calibration=images, method="minmax"
        )
        graph = read(path)
        (tap,) = (operation for operation in graph.operations if operation.kind == "DEPTHWISE_CONV_2D")
        factors = graph.tensors[tap.inputs[1]]
        if scheme == "int8":
            assert len(factors.quantization.scales) == 8
            assert not {"MUL", "ADD", "RELU"} & {operation.kind for operation in graph.operations}
        else:  # eight numbers are not worth rounding the activations for
            assert factors.dtype == "float32"
        assert np.abs(run(path, images) - expected).max() < 0.02 * np.ptp(expected)


# --- faults ---------------------------------------------------------------------------------------------------------


def _error(kind: type[Exception], float_path: Path, out: Path, **arguments: Any) -> str:
    scheme = SCHEMES.get(arguments.pop("scheme", "int8")).SCHEME
    with pytest.raises(kind) as caught:
        quantize_tflite(float_path, out, scheme=scheme, **arguments)
    assert not out.exists()
    return str(caught.value)


def test_no_calibration_images(float_file: Any, tmp_path: Path) -> None:
    assert _error(DataError, float_file("lenet", "tflite"), tmp_path / "out.tflite") == (
        "the scheme int8 needs calibration images\n"
        "  why: the ranges of its integers follow from what the model computes on real images\n"
        "  fix: ask for at least one with --calibration; 100 to 500 are usual"
    )


def test_calibration_images_of_another_shape(float_file: Any, networks: Any, tmp_path: Path) -> None:
    images = networks.images("residual", 2)
    assert _error(DataError, float_file("lenet", "tflite"), tmp_path / "out.tflite", calibration=images) == (
        "the calibration images are 16x16x3, the model takes 28x28x1\n"
        "  fix: give images of the model's height, width and channels"
    )


def test_calibration_images_with_nan(float_file: Any, networks: Any, tmp_path: Path) -> None:
    images = networks.images("lenet", 2).astype(np.float32)
    images[0, 0, 0] = np.nan
    message = _error(DataError, float_file("lenet", "tflite"), tmp_path / "out.tflite", calibration=images)
    assert message.startswith("a calibration image holds NaN or infinity\n")


def test_a_quantized_model(quantized: Any, networks: Any, tmp_path: Path) -> None:
    path = quantized("lenet", "int8")
    message = _error(ModelError, path, tmp_path / "out.tflite", calibration=networks.images("lenet", 2))
    assert message.startswith(f"{path.name} is quantized already\n  why: its tensor ")
    assert message.endswith("\n  fix: give the float32 model that it was made from")


def test_an_operation_without_integer_kernel_is_named(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    from emb.export import tflite

    @keras.saving.register_keras_serializable("tests")
    class LocalResponse(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return tf.nn.local_response_normalization(x)

    image = keras.Input((8, 8, 4))
    x = LocalResponse()(keras.layers.Conv2D(4, 3)(image))
    tflite.export(keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(x))), tmp_path / "lrn.tflite")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 4)).astype(np.uint8)
    message = _error(ExportError, tmp_path / "lrn.tflite", tmp_path / "out.tflite", calibration=images)
    assert message.startswith("the int8 TFLite model keeps float tensors\n  why: DEQUANTIZE writes ")
    assert "LOCAL_RESPONSE_NORMALIZATION writes " in message
    assert message.endswith(
        " as float32\n  fix: replace the layers behind these operations, or choose dynamic or float16"
    )


def test_a_weight_beyond_float16(built: Any, tmp_path: Path) -> None:
    import keras

    from emb.export import tflite

    image = keras.Input((8, 8, 1))
    model = keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(image)))
    model.layers[-1].bias.assign([1e5, 0.0, 0.0])
    tflite.export(model, tmp_path / "model.tflite")
    message = _error(ExportError, tmp_path / "model.tflite", tmp_path / "out.tflite", scheme="float16")
    assert "does not fit into 16-bit floats\n  why: its largest value is 100000, that of float16 is 65504\n" in message
