"""Neighbouring pixels as channels: fewer steps for a kernel, and the same integers."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from emb.graph import flatbuffer as fb
from emb.graph.files import read
from emb.quantize import SCHEMES, layer_errors, quantize_onnx, quantize_tflite
from emb.quantize._onnx_packing import pack_pixels as pack_onnx_pixels
from emb.quantize._packing import Convolution, Packing, packed, packing
from emb.quantize._tflite_packing import pack_pixels

# Name -> (height, width, channels) and the first layer's maps, size, stride and padding.
FIRST_LAYERS = {
    "lenet, without padding": ((28, 28, 1), (6, 5, 1, "valid")),
    "lenet": ((28, 28, 1), (6, 5, 1, "same")),
    "three by three": ((28, 28, 1), (8, 3, 1, "valid")),
    "resnet": ((32, 32, 3), (8, 7, 2, "same")),
    "mobilenet": ((32, 32, 3), (8, 3, 2, "same")),
    "four maps for the second layer": ((20, 36, 1), (4, 5, 2, "valid")),
}
# The second layer has 8 channels in the others.
BOTH = "four maps for the second layer"


@pytest.fixture(scope="module")
def float_files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """float_files(name, format): a network that begins with one of FIRST_LAYERS, written once."""
    from emb.export import onnx, tflite

    folder = tmp_path_factory.mktemp("packing")
    models: dict[str, Any] = {}

    def write(name: str, file_format: str) -> Path:
        path = folder / f"{name.replace(' ', '-')}.{file_format}"
        if not path.exists():
            if name not in models:
                models[name] = network(*FIRST_LAYERS[name])
            {"tflite": tflite, "onnx": onnx}[file_format].export(models[name], path)
        return path

    return write


def network(shape: tuple[int, int, int], first: tuple[int, int, int, str]) -> Any:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    maps, size, stride, padding = first
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(maps, size, strides=stride, padding=padding, activation="relu", bias_initializer="normal")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(8, 3, activation="relu", use_bias=False)(x)
    return keras.Model(pixels, layers.Dense(10)(layers.Flatten()(x)))


def images_of(name: str, count: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *FIRST_LAYERS[name][0]), dtype=np.uint8)


def shapes_of_kernels(path: Path) -> list[tuple[int, ...]]:
    graph = read(path)
    return [graph.tensors[one.inputs[1]].shape for one in graph.operations if one.kind == "CONV_2D"]


def test_a_packed_convolution_gives_the_same_numbers() -> None:
    sizes = product(range(4, 15), (1, 3), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (0, 1, 2), (1, 2, 3, 4))
    checked = 0
    for width, channels, taps, stride, before, after, outputs in sizes:
        one = Convolution(width=width, channels=channels, maps=2, taps=taps, stride=stride, before=before, after=after)
        way = packed(one, outputs) if one.outputs > 0 else None
        if way is not None:
            assert_the_same(one, way)
            checked += 1
    assert checked > 500


def assert_the_same(one: Convolution, way: Packing) -> None:
    rng = np.random.default_rng(one.width)
    kernel = rng.integers(-9, 10, (2, 1, one.taps, one.channels))
    row = rng.integers(-9, 10, (one.width, one.channels))
    plain = convolved(np.pad(row, ((one.before, one.after), (0, 0))), kernel, one.stride)
    made = way.kernel(kernel, stride=one.stride)
    pixels = np.pad(row.reshape(one.width // way.pixels, -1), ((way.before, way.after), (0, 0)))
    np.testing.assert_array_equal(convolved(pixels, made, 1).reshape(plain.shape), plain, err_msg=str(one))
    np.testing.assert_array_equal(way.first_kernel(made, taps=one.taps, channels=one.channels), kernel)


def convolved(pixels: NDArray[Any], kernel: NDArray[Any], stride: int) -> NDArray[Any]:
    """(outputs, maps) of (width, channels) by (maps, 1, taps, channels)."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, kernel.shape[2], axis=0)[::stride]
    return np.einsum("wct,mtc->wm", windows, kernel[:, 0])


@pytest.mark.parametrize(
    ("one", "lanes", "maps", "outputs", "taps"),
    [
        # Of 5 taps, each of 1 channel in 8 lanes, 2 taps of 4 channels become.
        pytest.param({"width": 28, "channels": 1, "taps": 5}, 8, 1, 4, 2, id="lenet"),
        pytest.param({"width": 28, "channels": 1, "taps": 5}, 4, 1, 4, 2, id="lenet, kernels of four"),
        pytest.param(
            {"width": 224, "channels": 3, "taps": 7, "stride": 2, "before": 2, "after": 3}, 8, 1, 1, 4, id="resnet"
        ),
        # 3 taps of 16 channels take as long as 6 of 8, and give two outputs instead of one.
        pytest.param({"width": 12, "channels": 8, "taps": 5, "maps": 8}, 8, 16, 2, 3, id="half of the maps"),
        pytest.param({"width": 28, "channels": 1, "taps": 5, "maps": 6}, 8, 16, 4, 2, id="lenet of six maps"),
        pytest.param({"width": 12, "channels": 8, "taps": 5, "maps": 8}, 1, 16, 2, 3, id="single channels in"),
    ],
)
def test_how_convolutions_are_packed(one: dict[str, int], lanes: int, maps: int, outputs: int, taps: int) -> None:
    way = packing(Convolution(**{"stride": 1, "before": 0, "after": 0, "maps": 20, **one}), lanes=lanes, maps=maps)
    assert way is not None
    assert (way.outputs, way.taps) == (outputs, taps)


@pytest.mark.parametrize(
    ("one", "lanes", "maps"),
    [
        pytest.param({"width": 28, "channels": 1, "taps": 5}, 1, 1, id="a kernel of single channels"),
        pytest.param({"width": 28, "channels": 20, "taps": 5}, 8, 1, id="enough channels"),
        pytest.param({"width": 12, "channels": 8, "taps": 5, "maps": 8}, 8, 8, id="enough maps"),
        # Half of the packed kernel would be zeros.
        pytest.param({"width": 12, "channels": 8, "taps": 1, "maps": 8}, 8, 16, id="a single tap"),
        pytest.param({"width": 32, "channels": 3, "taps": 3, "before": 1, "after": 1}, 8, 1, id="as many steps"),
        pytest.param({"width": 227, "channels": 3, "taps": 11, "stride": 4}, 8, 16, id="a width of no multiple"),
        # 28 lanes of 4 instead of 49, but each of 6 channels takes two.
        pytest.param(
            {"width": 224, "channels": 3, "taps": 7, "stride": 2, "before": 2, "after": 3}, 4, 1, id="more steps"
        ),
    ],
)
def test_what_gains_nothing_is_left(one: dict[str, int], lanes: int, maps: int) -> None:
    convolution = Convolution(**{"stride": 1, "before": 0, "after": 0, "maps": 20, **one})
    assert packing(convolution, lanes=lanes, maps=maps) is None


@pytest.mark.parametrize(
    ("one", "outputs"),
    [
        # 2, 4 and 8 outputs of 8 maps fill the kernel: 3 taps of 8 channels for each.
        pytest.param({"width": 32, "maps": 8, "taps": 3, "before": 1, "after": 1}, 2, id="equal gains"),
        # 2 and 4 outputs gain 10/3, 7 gain 3.9; 12 maps are no whole block.
        pytest.param({"width": 28, "maps": 6, "taps": 5, "before": 2, "after": 2}, 4, id="a whole block"),
    ],
)
def test_of_gains_that_differ_little_the_fewest_zeros_are_taken(one: dict[str, int], outputs: int) -> None:
    way = packing(Convolution(**{"channels": 1, "stride": 1, **one}), lanes=8, maps=16)
    assert way is not None
    assert way.outputs == outputs


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_a_packed_tflite_file_has_the_same_answers(name: str, float_files: Any, run: Any, tmp_path: Path) -> None:
    plain, packed_file = tmp_path / "plain.tflite", tmp_path / "packed.tflite"
    source, images, scheme = float_files(name, "tflite"), images_of(name), SCHEMES.get("int8").SCHEME
    assert quantize_tflite(source, plain, scheme=scheme, calibration=images) == 0
    assert quantize_tflite(source, packed_file, scheme=scheme, calibration=images, lanes=8) == 1 + (name == BOTH)
    before, after = shapes_of_kernels(plain), shapes_of_kernels(packed_file)
    assert [one[3] < other[3] for one, other in zip(before, after, strict=True)] == [True, name == BOTH]
    for reference in (True, False):
        one, other = (run(path, images, reference=reference) for path in (plain, packed_file))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", FIRST_LAYERS)
def test_a_packed_onnx_file_has_the_same_answers(name: str, float_files: Any, run: Any, tmp_path: Path) -> None:
    import onnx

    plain, packed_file, optimized = (tmp_path / f"{part}.onnx" for part in ("plain", "packed", "optimized"))
    source, images, scheme = float_files(name, "onnx"), images_of(name), SCHEMES.get("int8").SCHEME
    assert quantize_onnx(source, plain, scheme=scheme, calibration=images) == 0
    assert quantize_onnx(source, packed_file, scheme=scheme, calibration=images, lanes=8) == 1 + (name == BOTH)
    onnx.checker.check_model(onnx.load(packed_file))
    np.testing.assert_array_equal(run(plain, images), run(packed_file, images, optimized=optimized))
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    # Its own layout and ours cancel: what is left turns the image's channels round, and the last image for the Gemm.
    assert kinds.count("Transpose") <= 2
    assert "Conv" not in kinds


# Name -> the image's (height, width, channels), and a first convolution and what follows it.
POOLED = {
    "lenet": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 2}),
    "padding": ((28, 28, 1), {"filters": 6, "kernel_size": 5, "padding": "same"}, {"pool_size": 2}),
    "two rows of one": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": (2, 1)}),
    "three rows of four": ((28, 28, 1), {"filters": 3, "kernel_size": 5, "use_bias": False}, {"pool_size": (3, 4)}),
    "strides": ((29, 28, 1), {"filters": 4, "kernel_size": 4, "strides": (3, 1), "padding": "same"}, {"pool_size": 2}),
}
# Those whose places the packed rows do not hold, or do not hold alone.
NOT_POOLED = {
    "overlapping": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 3, "strides": 2}),
    "padded pool": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 2, "padding": "same", "strides": 1}),
    "an odd height": ((29, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 2}),
    "three columns of four": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": (2, 3)}),
    "wide taps": ((28, 28, 4), {"filters": 8, "kernel_size": 5}, {"pool_size": 2}),
    "mean": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 2, "mean": True}),
    "read twice": ((28, 28, 1), {"filters": 8, "kernel_size": 5}, {"pool_size": 2, "again": True}),
}


def pooled_files(case: tuple[Any, ...], folder: Path) -> tuple[Path, Path, NDArray[np.uint8]]:
    """The .onnx of integers, plain and packed, and images."""
    import keras
    from keras import layers

    from emb.export import onnx

    keras.utils.set_random_seed(0)
    shape, convolution, pool = case
    pool = dict(pool)
    kind = layers.AveragePooling2D if pool.pop("mean", False) else layers.MaxPooling2D
    again = pool.pop("again", False)
    pixels = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(pixels)
    first = layers.Conv2D(**convolution, activation="relu", bias_initializer="normal")(x)
    x = layers.Conv2D(8, 3, activation="relu")(kind(**pool)(first))
    x = layers.Flatten()(x)
    if again:
        x = layers.Concatenate()([x, layers.Flatten()(layers.Conv2D(2, 5, strides=4, name="other")(first))])
    onnx.export(keras.Model(pixels, layers.Dense(10)(x)), folder / "float.onnx")
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), dtype=np.uint8)
    plain, packed_file, scheme = folder / "plain.onnx", folder / "packed.onnx", SCHEMES.get("int8").SCHEME
    for path, lanes in ((plain, 0), (packed_file, 8)):
        quantize_onnx(folder / "float.onnx", path, scheme=scheme, calibration=images, lanes=lanes)
    return plain, packed_file, images


def pools_of(path: Path) -> list[list[int]]:
    import onnx

    attributes = [one.attribute for one in onnx.load(path).graph.node if one.op_type in ("MaxPool", "AveragePool")]
    return [list(one.ints) for some in attributes for one in some if one.name == "kernel_shape"]


@pytest.mark.parametrize("name", POOLED)
def test_the_rows_of_a_pool_become_channels(name: str, run: Any, tmp_path: Path) -> None:
    import onnx

    plain, packed_file, images = pooled_files(POOLED[name], tmp_path)
    size = pools_of(plain)[0]
    assert pools_of(packed_file) == [[1, size[0] * size[1]]]
    onnx.checker.check_model(onnx.load(packed_file))
    optimized = tmp_path / "optimized.onnx"
    answers = run(packed_file, images, optimized=optimized)
    assert len(np.unique(answers)) > 1
    np.testing.assert_array_equal(run(plain, images), answers)
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    assert kinds.count("Transpose") <= 1
    assert "NhwcMaxPool" in kinds


@pytest.mark.parametrize("name", NOT_POOLED)
def test_other_pools_stay_as_they_are(name: str, run: Any, tmp_path: Path) -> None:
    plain, packed_file, images = pooled_files(NOT_POOLED[name], tmp_path)
    assert packed_file.read_bytes() != plain.read_bytes()
    assert pools_of(packed_file) == pools_of(plain)
    np.testing.assert_array_equal(run(plain, images), run(packed_file, images))


def test_packed_convolutions_behind_each_other_are_regrouped_once(run: Any, tmp_path: Path) -> None:
    import onnx

    plain, _, images = pooled_files(POOLED["lenet"], tmp_path)
    model = onnx.load(plain)
    assert pack_onnx_pixels(model, lanes=8, maps=16) == 2
    onnx.save(model, tmp_path / "both.onnx")
    optimized = tmp_path / "optimized.onnx"
    np.testing.assert_array_equal(run(plain, images), run(tmp_path / "both.onnx", images, optimized=optimized))
    kinds = [node.op_type for node in onnx.load(optimized).graph.node]
    # The pool's output is what the second convolution reads.
    assert kinds[:5] == ["Reshape", "QLinearConv", "Reshape", "NhwcMaxPool", "QLinearConv"]


@pytest.mark.parametrize(("file_format", "quantize"), [("tflite", quantize_tflite), ("onnx", quantize_onnx)])
@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_few_maps_are_packed_with_the_same_answers(
    name: str, file_format: str, quantize: Any, float_files: Any, run: Any, tmp_path: Path
) -> None:
    source, images, scheme = float_files(name, file_format), images_of(name), SCHEMES.get("int8").SCHEME
    count, paths = {}, {}
    for maps in (0, 1, 16):
        paths[maps] = tmp_path / f"{maps}.{file_format}"
        count[maps] = quantize(source, paths[maps], scheme=scheme, calibration=images, lanes=8, maps=maps)
    # The second convolution has channels enough, and 8 maps.
    assert count == {0: 1, 1: 1, 16: 2}
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert run(paths[0], images).any()
    np.testing.assert_array_equal(run(paths[0], images), run(paths[16], images))


def test_the_border_of_uint8_stands_outside(float_files: Any, run: Any, tmp_path: Path) -> None:
    images, scheme = images_of("lenet"), SCHEMES.get("int8-uint8").SCHEME
    paths = [tmp_path / f"{lanes}.tflite" for lanes in (0, 8)]
    for path, lanes in zip(paths, (0, 8), strict=True):
        quantize_tflite(float_files("lenet", "tflite"), path, scheme=scheme, calibration=images, lanes=lanes)
    assert [one.kind for one in read(paths[1]).operations][:4] == ["QUANTIZE", "RESHAPE", "CONV_2D", "RESHAPE"]
    np.testing.assert_array_equal(run(paths[0], images), run(paths[1], images))


@pytest.mark.parametrize("scheme", ["int16x8", "int4w", "float16", "dynamic"])
def test_other_kernels_are_not_packed_for(scheme: str, float_files: Any, tmp_path: Path) -> None:
    wanted = SCHEMES.get(scheme).SCHEME
    calibration = images_of("lenet") if wanted.calibrated else None
    contents = []
    for lanes in (0, 8):
        path = tmp_path / f"{lanes}.tflite"
        source = float_files("lenet", "tflite")
        assert quantize_tflite(source, path, scheme=wanted, calibration=calibration, lanes=lanes) == 0
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_a_layer_in_float_is_not_packed(float_files: Any, tmp_path: Path) -> None:
    source, path = float_files("lenet", "tflite"), tmp_path / "model.tflite"
    graph = read(source)
    first = next(one for one in graph.operations if one.kind == "CONV_2D")
    kept = [graph.tensors[first.outputs[0]].name]
    scheme = SCHEMES.get("int8").SCHEME
    assert quantize_tflite(source, path, scheme=scheme, calibration=images_of("lenet"), kept=kept, lanes=8) == 0


@pytest.mark.parametrize("name", ["lenet", "resnet"])
def test_where_the_loss_is_does_not_depend_on_it(name: str, float_files: Any, tmp_path: Path) -> None:
    source, images, scheme = float_files(name, "tflite"), images_of(name), SCHEMES.get("int8").SCHEME
    layers = [operation.name for operation in read(source).operations]
    found = []
    for lanes in (0, 8):
        path = tmp_path / f"{lanes}.tflite"
        quantize_tflite(source, path, scheme=scheme, calibration=images, lanes=lanes, maps=16)
        found.append(layer_errors(source, path, images[:4], layers=layers))
    assert [(one.layer, one.kinds, one.own.sqnr_db) for one in found[0]] == [
        (one.layer, one.kinds, one.own.sqnr_db) for one in found[1]
    ]


@pytest.mark.parametrize("change", ["an open batch", "no bias", "a kernel that another one reads"])
def test_what_must_stay_as_it_is(change: str, float_files: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    quantize_tflite(
        float_files("lenet", "tflite"), path, scheme=SCHEMES.get("int8").SCHEME, calibration=images_of("lenet")
    )
    model = fb.load(path)
    subgraph = model.subgraphs[0]
    first = next(one for one in subgraph.operators if fb.operation_name(model, one) == "CONV_2D")
    if change == "an open batch":
        subgraph.tensors[first.inputs[0]].shapeSignature = np.array([-1, 28, 28, 1], np.int32)
    elif change == "no bias":
        first.inputs = np.array([*first.inputs[:2], -1], np.int32)
    else:
        subgraph.operators.append(first)
    assert pack_pixels(model, lanes=8, maps=1) == 0
