"""Turns scores and raw times into measurements with their statistics. Runs no model and knows no runtime."""

from __future__ import annotations

from emb.bench.accuracy import agreement, top1
from emb.bench.classes import judge, per_class, softmax, worst_mistakes
from emb.bench.machine import describe_machine, free_memory_bytes, machine_digest
from emb.bench.statistics import bootstrap_median, mcnemar, median, percentile, wilson

__all__ = [
    "agreement",
    "bootstrap_median",
    "describe_machine",
    "free_memory_bytes",
    "judge",
    "machine_digest",
    "mcnemar",
    "median",
    "per_class",
    "percentile",
    "softmax",
    "top1",
    "wilson",
    "worst_mistakes",
]
