"""The registry of runtimes, apart from the package's own file so that every module of it can import this one."""

from __future__ import annotations

from emb.registry import Registry

RUNTIMES = Registry("emb.runtimes", kind="runtime")
