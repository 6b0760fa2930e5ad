"""What a pruned model learns from."""

from __future__ import annotations

from typing import Any

import numpy as np

from emb.pipeline.fine_tuning import _in_inference


def normalized(*others: Any) -> Any:
    import keras

    keras.utils.set_random_seed(0)
    image = x = keras.Input((8, 8, 3))
    for layer in (keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.ReLU(), *others):
        x = layer(x)
    scores = keras.layers.Dense(5, activation="softmax")(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(image, scores)
    model.layers[2].set_weights([np.full(4, value, np.float32) for value in (0.5, 0.1, 0.2, 3)])
    return model


def test_teacher_has_its_normalization_folded() -> None:
    import keras

    model = normalized()
    teacher = _in_inference(model)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in teacher.layers)
    images = np.random.default_rng(0).uniform(0, 1, (4, 8, 8, 3)).astype(np.float32)
    scores = model(images, training=False)
    assert np.ptp(scores, axis=0).max() > 1e-3
    np.testing.assert_allclose(teacher(images, training=False), scores, atol=1e-5)


def test_teacher_that_has_no_plain_form_stays() -> None:
    import keras

    class Scaled(keras.layers.Layer):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.factor = factor

        def call(self, inputs: Any) -> Any:
            return self.factor * inputs

        def get_config(self) -> dict[str, Any]:
            return dict(super().get_config())

    model = normalized(Scaled(2.0))
    assert _in_inference(model) is model
