"""One step of pruning towards a latency, on a machine whose times say nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emb.pipeline import prune_steps
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
