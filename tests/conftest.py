"""What holds for all tests: the environment that emb itself gives TensorFlow, and no cache but a temporary one.

And the command line, as they call it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# No clock decides a test: neither how long an example takes nor how long they take to be drawn. By hand each run draws
# new examples; in CI the same commit has the same ones, so that it passes always or never.
settings.register_profile(
    "emb", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("emb")

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker for each core: further threads would take it from the other one, and wait for it.
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, "1")


# macOS has libraries that no forked process may use.
_FORKS = None if sys.platform in ("darwin", "win32") else multiprocessing.get_context("forkserver")
if _FORKS is not None:
    _FORKS.set_forkserver_preload(["tensorflow", "keras"])


@dataclass(frozen=True)
class Emb:
    """The command line with a cache of its own. home: where it runs."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("EMB_") and key != "NO_COLOR"}
        return {**kept, "EMB_CACHE_DIR": str(self.home / "cache"), "COLUMNS": "160"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from emb.cli import main; main()", *arguments]

    def run(
        self, *arguments: str, expect: int = 0, fresh: bool = False, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """One call that ends with the exit code `expect`.

        It runs in a process of its own, forked where TensorFlow is imported already, as that import is most of what a
        short call takes, and times each file of a build for a tenth of a second instead of a whole one. With `fresh`,
        or variables that TensorFlow may read as it starts, Python itself starts anew.
        """
        if fresh or environment or _FORKS is None:
            done = subprocess.run(
                self.command(*arguments),
                capture_output=True,
                text=True,
                check=False,
                cwd=self.home,
                env={**self.environment, **environment},
            )
        else:
            done = self._forked(_FORKS, arguments)
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def _forked(self, forks: ForkServerContext, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        with NamedTemporaryFile() as stdout, NamedTemporaryFile() as stderr:
            request = {
                "arguments": arguments,
                "home": self.home,
                "environment": self.environment,
                "stdout": stdout.name,
                "stderr": stderr.name,
            }
            script = str(Path(__file__).with_name("forked.py"))
            process = forks.Process(target=runpy.run_path, args=(script, {"request": request}))
            process.start()
            process.join()
            assert process.exitcode is not None
            said, complained = (Path(stream.name).read_text() for stream in (stdout, stderr))
            return subprocess.CompletedProcess(self.command(*arguments), process.exitcode, said, complained)

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", expect=expect).stdout)


@pytest.fixture(scope="session")
def emb(tmp_path_factory: pytest.TempPathFactory) -> Emb:
    return Emb(tmp_path_factory.mktemp("emb"))


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Nothing that the user has cached decides a test, and no test leaves anything there."""
    before = os.environ.get("EMB_CACHE_DIR")
    os.environ["EMB_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["EMB_CACHE_DIR"]
    else:
        os.environ["EMB_CACHE_DIR"] = before
