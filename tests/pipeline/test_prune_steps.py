"""Steps of pruning: towards a latency on a machine whose times say nothing, and what several have done together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emb.pipeline import prune_stages, prune_steps
from emb.prune import channels
from emb.spec.contract import Pixels


def test_noise_does_not_make_the_unpruned_model_faster_than_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    image = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Conv2D(16, 3, name="conv")(image))
    model = keras.Model(image, keras.layers.Dense(4, activation="softmax")(x))
    prune = SimpleNamespace(method="channels", scope="global")
    work: Any = SimpleNamespace(context=SimpleNamespace(recipe=SimpleNamespace(prune=prune, channel_multiple=1)))
    monkeypatch.setattr(prune_steps, "opened", lambda path, context: model)
    monkeypatch.setattr(prune_steps, "_convert", lambda *arguments: Pixels())
    # Whatever is timed takes a tenth of the unpruned model's time.
    monkeypatch.setattr(prune_steps, "time_share", lambda *arguments, **named: 0.1)
    pruner = prune_steps._Channels(model=model, worth=channels.scores(model, criterion="l1"), work=work)
    found, step = prune_steps._to_latency(pruner, work, unpruned=Path("unpruned.keras"), amount=1.5, part=1.0)
    assert [one.cost for one in found.tries][:2] == [1.0, 0.1]
    assert found.plan.macs_after < found.plan.macs_before
    assert step.reached.startswith("10.00x as fast")


def test_a_layer_that_an_early_step_takes_out_is_not_reported_as_whole() -> None:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, name="stem")(x)
    for number in range(10):
        new = layers.Conv2D(4, 3, padding="same", name=f"d{number}")(layers.ReLU()(x))
        x = layers.Concatenate()([x, new])
    scores = layers.Dense(4, activation="softmax", name="scores")(layers.GlobalAveragePooling2D()(x))
    model = whole = keras.Model(image, scores)
    plans, left = [], []
    for removed in (0.3, 0.6):
        worth = channels.scores(model, criterion="l1")
        plan = channels.plan_for_macs(
            model, worth, removed=removed, scope="global", multiple=16, macs_before=channels.macs(whole)
        )
        model = channels.smaller(model, plan)
        plans.append(plan.to_json())
        left.append({layer.name: layer.filters for layer in model.layers if hasattr(layer, "filters")})
    assert 0 < len(left[1]) < len(left[0]) < 11
    reported = {layer.name: (layer.before, layer.after) for layer in prune_stages._groups(plans)}
    assert reported == {
        name: (16 if name == "stem" else 4, left[1].get(name, 0)) for name in ["stem", *(f"d{n}" for n in range(10))]
    }
