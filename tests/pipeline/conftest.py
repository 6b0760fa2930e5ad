"""What the tests of the pipeline share: one real build, made by the command line as a user would, and a database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCHEMES = "float32,float16,dynamic,int8,int8-uint8,int16x8"


@pytest.fixture(scope="session")
def built(emb: Any) -> dict[str, Any]:
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
