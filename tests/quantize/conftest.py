"""The networks and runners of tests/export."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_SPEC = importlib.util.spec_from_file_location("export_fixtures", Path(__file__).parents[1] / "export" / "conftest.py")
assert _SPEC is not None
assert _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

networks = _FIXTURES.networks
built = _FIXTURES.built
float_file = _FIXTURES.float_file
run = _FIXTURES.run
operations = _FIXTURES.operations
