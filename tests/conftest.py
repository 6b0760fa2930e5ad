"""What holds for all tests: the environment that emb itself gives TensorFlow, and no cache but a temporary one."""

from __future__ import annotations

import os

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
