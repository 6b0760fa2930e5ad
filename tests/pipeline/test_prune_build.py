"""Pruned builds by the command line: what was asked for is what the int8 file holds, and what cannot be is refused."""

from __future__ import annotations

import json
import signal
import subprocess

import numpy as np
import pytest

from emb.graph import flatbuffer as fb
from emb.graph.files import read as read_graph

pytestmark = pytest.mark.slow

# The zoo's LeNet, long enough to have something to lose.
TRAIN = ("--epochs", "8", "--format", "tflite")
TUNING_EPOCHS = 15
HALVED = ("--prune", "channels:0.5", "--prune-epochs", str(TUNING_EPOCHS), "--distill")


def build(emb, prune: str, *more: str):
    return emb.json("build", "lenet", *TRAIN, "--prune", prune, *more)


def int8(report):
    """The rows of the int8 file on LiteRT, the default first."""
    return [row for row in report["rows"] if row["scheme"] == "int8" and row["runtime"] == "litert"]


def int8_kernels(path) -> list[np.ndarray]:
    """The weights of convolutions and dense layers, outputs first and inputs last."""
    model = fb.load(path)
    tensors = model.subgraphs[0].tensors
    return [
        np.asarray(model.buffers[tensor.buffer].data).view(np.int8).reshape(tensor.shape)
        for tensor in tensors
        if fb.is_constant(model, tensor) and fb.type_name(tensor) == "INT8" and len(tensor.shape) > 1
    ]


@pytest.fixture(scope="module")
def halved(emb):
    return emb.json("build", "lenet", *TRAIN, *HALVED)


def test_half_of_the_macs_go_and_the_accuracy_stays(emb, halved):
    pruning = halved["pruning"]
    assert 0.45 <= pruning["macs_after"] / pruning["macs_before"] <= 0.55
    assert pruning["tuned_accuracy"] >= pruning["unpruned_accuracy"] - 0.03
    assert pruning["tuned_accuracy"] > pruning["pruned_accuracy"]
    assert halved["errors"] == []
    row = int8(halved)[0]
    assert row["accuracy"] >= pruning["unpruned"]["accuracy"] - 0.03
    assert row["bytes"] < 0.6 * pruning["unpruned"]["bytes"]
    assert row["macs"] == pruning["macs_after"]
    assert row["parameters"] == pruning["parameters_after"]


def test_the_int8_graph_of_the_pruned_model_is_clean(emb, halved):
    folder = emb.home / "builds" / "lenet-channels-0.5-int8"
    assert str(folder).endswith(halved["directory"])
    graph = read_graph(folder / "lenet-int8.tflite")
    assert not any(tensor.is_float for tensor in graph.tensors)
    assert {operation.kind for operation in graph.operations}.isdisjoint({"GATHER", "SPLIT", "STRIDED_SLICE"})


def test_the_plan_is_beside_the_report(emb, halved):
    folder = emb.home / halved["directory"]
    plan = json.loads((folder / "prune.json").read_text())
    (channels,) = plan["plans"]
    assert channels["macs_after"] == halved["pruning"]["macs_after"]
    for group, layer in zip(channels["groups"], halved["pruning"]["layers"], strict=True):
        assert (group["name"], len(group["channels_kept"])) == (layer["name"], layer["after"])
    assert len(json.loads((folder / "history.json").read_text())["epochs"]) == TUNING_EPOCHS
    page = (folder / "report.md").read_text()
    assert "## Pruning" in page
    assert "the unpruned model as teacher" in page


@pytest.mark.long
def test_the_unpruned_model_is_the_one_of_the_build_without_pruning(emb, halved):
    told = emb.run("build", "lenet", *TRAIN).stderr
    assert "epoch" not in told
    row = int8(emb.json("build", "lenet", *TRAIN))[0]
    assert row["bytes"] == halved["pruning"]["unpruned"]["bytes"]
    assert row["gzip_bytes"] == halved["pruning"]["unpruned"]["gzip_bytes"]
    assert row["accuracy"] == halved["pruning"]["unpruned"]["accuracy"]


@pytest.mark.long
def test_as_many_zeros_as_asked_for_also_in_int8(emb):
    report = build(emb, "magnitude:0.8", "--prune-epochs", "4")
    pruning = report["pruning"]
    before, after = (sum(layer[key] for layer in pruning["layers"]) for key in ("before", "after"))
    assert (before, after) == (61_470, 61_470 - round(0.8 * 61_470))
    kernels = int8_kernels(emb.home / report["directory"] / "lenet-int8.tflite")
    assert sum(kernel.size for kernel in kernels) == 61_470
    assert sum(np.count_nonzero(kernel) for kernel in kernels) <= after
    row = int8(report)[0]
    assert row["bytes"] == pruning["unpruned"]["bytes"]
    assert row["gzip_bytes"] < 0.5 * pruning["unpruned"]["gzip_bytes"]
    told = emb.run("build", "lenet", *TRAIN, "--prune", "magnitude:0.8", "--prune-epochs", "4").stdout
    assert "it saves what gzip makes of the file, no more" in told


@pytest.mark.long
def test_two_of_four_also_in_int8(emb):
    report = build(emb, "magnitude:2:4", "--prune-epochs", "2", "--set", "train.ema_momentum=0.9")
    assert set(report["pruning"]["left_whole"]) == {"conv1", "conv2"}
    kernels = [
        kernel for kernel in int8_kernels(emb.home / report["directory"] / "lenet-int8.tflite") if kernel.ndim == 2
    ]
    assert len(kernels) == 3
    for kernel in kernels:
        assert np.count_nonzero(kernel.reshape(len(kernel), -1, 4), axis=2).max() <= 2
    assert int8(report)[0]["gzip_bytes"] < 0.85 * report["pruning"]["unpruned"]["gzip_bytes"]


@pytest.mark.long
def test_sixteen_integers_in_a_layer(emb):
    report = build(emb, "cluster:16", "--prune-epochs", "2")
    assert {layer["after"] <= 16 for layer in report["pruning"]["layers"]} == {True}
    for kernel in int8_kernels(emb.home / report["directory"] / "lenet-int8.tflite"):
        assert len(np.unique(kernel)) <= 16
    row = int8(report)[0]
    assert row["gzip_bytes"] < 0.7 * report["pruning"]["unpruned"]["gzip_bytes"]
    assert row["accuracy"] >= report["pruning"]["unpruned"]["accuracy"] - 0.03


def test_bytes_are_met_by_the_file_itself(emb):
    report = build(emb, "channels:bytes=30kB", "--prune-epochs", "1", "--prune-steps", "2", "--prune-criterion", "l1")
    assert int8(report)[0]["bytes"] <= 30_000
    plan = json.loads((emb.home / report["directory"] / "prune.json").read_text())
    assert len(plan["plans"]) == 2
    assert report["pruning"]["epochs"] == 2
    assert f"{int8(report)[0]['bytes']:,} bytes as int8 .tflite" in report["pruning"]["reached"]


@pytest.mark.long
def test_latency_is_met_beside_the_unpruned_model(emb):
    """Of 64 to 256 channels: kernels for 64 of them at once take fewer as long, pruned or not."""
    report = emb.json(
        *(
            "build",
            "resnet8-cifar10",
            "--no-train",
            "--format",
            "tflite",
            "--data",
            "digits",
            "--set",
            "input.shape=[16,16,3]",
            "--set",
            "model.arguments.width=4",
        ),
        *("--prune", "channels:latency=1.5x", "--prune-epochs", "0", "--prune-criterion", "l1"),
        *("--set", "verify.minimum_agreement=0"),
    )
    assert float(report["pruning"]["reached"].split("x as fast")[0]) >= 1.5
    assert report["pruning"]["macs_after"] < report["pruning"]["macs_before"]


def test_blocks_go_whole(emb):
    report = emb.json(
        *("build", "resnet20-cifar10", "--no-train", "--format", "tflite", "--data", "digits"),
        *("--set", "input.shape=[16,16,3]", "--set", "verify.minimum_agreement=0"),
        *("--prune", "blocks:0.3", "--prune-epochs", "0"),
    )
    pruning = report["pruning"]
    gone = [layer for layer in pruning["layers"] if not layer["after"]]
    assert sum(layer["before"] for layer in gone) == pruning["macs_before"] - pruning["macs_after"]
    assert 0.3 <= 1 - pruning["macs_after"] / pruning["macs_before"] < 0.46  # one block is 0.116 to 0.117
    assert set(pruning["left_whole"]) == {"stage2_block1_add", "stage3_block1_add"}
    graph = read_graph(emb.home / report["directory"] / "resnet20-cifar10-int8.tflite")
    kinds = [operation.kind for operation in graph.operations]
    assert kinds.count("CONV_2D") == 19 - 2 * len(gone)
    assert kinds.count("ADD") == 9 - len(gone)
    assert "RELU" not in kinds
    (plan,) = json.loads((emb.home / report["directory"] / "prune.json").read_text())["plans"]
    assert [block["name"] for block in plan["blocks"] if block["is_gone"]] == [layer["name"] for layer in gone]
    page = (emb.home / report["directory"] / "report.md").read_text()
    assert f"| {gone[0]['name']} | {gone[0]['before']:,} | 0 |" in page


@pytest.mark.long
def test_a_model_of_ones_own(emb, halved):
    emb.run("train", "lenet", "--epochs", "8")
    own = emb.json(
        *("build", "builds/lenet-train/model.keras", "--data", "digits", "--format", "tflite", "--output", "own"),
        *("--prune", "magnitude:0.5", "--prune-epochs", "1"),
    )
    assert own["pruning"]["unpruned_accuracy"] == halved["pruning"]["unpruned_accuracy"]
    assert sum(layer["after"] for layer in own["pruning"]["layers"]) == 61_470 - round(0.5 * 61_470)


@pytest.mark.long
@pytest.mark.parametrize("prune", [("magnitude:0.5",), ("channels:0.3", "--distill")])
def test_fine_tuning_on_jax(emb, prune):
    pytest.importorskip("jax")
    report = build(emb, *prune, "--prune-epochs", "1", "--backend", "jax", "--epochs", "1", "--output", "jax")
    assert report["errors"] == []
    assert report["pruning"]["epochs"] == 1


@pytest.mark.long
def test_an_interrupted_pruning_ends_with_the_same_bytes(emb, halved, tmp_path):
    fresh = type(emb)(tmp_path)
    command = ("build", "lenet", *TRAIN, *HALVED, "--json")
    process = subprocess.Popen(
        fresh.command(*command),
        cwd=fresh.home,
        env=fresh.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith(f"epoch 3/{TUNING_EPOCHS} "):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    done = fresh.run(*command)
    assert "epoch 1/" not in done.stderr
    wanted = {row["file"]: row["sha256"] for row in halved["rows"]}
    assert {row["file"]: row["sha256"] for row in json.loads(done.stdout)["rows"]} == wanted


def refused(emb, *arguments: str) -> str:
    before = set(emb.home.glob("builds/[!.]*"))
    done = emb.run(*arguments, expect=2)
    assert "Traceback" not in done.stderr
    assert set(emb.home.glob("builds/[!.]*")) == before
    return done.stderr[done.stderr.index("error: ") :]


def test_bytes_out_of_reach(emb, halved):
    assert refused(emb, "build", "lenet", *TRAIN, "--prune", "channels:bytes=1kB").startswith(
        "error: lenet cannot be pruned to 1000 bytes\n  why: the nearest that was reached is "
    )


def test_a_latency_out_of_reach(emb, halved):
    message = refused(emb, "build", "lenet", *TRAIN, "--prune", "channels:latency=500x")
    assert message.startswith(
        "error: lenet cannot be made 500x as fast by pruning channels\n  why: the nearest that was reached is "
    )
    assert message.endswith("  fix: choose a lower goal, or a smaller architecture\n")


def test_blocks_of_a_network_without_any(emb, halved):
    assert refused(emb, "build", "lenet", *TRAIN, "--prune", "blocks:0.3") == (
        "error: lenet has no residual branch that can go\n"
        "  why: none of its layers adds up two tensors\n"
        "  fix: prune its channels instead, or choose another architecture\n"
    )


def test_a_fraction_out_of_reach(emb, halved):
    assert "of the MACs of lenet cannot be removed" in refused(
        emb, "build", "lenet", *TRAIN, "--prune", "channels:0.9999"
    )


def test_a_fraction_of_nothing_is_refused_before_any_work(emb):
    assert refused(emb, "build", "lenet", "--prune", "channels:0") == (
        "error: recipe lenet.toml with the options given has a fault\n"
        "  why: prune.goal: '0' must lie between 0 and 1; 0 removes nothing\n"
        "  fix: correct them and try again\n"
    )


def test_a_tflite_file_cannot_be_pruned(emb, halved):
    path = f"{halved['directory']}/lenet-float32.tflite"
    assert refused(emb, "build", path, "--data", "digits", "--prune", "magnitude:0.5") == (
        f"error: {path} cannot be pruned\n"
        "  why: emb prunes Keras models, whose layers it can change and train; this is a .tflite file\n"
        "  fix: give the .keras or .h5 file, or leave --prune out\n"
    )


def test_distilling_without_pruning(emb):
    assert refused(emb, "build", "lenet", "--distill") == (
        "error: recipe lenet.toml with the options given has a fault\n"
        "  why: prune.distill: needs a method, e.g. channels\n"
        "  fix: correct them and try again\n"
    )


@pytest.mark.long
def test_emb_train_trains_what_is_pruned_later(emb, halved):
    (emb.home / "half.toml").write_text(
        '[model]\nbuilder = "lenet"\n[input]\nshape = [28, 28, 1]\n[train]\nepochs = 1\n'
        '[prune]\nmethod = "channels"\ngoal = 0.5\nepochs = 1\n'
    )
    report = emb.json("train", "half.toml")
    assert len(report["epochs"]) == 1
    built = emb.run("build", "half.toml", "--format", "tflite", "--json")
    assert not any(line.startswith("unpruned ") for line in built.stderr.splitlines())  # it was found in the store
    assert json.loads(built.stdout)["pruning"]["method"] == "channels"
