"""`emb bundle`: what is in it, and run.py from it, on the real runtimes and without emb."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from emb.deploy.bundle import entries_of, manifest_text, open_bundle
from emb.errors import ModelError
from emb.spec.bundle import BundleManifest
from emb.spec.decode import decode

pytestmark = pytest.mark.slow

TFLITE_WAYS = [("litert", "default"), ("litert", "reference"), ("tflite-runtime", "reference")]


@pytest.fixture(scope="module")
def bundles(emb: Any, built: Any) -> dict[str, Any]:
    """What `emb bundle --json` said of the .tflite and of the .onnx file, and of a second try of the first."""
    call = ("bundle", "built", "--target", "linux-x86-64")
    return {
        "tflite": emb.json(*call),
        "again": emb.json(*call, "--output", "elsewhere/b"),
        "onnx": emb.json(*call, "--file", "lenet-int8.onnx", "--output", "bundles/onnx"),
    }


@pytest.fixture
def unpacked(emb: Any, bundles: Any, tmp_path: Path) -> Path:
    """The .tflite bundle as it comes out of its archive."""
    open_bundle(emb.home / bundles["tflite"]["archive"]).unpack(tmp_path / "bundle")
    return tmp_path / "bundle"


def run_py(
    directory: Path, *arguments: str, stdin: bytes = b"", expect: int = 0, isolated: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """run.py of a bundle; without emb, whatever PYTHONPATH says."""
    call = [sys.executable, *(["-I"] if isolated else []), str(directory / "run.py"), *arguments]
    done = subprocess.run(call, input=stdin, capture_output=True, check=False, cwd=directory.parent)
    assert done.returncode == expect, done.stdout.decode() + done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done


def told(directory: Path, *arguments: str, **options: Any) -> Any:
    return json.loads(run_py(directory, *arguments, "--json", **options).stdout)


def last_error(done: subprocess.CompletedProcess[bytes]) -> str:
    """The one line of an error, after what a runtime may have printed."""
    return done.stderr.decode().splitlines()[-1]


def test_what_is_in_it(emb: Any, bundles: Any) -> None:
    made = bundles["tflite"]
    directory = emb.home / "bundles" / "built-linux-x86-64"
    assert made["directory"] == "bundles/built-linux-x86-64"
    assert made["archive"] == "bundles/built-linux-x86-64.tar.gz"
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    assert names == sorted([*made["bundle"]["files"], "bundle.json"])
    assert [(one["runtime"], one["mode"]) for one in made["bundle"]["golden"]] == TFLITE_WAYS
    assert (made["bundle"]["runtime"], made["bundle"]["mode"]) == ("litert", "default")
    assert made["bundle"]["model"] == "lenet-int8.tflite"
    assert made["bundle"]["requires"]["architecture"] == "x86_64"
    contract = json.loads((directory / "contract.json").read_text())
    assert [model["file"] for model in contract["models"]] == ["lenet-int8.tflite"]
    assert contract["models"][0]["sha256"] == made["bundle"]["files"]["lenet-int8.tflite"]["sha256"]
    for name in ("lenet-int8.tflite", "labels.txt", "golden/images.npy"):
        assert (directory / name).read_bytes() == (emb.home / "built" / name).read_bytes()
    assert open_bundle(directory).digest == open_bundle(emb.home / made["archive"]).digest == made["digest"]
    assert [(one["runtime"], one["mode"]) for one in bundles["onnx"]["bundle"]["golden"]] == [
        ("onnxruntime", "default")
    ]


def test_what_is_said(emb: Any, bundles: Any) -> None:
    made = bundles["tflite"]
    place = "bundles/built-linux-x86-64"
    assert emb.run("bundle", "built", "--target", "linux-x86-64").stdout.splitlines() == [
        place,
        f"{place}.tar.gz  ({made['archive_bytes']:,} bytes)",
        f"digest {made['digest']}",
        "lenet-int8.tflite on litert (default); golden outputs of litert (default), litert (reference), "
        "tflite-runtime (reference)",
        f"needs x86_64, Python 3.11, 3.12, 3.13, glibc 2.27, {made['bundle']['requires']['free_bytes']:,} bytes",
    ]
    page = (emb.home / place / "README.md").read_text()
    assert "# built for Any x86-64 machine with Linux" in page
    assert ".venv/bin/pip install --require-hashes -r requirements.txt" in page
    assert f"| file | `lenet-int8.tflite`, {made['bundle']['files']['lenet-int8.tflite']['bytes']:,} bytes, " in page
    assert "| input | 1 x 28 x 28 x 1 int8, NHWC, grey |" in page


def test_the_same_build_gives_the_same_bytes(emb: Any, bundles: Any) -> None:
    one, other = bundles["tflite"], bundles["again"]
    assert (emb.home / one["archive"]).read_bytes() == (emb.home / other["archive"]).read_bytes()
    assert one["digest"] == other["digest"]
    assert one["bundle"] == other["bundle"]


def test_nothing_in_it_tells_where_it_was_made(emb: Any, bundles: Any) -> None:
    for path in (emb.home / bundles["tflite"]["directory"]).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert str(emb.home).encode() not in content
            assert platform.node().encode() not in content


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_it_proves_itself(emb: Any, bundles: Any, kind: str) -> None:
    directory = emb.home / bundles[kind]["directory"]
    document = told(directory, "self-test", "--digest", bundles[kind]["digest"])
    assert document["passed"]
    assert document["bundle"] == bundles[kind]["digest"]
    assert [(one["runtime"], one["mode"]) for one in document["results"]] == [
        (one["runtime"], one["mode"]) for one in bundles[kind]["bundle"]["golden"]
    ]
    assert all(one["equal"] == one["outputs"] == 160 for one in document["results"])
    words = run_py(directory, "self-test").stdout.decode().splitlines()
    assert words[0] == f"files: all {len(bundles[kind]['bundle']['files'])} as they were made"
    assert words[-1] == "passed"
    assert all(line.endswith("160 of 160 outputs equal, over 16 images") for line in words[1:-1])


def test_it_works_through_a_link_and_with_pythonpath(unpacked: Path) -> None:
    (unpacked.parent / "current").symlink_to(unpacked)
    run_py(unpacked.parent / "current", "self-test", isolated=False)


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_raw_outputs_are_those_of_the_build(emb: Any, bundles: Any, kind: str) -> None:
    directory = emb.home / bundles[kind]["directory"]
    images = np.load(directory / "golden" / "images.npy")
    for one in bundles[kind]["bundle"]["golden"]:
        way = ("--runtime", one["runtime"], "--mode", one["mode"])
        done = run_py(directory, "predict", *way, stdin=images.tobytes())
        file = bundles[kind]["bundle"]["model"]
        golden = np.load(emb.home / "built" / "golden" / f"{file}.{one['runtime']}.{one['mode']}.npy")
        assert done.stdout == golden.tobytes()
    assert run_py(directory, "predict").stdout == b""


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_images_get_the_classes_that_emb_gives(emb: Any, bundles: Any, tmp_path: Path, kind: str) -> None:
    directory = emb.home / bundles[kind]["directory"]
    image = np.load(directory / "golden" / "images.npy")[3]
    large = np.kron(image[..., 0], np.ones((11, 17), np.uint8))
    Image.fromarray(np.stack([large, large // 2, large], axis=2)).save(tmp_path / "large.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "small.png")
    names = [str(tmp_path / name) for name in ("small.png", "large.png")]
    answers = told(directory, "classify", *names, "--top", "4")
    expected = emb.json("run", f"built/{bundles[kind]['bundle']['model']}", *names, "--top", "4")
    for answer, other in zip(answers, expected, strict=True):
        assert [one["label"] for one in answer["classes"]] == [one["label"] for one in other["classes"]]
        assert [one["probability"] for one in answer["classes"]] == pytest.approx(
            [one["probability"] for one in other["classes"]], abs=1e-6
        )
    assert answers[0]["classes"][0]["label"] == "3"
    frame = told(directory, "classify", "-", "--size", "28x28", "--top", "4", stdin=image.tobytes())
    assert frame == [{"image": "-", "classes": answers[0]["classes"]}]
    colour = np.repeat(image, 3, axis=2)
    assert told(directory, "classify", "-", "--size", "28x28", "--top", "4", stdin=colour.tobytes()) == frame
    words = run_py(directory, "classify", names[0]).stdout.decode()
    assert words.startswith(f"{names[0]}: 3 ")


@pytest.mark.long
def test_colours_sides_of_two_lengths_and_channels_first(emb: Any, tmp_path: Path) -> None:
    """A model that was not trained will do: its answers are compared, not believed."""
    emb.json(
        "build", "lenet", "--set", "input.shape=[28, 36, 3]", "--no-train", "--quantize", "int8", "--output", "rgb"
    )
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (77, 50, 3), dtype=np.uint8)).save(tmp_path / "tall.png")
    Image.fromarray(rng.integers(0, 256, (41, 90), dtype=np.uint8)).save(tmp_path / "grey.png")
    names = [str(tmp_path / name) for name in ("tall.png", "grey.png")]
    for file, layout in [("lenet-int8.tflite", "NHWC"), ("lenet-int8.onnx", "NCHW")]:
        place = tmp_path / file
        emb.json("bundle", "rgb", "--target", "host", "--file", file, "--output", str(place))
        assert json.loads((place / "contract.json").read_text())["models"][0]["input"]["layout"] == layout
        assert told(place, "self-test")["passed"]
        expected = emb.json("run", f"rgb/{file}", *names, "--top", "10")
        for answer, other in zip(told(place, "classify", *names, "--top", "10"), expected, strict=True):
            assert [one["label"] for one in answer["classes"]] == [one["label"] for one in other["classes"]]
            assert [one["probability"] for one in answer["classes"]] == pytest.approx(
                [one["probability"] for one in other["classes"]], abs=1e-6
            )


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_measuring(emb: Any, bundles: Any, kind: str) -> None:
    directory = emb.home / bundles[kind]["directory"]
    measured = told(directory, "bench", "--seconds", "1", "--threads", "2")
    assert (measured["runtime"], measured["mode"], measured["threads"]) == (
        bundles[kind]["bundle"]["runtime"],
        "default",
        2,
    )
    assert measured["bundle"] == bundles[kind]["digest"]
    starts, latencies = np.array(measured["start_ns"]), np.array(measured["latency_ns"])
    assert len(starts) == len(latencies) <= 200_000
    assert np.all(latencies > 0)
    assert np.all(starts[1:] >= starts[:-1] + latencies[:-1])
    # No run begins once the time is over; the last one's image may still be on its way when it is.
    assert starts[-2] + latencies[-2] < 1e9
    assert measured["peak_memory_bytes"] > 10_000_000
    assert measured["machine"]["machine"] == platform.machine()
    assert set(measured["before"]) == set(measured["after"])
    assert measured["course"][0]["at_ns"] == starts[0]
    assert "latency: median" in run_py(directory, "bench", "--seconds", "0.2").stdout.decode()


def test_what_a_machine_has(unpacked: Path) -> None:
    found = told(unpacked, "info")
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert set(found["runtimes"]) == {"litert", "tflite-runtime", "onnxruntime"}
    assert found["glibc"] == platform.libc_ver()[1]


@pytest.mark.parametrize("name", ["lenet-int8.tflite", "contract.json", "golden/litert.default.npy", "labels.txt"])
def test_a_file_that_was_tampered_with(unpacked: Path, name: str) -> None:
    content = bytearray((unpacked / name).read_bytes())
    content[-3] ^= 1
    (unpacked / name).write_bytes(content)
    assert run_py(unpacked, "self-test", expect=1).stdout.decode() == f"fault: {name} has been changed\nFAILED\n"
    with pytest.raises(ModelError, match="is no bundle to trust"):
        open_bundle(unpacked)


def test_a_listing_that_was_tampered_with_as_well(unpacked: Path, bundles: Any) -> None:
    """Golden outputs and their hash: the runtime gives other answers. All of it: the digest is another."""
    golden = unpacked / "golden" / "litert.default.npy"
    outputs = np.load(golden)
    outputs[5, 5] ^= 1
    np.save(golden, outputs)
    manifest = decode(BundleManifest, json.loads((unpacked / "bundle.json").read_text()), source="bundle.json")
    entries = {name: entry for name, entry in entries_of(unpacked).items() if name != "bundle.json"}
    fields = {name: getattr(manifest, name) for name in manifest.__slots__} | {"files": entries}
    (unpacked / "bundle.json").write_bytes(manifest_text(BundleManifest(**fields)))
    document = told(unpacked, "self-test", expect=1)
    assert document["faults"] == []
    assert document["results"][0]["error"] == "only 159 of 160 outputs are equal"
    assert [one["error"] for one in document["results"][1:]] == [None, None]
    with_digest = told(unpacked, "self-test", "--digest", bundles["tflite"]["digest"], expect=1)
    assert with_digest["results"] == []
    assert with_digest["faults"] == [
        f"bundle.json has the sha256 {document['bundle']}, not {bundles['tflite']['digest']}"
    ]


def test_what_does_not_belong_there(unpacked: Path) -> None:
    for name in (".venv", "__pycache__", "venv"):
        (unpacked / name).mkdir()
        (unpacked / name / "x").write_text("x")
    run_py(unpacked, "self-test")
    (unpacked / "golden" / "more.npy").write_text("x")
    (unpacked / "onnx").symlink_to("/tmp")
    faults = told(unpacked, "self-test", expect=1)["faults"]
    assert faults == ["onnx does not belong to the bundle", "golden/more.npy does not belong to the bundle"]


def test_what_lies_beside_run_py_is_not_imported(unpacked: Path) -> None:
    for name in ("json", "argparse", "numpy", "ai_edge_litert"):
        (unpacked / f"{name}.py").write_text("print('evil')")
    done = run_py(unpacked, "self-test", expect=1, isolated=False)
    assert b"evil" not in done.stdout + done.stderr
    assert done.stdout.decode().splitlines()[0] == "fault: ai_edge_litert.py does not belong to the bundle"


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": []},
        {"files": {"../secret": {"bytes": 1, "sha256": "00"}}},
        {"model": "other.tflite"},
        {"golden": [{"runtime": "os", "mode": "default", "file": "labels.txt"}]},
        {"golden": [{}]},
        {"runtime": None},
    ],
)
def test_a_listing_that_is_none(unpacked: Path, change: dict[str, Any]) -> None:
    table = json.loads((unpacked / "bundle.json").read_text())
    (unpacked / "bundle.json").write_text(json.dumps({**table, **change}))
    for command in ("self-test", "predict"):
        done = run_py(unpacked, command, expect=1)
        assert last_error(done).startswith("error: bundle.json is damaged: ")


def test_a_contract_that_is_none(unpacked: Path) -> None:
    for content in ("{}", '{"models": [{}, {}]}', '{"models": 3}', "[]", "{"):
        (unpacked / "contract.json").write_text(content)
        assert "contract.json" in last_error(run_py(unpacked, "predict", expect=1))


def test_links_and_missing_files(unpacked: Path) -> None:
    (unpacked / "labels.txt").rename(unpacked.parent / "labels.txt")
    (unpacked / "labels.txt").symlink_to(unpacked.parent / "labels.txt")
    (unpacked / "golden" / "images.npy").unlink()
    assert told(unpacked, "self-test", expect=1)["faults"] == [
        "golden/images.npy cannot be read: No such file or directory",
        "labels.txt is no regular file",
    ]


def test_a_damaged_model_is_an_error_and_no_traceback(unpacked: Path) -> None:
    (unpacked / "lenet-int8.tflite").write_bytes(b"TFL3" * 100)
    done = run_py(unpacked, "predict", expect=1)
    assert last_error(done).startswith("error: litert refuses lenet-int8.tflite: ")


def test_a_python_without_the_runtime(unpacked: Path, tmp_path: Path) -> None:
    """This one with numpy alone."""
    (tmp_path / "site").mkdir()
    for found in Path(np.__file__).parent.parent.glob("numpy*"):
        (tmp_path / "site" / found.name).symlink_to(found)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    for arguments, code, line in [
        (("self-test",), 1, b"litert (default): FAILED: litert is not installed, and the bundle runs on it"),
        (("predict",), 2, b"error: litert is not installed for this Python; see README.md"),
        (("predict", "--runtime", "onnxruntime"), 2, b"error: onnxruntime (reference) does not run lenet-int8.tflite"),
    ]:
        call = [sys.executable, "-S", str(unpacked / "run.py"), *arguments]
        done = subprocess.run(call, capture_output=True, check=False, env=environment, stdin=subprocess.DEVNULL)
        assert (done.returncode, b"Traceback" in done.stderr) == (code, False)
        assert line.split(b" (ref")[0] in done.stdout + done.stderr
    del environment["PYTHONPATH"]
    call = [sys.executable, "-S", "-I", str(unpacked / "run.py")]
    done = subprocess.run([*call, "classify", "x"], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (
        2,
        "error: numpy is not installed for this Python; see README.md: pip install -r requirements.txt\n",
    )
    done = subprocess.run([*call, "info", "--json"], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["numpy"] is None


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (("clasify",), b"", "argument COMMAND: invalid choice: 'clasify'"),
        (("classify",), b"", "the following arguments are required: IMAGE|-; see run.py classify --help"),
        (("classify", "none.png"), b"", "cannot read none.png: No such file or directory"),
        (("classify", "-"), b"", 'a frame on stdin needs its size: --size WIDTHxHEIGHT, for example "--size 640x480"'),
        (("classify", "-", "--size", "2x2"), b"123", "a frame of 2x2 has 4 bytes in grey and 12 in RGB"),
        (("classify", "-", "-", "--size", "2x2"), b"123", '"-" may be given once: it reads all of stdin'),
        (("classify", "-", "--size", "0x0"), b"", "the frame has 0 x 0 pixels; at most 67,108,864 are read"),
        (("predict",), bytes(100), "the last frame has 100 bytes; this model takes frames of 784"),
        (("predict", "--runtime", "tflite"), b"", "unknown runtime 'tflite'; known: litert, tflite-runtime, "),
        (("predict", "--runtime", "onnxruntime"), b"", "onnxruntime (default) does not run lenet-int8.tflite"),
        (("bench", "--threads", "0"), b"", "argument --threads: must be 1 or more, not 0"),
        (("classify", "x.png", "--top", "0"), b"", "argument --top: must be 1 or more, not 0"),
        (("bench", "--seconds", "-1"), b"", "argument --seconds: must be above 0, not -1"),
    ],
)  # fmt: skip
def test_what_the_user_got_wrong(unpacked: Path, arguments: tuple[str, ...], stdin: bytes, message: str) -> None:
    done = run_py(unpacked, *arguments, stdin=stdin, expect=2)
    assert last_error(done).startswith(f"error: {message}")
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("built", "--target", "rp2040"),
            "emb bundle makes no bundle for rp2040 yet\n"
            "  why: it is a microcontroller: a model is compiled into its firmware, and no Python runs there\n"
            "  fix: take the int8 .tflite of the build for TensorFlow Lite Micro; emb check says whether it fits\n",
        ),
        (
            ("nothing", "--target", "rpi4"),
            "nothing is no build\n  why: it holds no contract.json\n  fix: give a directory that emb build has made\n",
        ),
        (
            ("built", "--target", "rpi4", "--file", "lenet-int9.tflite"),
            "built has no model 'lenet-int9.tflite'\n  fix: did you mean 'lenet-int8.tflite'? known: ",
        ),
        (
            ("built", "--target", "rpi4", "--file", "lenet-float32.tflite"),
            "lenet-float32.tflite cannot be bundled for rpi4\n"
            "  why: rpi4 runs int8 files of the formats onnx, tflite; there is lenet-float32.tflite (float32)\n"
            "  fix: build one: emb build RECIPE --quantize int8\n",
        ),
        (
            ("built", "--target", "coral-usb-pc", "--file", "lenet-int8.onnx"),
            "lenet-int8.onnx cannot be bundled for coral-usb-pc\n"
            "  why: coral-usb-pc runs int8 files of the formats tflite; there is lenet-int8.onnx (int8)\n"
            "  fix: build one: emb build RECIPE --quantize int8\n",
        ),
        (
            ("built", "--target", "rpi4", "--python", "3.10"),
            "rpi4 has no wheels for Python '3.10'\n  fix: did you mean '3.13'? known: 3.11, 3.12, 3.13\n",
        ),
        (
            ("built", "--target", "host", "--vendor"),
            "there are no wheels to vendor for host\n  why: its architecture is any\n"
            "  fix: leave --vendor out, or take a target with architecture aarch64 or x86_64\n",
        ),
        (
            ("built", "--target", "rpi4", "--output", "built"),
            "built holds something else than a bundle\n"
            "  why: emb replaces the whole directory and would delete it\n"
            "  fix: choose another place with --output, or empty it yourself\n",
        ),
    ],
)
def test_what_cannot_be_bundled(emb: Any, built: Any, arguments: tuple[str, ...], message: str) -> None:
    before = sorted(emb.home.glob("bundles/*"))
    done = emb.run("bundle", *arguments, expect=2)
    assert done.stderr.startswith(f"error: {message}")
    assert done.stdout == ""
    assert [path for path in sorted(emb.home.glob("bundles/*")) if path not in before] == []


@pytest.fixture
def sum_of_sums(tmp_path: Path) -> Path:
    """Untrained: both terms of its last sum have scales that other sums have decided."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    x = pixels = keras.Input((16, 16, 1))
    x = layers.Rescaling(1 / 255)(x)
    pairs = [layers.Add()([layers.Conv2D(4, 3)(x), layers.Conv2D(4, 3)(x)]) for _ in range(2)]
    x = layers.GlobalAveragePooling2D()(layers.Add()(pairs))
    path = tmp_path / "sums.keras"
    keras.Model(pixels, layers.Dense(10, activation="softmax")(x)).save(path)
    return path


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it bundles for another architecture, arm64")
def test_sums_that_another_processor_may_round_otherwise(emb: Any, sum_of_sums: Path) -> None:
    emb.run("build", str(sum_of_sums), "--data", "digits", "--output", "summed")
    onnx = ("bundle", "summed", "--file", "sums-int8.onnx")
    done = emb.run(*onnx, "--target", "rpi4", expect=2)
    assert done.stderr == (
        "error: the answers of sums-int8.onnx are not the same bits on rpi4\n"
        "  why: onnxruntime may round a sum or product of two tensors otherwise on aarch64 than on x86_64, and this "
        "model has one whose scales do not exclude it\n"
        "  fix: bundle the .tflite of the same build\n"
    )
    emb.run(*onnx, "--target", "linux-x86-64")
    emb.run("bundle", "summed", "--target", "rpi4")


@pytest.mark.long
def test_sums_of_residual_blocks_are_the_same_everywhere(emb: Any) -> None:
    emb.run(
        "build", "resnet8-cifar10", "--no-train", "--data", "digits", "--set", "model.arguments.width=0.25",
        "--set", "input.shape=[16, 16, 3]", "--output", "residual",
    )  # fmt: skip
    emb.run("bundle", "residual", "--file", "resnet8-cifar10-int8.onnx", "--target", "rpi4")


def test_a_build_that_was_tampered_with(emb: Any, built: Any, tmp_path: Path) -> None:
    for name in ("lenet-int8.tflite", "golden/images.npy", "labels.txt", "contract.json"):
        copy = tmp_path / Path(name).name
        shutil.copytree(emb.home / "built", copy)
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        done = emb.run("bundle", str(copy), "--target", "rpi4", "--output", str(tmp_path / "out"), expect=2)
        assert done.stderr == (
            f"error: {copy / name} is not what was built\n"
            "  why: its sha256 differs from the one in the build's manifest\n"
            "  fix: build the model again\n"
        )
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "out.tar.gz").exists()


def test_a_model_that_does_not_fit(emb: Any, built: Any, tmp_path: Path) -> None:
    board = tmp_path / "board.toml"
    board.write_text(
        'summary = "Mine"\nprocessor = "any"\nruntimes = ["litert"]\nram_bytes = 1_000\n'
        'architecture = "aarch64"\npython = ["3.11"]\nsource = "a test"\n'
    )
    done = emb.run("bundle", "built", "--target", str(board), expect=2)
    needed = 6744 + (emb.home / "built" / "lenet-int8.tflite").stat().st_size
    assert done.stderr == (
        f"error: lenet-int8.tflite needs {needed:,} bytes of RAM at least; board has 1,000\n"
        f"  why: 6,744 bytes of activations, most of them around pool1_1/MaxPool2d, and "
        f"{needed - 6744:,} of the file\n"
        "  fix: take a smaller input or width, another scheme, or a target with more of it\n"
    )


def test_a_coral_gets_what_there_is(emb: Any, built: Any, tmp_path: Path) -> None:
    call = ("bundle", "built", "--target", "coral-usb-pc", "--output", str(tmp_path / "plain"))
    made = emb.json(*call)
    assert made["notes"] == [
        "the build holds no file compiled for the edge-tpu: the bundle delivers lenet-int8.tflite, which is the input "
        "of its compiler and runs on the processor alone"
    ]
    assert "Until it is compiled" in (tmp_path / "plain" / "README.md").read_text()
    copy = tmp_path / "compiled"
    shutil.copytree(emb.home / "built", copy)
    shutil.copyfile(copy / "lenet-int8.tflite", copy / "lenet-int8_edgetpu.tflite")
    made = emb.json("bundle", str(copy), "--target", "coral-usb-pc", "--output", str(tmp_path / "both"))
    assert made["bundle"]["compiled"] == "lenet-int8_edgetpu.tflite"
    assert made["bundle"]["model"] == "lenet-int8.tflite"
    assert made["notes"] == ["lenet-int8_edgetpu.tflite is in it; run.py runs lenet-int8.tflite on the processor"]
    run_py(tmp_path / "both", "self-test")


def test_wheels_that_cannot_be_had(emb: Any, built: Any, tmp_path: Path) -> None:
    place = str(tmp_path / "out" / "b")
    call = ("bundle", "built", "--target", "rpi4", "--vendor", "--output", place)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = emb.run(*call, expect=2, **offline)
    assert done.stderr.startswith("error: cannot download the wheels for rpi4\n  why: ERROR: Could not find a version")
    assert done.stderr.endswith(
        "  fix: check the network and pip's configuration (pip config list), or leave --vendor out\n"
    )
    # A wheel of the right name and other bytes.
    (tmp_path / "ai_edge_litert-2.3.0-cp311-cp311-manylinux_2_27_aarch64.whl").write_bytes(b"PK\5\6" + bytes(18))
    done = emb.run(*call, expect=2, **offline)
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir() if not path.name.endswith(".lock")] == []


def _index_is_there(folder: Path) -> bool:
    """Whether pip finds a package by itself, so that a fault of the call that is tested is none of the network's."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    call = [*pip, "--dest", str(folder / "probe"), "packaging"]
    return subprocess.run(call, capture_output=True, check=False).returncode == 0


def test_wheels_for_a_board_without_a_network(emb: Any, built: Any, tmp_path: Path) -> None:
    call = ["bundle", "built", "--target", "rpi4", "--vendor", "--output", str(tmp_path / "b"), "--json"]
    done = subprocess.run(
        emb.command(*call), capture_output=True, text=True, check=False, cwd=emb.home, env=emb.environment
    )
    if done.returncode and not _index_is_there(tmp_path):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    wheels = [name for name in made["bundle"]["files"] if name.startswith("wheels/")]
    assert any("ai_edge_litert" in name and name.endswith("aarch64.whl") for name in wheels)
    assert made["bundle"]["requires"]["python"] == ["3.11"]
    assert "--no-index --find-links wheels --require-hashes" in (tmp_path / "b" / "README.md").read_text()
    opened = open_bundle(tmp_path / "b.tar.gz")
    assert opened.digest == made["digest"]
