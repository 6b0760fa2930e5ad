"""Learning from a teacher: the loss and its gradient against numpy, and a student that learns without its labels."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emb.errors import ModelError
from emb.spec.dataset import Split
from emb.spec.recipe import TrainSpec
from emb.train import Teacher, train
from emb.train.distillation import distillation_loss

_loader = importlib.util.spec_from_file_location("quadrant", Path(__file__).with_name("_bright_quadrant.py"))
problem = importlib.util.module_from_spec(_loader)
_loader.loader.exec_module(problem)

SPEC = TrainSpec(epochs=3, batch_size=32, learning_rate=5e-3, schedule="constant", seed=7)


def softmax(logits, temperature=1.0):
    exponentials = np.exp((logits - logits.max(axis=-1, keepdims=True)) / temperature)
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


logits = st.lists(st.lists(st.floats(-6, 6), min_size=3, max_size=3), min_size=2, max_size=2).map(np.array)


@settings(max_examples=30)
@given(teacher=logits, student=logits, temperature=st.floats(0.5, 20))
def test_the_loss_and_its_gradient_are_those_of_the_paper(teacher, student, temperature):
    """The gradient by the student's logits is T * (softened student - softened teacher), over the batch's size."""
    import tensorflow as tf

    wanted, given_ = softmax(teacher, temperature), softmax(student, temperature)
    value = temperature**2 * np.mean(np.sum(wanted * np.log(wanted / given_), axis=1))
    variable = tf.Variable(student.astype(np.float32))
    with tf.GradientTape() as tape:
        loss = distillation_loss(softmax(teacher).astype(np.float32), tf.nn.softmax(variable), temperature=temperature)
    assert float(loss) == pytest.approx(value, rel=1e-3, abs=1e-4)
    gradient = temperature * (given_ - wanted) / len(student)
    np.testing.assert_allclose(tape.gradient(loss, variable), gradient, rtol=1e-3, atol=1e-3)


def train_(model, spec, directory, *, labels, teacher=None, progress=lambda progress: None):
    data = Split(images=problem.TRAIN.images, labels=labels)
    return train(
        model,
        train=data,
        validation=problem.VALIDATION,
        spec=spec,
        directory=directory,
        progress=progress,
        teacher=teacher,
    ).history


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    model = problem.model()
    train_(model, SPEC, tmp_path_factory.mktemp("teacher"), labels=problem.TRAIN.labels)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_student_learns_from_its_teacher_alone(taught, tmp_path, precision):
    before = [np.array(variable) for variable in taught.variables]
    wrong = np.random.default_rng(0).permutation(problem.TRAIN.labels)
    spec = dataclasses.replace(SPEC, precision=precision, ema_momentum=0.9)
    student = problem.model()
    history = train_(student, spec, tmp_path, labels=wrong, teacher=Teacher(model=taught, temperature=4, weight=1))
    assert history.epochs[-1].validation_accuracy > 0.9
    for variable, value in zip(taught.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(variable), value)


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_same_bits(taught, tmp_path):
    def interrupt(progress):
        if progress.epoch == 2:
            raise KeyboardInterrupt

    teacher = Teacher(model=taught, temperature=4, weight=0.5)
    labels = problem.TRAIN.labels
    whole, resumed = problem.model(), problem.model()
    train_(whole, SPEC, tmp_path / "whole", labels=labels, teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        train_(problem.model(), SPEC, tmp_path / "parts", labels=labels, teacher=teacher, progress=interrupt)
    told = []
    train_(resumed, SPEC, tmp_path / "parts", labels=labels, teacher=teacher, progress=told.append)
    assert min(progress.epoch for progress in told) == 2
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # Of another teacher it is another training.
    told.clear()
    other = dataclasses.replace(teacher, temperature=5)
    train_(problem.model(), SPEC, tmp_path / "parts", labels=labels, teacher=other, progress=told.append)
    assert told[0].epoch == 1


def test_a_teacher_of_other_classes(tmp_path):
    import keras

    inputs = keras.Input((12, 12, 1))
    five = keras.Model(inputs, keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(inputs)))
    teacher = Teacher(model=five, temperature=4, weight=0.5)
    with pytest.raises(ModelError) as caught:
        train_(problem.model(), SPEC, tmp_path, labels=problem.TRAIN.labels, teacher=teacher)
    assert str(caught.value) == (
        "the teacher's output has shape (5,), the student's (4,)\n"
        "  fix: let the student learn from a model of the same images and classes"
    )
