"""Before TensorFlow is imported: the switch without which equal trainings need not be equal to the bit."""

from __future__ import annotations

import os

os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
