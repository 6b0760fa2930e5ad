"""A problem that is learned in seconds: which quarter of a noisy 12x12 image is bright. Also runs as a program:

python _bright_quadrant.py DIRECTORY        trains with the checkpoint in DIRECTORY
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from emb.spec.dataset import Split
from emb.spec.recipe import Augmentation, TrainSpec

SPEC = TrainSpec(
    epochs=4,
    batch_size=32,
    learning_rate=5e-3,
    weight_decay=1e-2,
    warmup_epochs=1,
    label_smoothing=0.05,
    seed=7,
    augment=Augmentation(shift_fraction=0.05, rotation_degrees=5),
)


def split(count: int, *, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    images = rng.integers(0, 60, (count, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[6 * row : 6 * row + 6, 6 * column : 6 * column + 6] += 120
    return Split(images=images, labels=labels.astype(np.int64))


TRAIN = split(400, seed=1)
VALIDATION = split(90, seed=2)


def model(*, dropout: float = 0.25):
    import keras
    from keras import layers

    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.Input((12, 12, 1), name="pixels"),
            layers.Rescaling(1 / 255, name="rescale"),
            layers.Conv2D(4, 3, name="conv1"),
            layers.BatchNormalization(name="normal1"),
            layers.ReLU(name="relu1"),
            layers.Flatten(name="flatten"),
            layers.Dropout(dropout, name="drop1"),
            layers.Dense(4, activation="softmax", name="scores"),
        ],
        name="quadrant",
    )


def run(directory: Path, *, spec: TrainSpec = SPEC, progress=lambda progress: None, trained=None):
    from emb.train import train

    trained = model() if trained is None else trained
    done = train(trained, train=TRAIN, validation=VALIDATION, spec=spec, directory=directory, progress=progress)
    return trained, done.history


if __name__ == "__main__":
    run(Path(sys.argv[1]))
