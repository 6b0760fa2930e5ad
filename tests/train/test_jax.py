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
from emb.train import train
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
}

def run(spec, folder, progress=lambda progress: None):
    model = problem.model()
    trained = train(model, train=problem.TRAIN, validation=problem.VALIDATION, spec=spec, directory=folder,
                    progress=progress, gradients=True)
    return model, trained

def interrupt(progress):
    if progress.epoch == 2:
        raise KeyboardInterrupt

for name, spec in specs.items():
    with tempfile.TemporaryDirectory() as folder:
        whole, wanted = run(spec, Path(folder) / "whole")
        assert wanted.history.epochs[-1].loss < wanted.history.epochs[0].loss, name
        assert wanted.gradients.norms.shape == (12 * len(wanted.history.epochs), 6)
        trained_columns = wanted.gradients.norms[12 * spec.freeze_epochs:]
        # The scores' own bias has a gradient in every step; so has all else that is not frozen.
        assert np.isfinite(trained_columns).all() and (trained_columns[:, -1] > 0).all(), name
        try:
            run(spec, Path(folder) / "parts", progress=interrupt)
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("was not interrupted")
        model, trained = run(spec, Path(folder) / "parts")
        for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        np.testing.assert_array_equal(trained.gradients.norms, wanted.gradients.norms, err_msg=name)
print("held", len(specs))
"""


@pytest.mark.slow
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
    assert done.stdout == "held 3\n"
