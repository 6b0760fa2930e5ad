"""Commands that need no TensorFlow stay light: proved by what they have imported, not by a clock."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

HEAVY = ("numpy", "keras", "tensorflow", "sklearn", "onnx", "onnxruntime", "PIL")


def imported_by(*arguments: str) -> set[str]:
    """Top-level modules that one command has imported when it ends, in a process of its own."""
    program = textwrap.dedent(f"""
        import sys
        from emb.cli import app
        try:
            app({list(arguments)!r}, prog_name="emb")
        except SystemExit as stop:
            assert not stop.code, stop.code
        print("\\n" + " ".join(sorted({{name.split(".")[0] for name in sys.modules}})))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_keras_starts_without_scikit_learn():
    program = textwrap.dedent("""
        import sys
        from emb.cli import main
        sys.argv = ["emb", "inspect", "lenet"]
        try:
            main()
        except SystemExit as stop:
            assert not stop.code, stop.code
        print(*sorted(sys.modules), sep="\\n")
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert "keras" in modules
    assert modules.isdisjoint({"sklearn.utils", "scipy.stats"})


@pytest.mark.parametrize("arguments", [("--help",), ("build", "--help"), ("version",)])
def test_help_imports_nothing_heavy(arguments):
    assert imported_by(*arguments).isdisjoint(HEAVY)


@pytest.mark.parametrize("arguments", [("recipes",), ("targets",), ("data", "list"), ("doctor", "--json")])
def test_what_needs_no_tensorflow_does_not_import_it(arguments):
    assert imported_by(*arguments).isdisjoint({"keras", "tensorflow"})


def test_the_shell_completes_recipe_names():
    environment = {**os.environ, "_EMB_COMPLETE": "complete_bash", "COMP_WORDS": "emb build lenet-", "COMP_CWORD": "2"}
    call = [sys.executable, "-c", "from emb.cli import app; app(prog_name='emb')"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.split() == ["lenet-caffe"]
