"""One real build that the tests of the pipeline share, made by the command line as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCHEMES = "float32,float16,dynamic,int8,int8-uint8,int16x8"


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

    def run(self, *arguments: str, expect: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env={**self.environment, **environment},
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", expect=expect).stdout)


@pytest.fixture(scope="session")
def emb(tmp_path_factory: pytest.TempPathFactory) -> Emb:
    return Emb(tmp_path_factory.mktemp("emb"))


@pytest.fixture(scope="session")
def built(emb: Emb) -> dict[str, Any]:
    """The report of a short build of lenet in every scheme."""
    return emb.json("build", "lenet", "--quantize", SCHEMES, "--epochs", "6", "--output", "built")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Any]:
    """A real server. See tests/pipeline/postgresql.py."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("emb_test_postgresql", Path(__file__).parent / "postgresql.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.binaries()
    if found is None:
        pytest.skip("there is no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    server = module.Postgresql(found)
    yield server
    server.remove()
