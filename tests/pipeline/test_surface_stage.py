"""A training with its loss surface: the files, the report, and that the surface is a stage of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest

from emb.pipeline.training import train

pytestmark = pytest.mark.slow  # a training, small as it is

LENET = {"recipe": "lenet", "overrides": {"train.epochs": 2}}


class Heard:
    """A listener that keeps the stages that were worked on."""

    def __init__(self) -> None:
        self.worked: list[str] = []

    def stage_begins(self, name: str) -> None: ...
    def training(self, progress: object) -> None: ...
    def downloading(self, file: str, done_bytes: int, total_bytes: int) -> None: ...
    def failed(self, message: str) -> None: ...

    def stage_ends(self, name: str, *, cached: bool, seconds: float) -> None:
        if not cached:
            self.worked.append(name)


def test_the_surface_is_drawn_after_the_training_and_kept(tmp_path):
    plain = train(**LENET, output_directory=tmp_path / "plain")
    assert plain.surface is None
    assert not list((tmp_path / "plain").glob("surface.*"))

    heard = Heard()
    report = train(**LENET, output_directory=tmp_path / "drawn", loss_surface=True, surface_points=3, listener=heard)
    assert heard.worked == ["surface"]
    assert report.cached
    with np.load(tmp_path / "drawn" / "surface.npz") as file:
        steps, loss, images = file["steps"], file["loss"], int(file["images"])
    np.testing.assert_array_equal(steps, [-1, 0, 1])
    assert loss.shape == (3, 3)
    told = report.to_json()["surface"]
    assert told == {
        "points": 3,
        "images": images,
        "loss_of_model": loss[1, 1],
        "lowest_loss": loss.min(),
        "highest_loss": loss.max(),
    }
    # Two epochs have taught it something, and weights as long again in another direction have not.
    assert loss[1, 1] < np.log(10) / 2
    assert loss.max() > loss[1, 1]
    assert {"surface.svg", "surface.png"} <= set(
        json.loads((tmp_path / "drawn" / "manifest.json").read_text())["files"]
    )

    heard = Heard()
    again = train(**LENET, output_directory=tmp_path / "again", loss_surface=True, surface_points=3, listener=heard)
    assert heard.worked == []
    assert again.surface == report.surface
