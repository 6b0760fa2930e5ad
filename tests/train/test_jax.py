"""The same training under JAX, in a process of its own: every state of it, and what a resumed one ends with."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import dataclasses, importlib.util, sys, tempfile
from pathlib import Path
import numpy as np

loader = importlib.util.spec_from_file_location("quadrant", sys.argv[1])
problem = importlib.util.module_from_spec(loader)
loader.loader.exec_module(problem)
from emb.prune.cluster import shared
from emb.prune.magnitude import zeros
from emb.spec.pruning import goal_of
from emb.train import Teacher, train
import keras

assert keras.backend.backend() == "jax"
base = dataclasses.replace(problem.SPEC, epochs=2)
specs = {
    "plain": base,
    "all": dataclasses.replace(
        base, epochs=3, optimizer="sgd", learning_rate=0.05, weight_decay=1e-3, ema_momentum=0.8, freeze_epochs=1,
        schedule="plateau", early_stopping_epochs=2, precision="mixed_bfloat16",
    ),
    "float16": dataclasses.replace(base, precision="mixed_float16"),
    "zeros, taught": dataclasses.replace(base, epochs=3, ema_momentum=0.8),
    "shared": dataclasses.replace(base, ema_momentum=0.8),
}
teacher = Teacher(model=problem.model(dropout=0.0), temperature=4, weight=0.3)
forms = {
    "zeros, taught": lambda model: {"constraint": zeros(model, goal=goal_of("magnitude", "0.5")), "teacher": teacher},
    "shared": lambda model: {"constraint": shared(model, count=4)},
}

def run(name, folder, progress=lambda progress: None):
    model = problem.model()
    more = forms[name](model) if name in forms else {}
    trained = train(model, train=problem.TRAIN, validation=problem.VALIDATION, spec=specs[name], directory=folder,
                    progress=progress, gradients=True, **more)
    kernels = [np.array(variable) for variable in model.variables if variable.path.endswith("/kernel")]
    if name == "zeros, taught":
        count = sum(kernel.size for kernel in kernels)
        assert sum((kernel == 0).sum() for kernel in kernels) == round(0.5 * count)
    if name == "shared":
        for kernel in kernels:
            ratios = kernel / np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
            assert len(np.unique(ratios.round(5))) <= 4
    return model, trained

def interrupt(progress):
    if progress.epoch == 2:
        raise KeyboardInterrupt

for name, spec in specs.items():
    with tempfile.TemporaryDirectory() as folder:
        whole, wanted = run(name, Path(folder) / "whole")
        assert wanted.history.epochs[-1].loss < wanted.history.epochs[0].loss, name
        assert wanted.gradients.norms.shape == (12 * len(wanted.history.epochs), 6)
        trained_columns = wanted.gradients.norms[12 * spec.freeze_epochs:]
        # The scores' own bias has a gradient in every step; so has all else that is not frozen.
        assert np.isfinite(trained_columns).all() and (trained_columns[:, -1] > 0).all(), name
        try:
            run(name, Path(folder) / "parts", progress=interrupt)
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("was not interrupted")
        model, trained = run(name, Path(folder) / "parts")
        for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        np.testing.assert_array_equal(trained.gradients.norms, wanted.gradients.norms, err_msg=name)
print("held", len(specs))
"""


@pytest.mark.slow
@pytest.mark.long
def test_trains_and_resumes_under_jax():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    problem = Path(__file__).with_name("_bright_quadrant.py")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(problem)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "held 5\n"
