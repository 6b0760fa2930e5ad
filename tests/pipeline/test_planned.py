"""Every stage is found anew when the code behind it changes: the source it names is there, its own work included."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import emb
from emb.pipeline.engine import Engine
from emb.pipeline.plan import plan
from emb.pipeline.planned import surface_stage
from emb.pipeline.planned_pruning import COMPARISON
from emb.pipeline.recipes import load_target
from emb.pipeline.request import resolve
from emb.pipeline.stage import Stage
from emb.pipeline.targeting import Aim
from emb.spec.recipe import ModelSpec

ROOT = Path(emb.__file__).parent
DIGESTS = {"data_digest": "data", "model_digest": "model", "machine_digest": "machine"}


def stages_of(*, file: str = "", epochs: int = 3, target: str = "", prune: str = "none") -> dict[str, Stage]:
    """A stage of each group of a whole plan, and the surface. file: a model of the user's own."""
    overrides = {
        "quantize.schemes": ["int8"],
        "export.formats": ["tflite", "onnx"],
        "train.epochs": epochs,
        "prune": prune,
    }
    recipe = resolve("lenet", overrides=overrides)
    if file:
        recipe = replace(recipe, model=replace(recipe.model, builder="", arguments={}, file=file))
    aim = Aim(target=load_target(target), force=False) if target else None
    planned = plan(recipe, **DIGESTS, engine=Engine(), gradients=False, aim=aim)
    stages = [*planned.stages, surface_stage(recipe, data_digest="data", points=21)]
    return {stage.group if stage.name != COMPARISON else stage.name: stage for stage in stages}


TRAINED = stages_of()
AIMED = {stage.name: stage for stage in stages_of(target="corstone-300").values()}
OWN = {
    "own, trained on": stages_of(file="own.keras")["train"],
    "own, as it is": stages_of(file="own.keras", epochs=0)["train"],
}


PRUNED = {
    "channels": stages_of(prune="channels:0.5")["prune"],
    "channels to bytes": stages_of(prune="channels:bytes=30kB")["prune"],
    "magnitude": stages_of(prune="magnitude:0.5")["prune"],
    "unpruned": stages_of(prune="magnitude:0.5")["measure unpruned"],
}


@pytest.mark.parametrize("name", [*TRAINED, *OWN, *PRUNED, "forecast", "compile", "fit"])
def test_a_stage_names_the_source_of_its_work(name):
    stage = (TRAINED | OWN | PRUNED | AIMED)[name]
    absent = [package for package in stage.packages if not (ROOT / package).exists()]
    assert absent == []
    assert len(set(stage.packages)) == len(stage.packages)
    work = stage.work.func if isinstance(stage.work, partial) else stage.work
    own = Path(inspect.getsourcefile(work))
    assert any(own.is_relative_to(ROOT / package) for package in stage.packages)


def test_a_change_of_the_evaluation_does_not_train_anew():
    assert "pipeline/stages.py" not in TRAINED["train"].packages
    assert "pipeline/training_stages.py" in TRAINED["train"].packages


def test_a_build_for_a_target_is_checked_before_the_training_and_before_the_measuring():
    groups = list(stages_of(target="corstone-300"))
    assert groups.index("forecast") < groups.index("train") < groups.index("compile") < groups.index("verify")
    recipe = resolve("lenet", overrides={"train.epochs": 0})
    planned = plan(
        recipe, **DIGESTS, engine=Engine(), gradients=False, aim=Aim(target=load_target("rpi4"), force=False)
    )
    names = [stage.name for stage in planned.stages]
    assert "forecast" not in names
    assert names.index("fit") < min(number for number, name in enumerate(names) if name.startswith("verify"))


def _model_stage(weights: str) -> Stage:
    recipe = resolve("lenet", overrides={"model.weights": weights})
    return plan(recipe, **DIGESTS, engine=Engine(), gradients=False).stages[2]


def test_published_weights_and_the_same_file_by_its_name_are_two_trainings():
    published, named = (_model_stage(weights) for weights in ("imagenet", "weights.h5"))
    assert published.name == named.name == "model"
    assert published.step({}).key != named.step({}).key
    assert {"export", "graph", "zoo"} <= set(named.packages)


def test_a_model_of_ones_own_takes_no_weights():
    with pytest.raises(ValueError, match="a file has its own"):
        ModelSpec(file="own.keras", weights="weights.keras")


def test_a_pruned_build_trains_nothing_that_the_build_without_pruning_has_trained():
    plain, pruned = stages_of(), stages_of(prune="channels:0.5")
    assert (plain["train"].name, pruned["train"].name, pruned["prune"].name) == ("model", "unpruned", "model")
    assert plain["train"].step({}).key == pruned["train"].step({}).key
    assert "machine" not in pruned["prune"].inputs
    assert "machine" in stages_of(prune="channels:latency=2x")["prune"].inputs


def test_without_pruning_no_key_knows_of_it():
    for stage in stages_of().values():
        assert "prune" not in repr(stage.parameters)
        assert "prune" not in stage.packages
