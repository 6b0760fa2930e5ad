"""A corrupt image among 10,000, through the command line: refused by name, or left out and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from emb.pipeline.engine import Engine
from emb.pipeline.plan import plan
from emb.pipeline.request import data_request, resolve

BUILD = ("build", "lenet", "--data", "pets", "--set", "input.shape=[28,28,1]", "--epochs", "1", "--format", "tflite")


@pytest.fixture
def emb(emb, tmp_path):
    """The same command line with an empty cache and folder for each test."""
    return type(emb)(tmp_path)


def pets(home: Path, *, count: int) -> Path:
    """`count` images of two classes, hard links of two files, and a text file called dog/bad.png among them."""
    for shade, label in ((60, "cat"), (200, "dog")):
        source = home / f"{label}.png"
        Image.new("L", (28, 28), shade).save(source)
        (home / "pets" / label).mkdir(parents=True)
        for number in range(count // 2):
            (home / "pets" / label / f"{number}.png").hardlink_to(source)
    (home / "pets" / "dog" / "bad.png").write_text("woof")
    return home / "pets"


@pytest.mark.long
@pytest.mark.slow
def test_it_is_refused_by_name_or_left_out_and_reported(emb):
    pets(emb.home, count=10_000)
    refused = emb.run(*BUILD, expect=2)
    message = " ".join(refused.stderr.split())
    assert "Traceback" not in message
    assert message.count("error: ") == 1
    assert "pets/dog/bad.png is no image" in message
    assert "--skip-bad" in message
    assert not list((emb.home / "builds").glob("[!.]*"))

    report = emb.json(*BUILD, "--skip-bad", "--output", "built")
    data = report["data"]
    assert data["train_images"] + data["test_images"] < 10_000  # and validation
    note = "1 of 10,001 images cannot be decoded, left out by --skip-bad: dog/bad.png"
    assert note in (emb.home / "built" / "report.md").read_text()
    assert json.loads((emb.home / "built" / "manifest.json").read_text())["recipe"]["data"]["skip_bad"] is True
    assert all(row["accuracy"] > 0.9 for row in report["rows"] if row["accuracy"] is not None)
    trained = emb.run("train", *BUILD[1:-2], "--skip-bad", "--output", "trained")
    assert note in " ".join(trained.stdout.split())
    # The build remembers that they are left out; a measurement of it does the same.
    measured = emb.json("bench", "built/lenet-int8.tflite", "--runtime", "litert", "--rounds", "1")
    assert measured["images"] == f"{data['test_images']:,} test images of folder; {note}"
    # Of other images it knows nothing, even if they lie in the same place.
    again = emb.run("bench", "built/lenet-int8.tflite", "--runtime", "litert", "--data", "pets", expect=2)
    assert "pets/dog/bad.png is no image" in " ".join(again.stderr.split())


@pytest.mark.parametrize("skip_bad", [False, True])
def test_it_decides_every_stage_that_sees_the_images(skip_bad):
    recipe = resolve("lenet", overrides={"data.skip_bad": skip_bad})
    digests = {"data_digest": "data", "model_digest": "", "machine_digest": "machine"}
    planned = plan(recipe, **digests, engine=Engine(), gradients=False)
    seeing = [stage for stage in planned.stages if "data" in stage.inputs]
    assert {"data", "train", "reference", "verify"} <= {stage.group for stage in seeing}
    assert {stage.parameters["skip_bad"] for stage in seeing} == {skip_bad}
    assert data_request(recipe, data_dir=None).skip_bad is skip_bad
