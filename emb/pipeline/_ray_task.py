"""What a node of a Ray cluster does for a trial. Knows nothing of the other trials and of who asks."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emb.errors import EmbError
from emb.pipeline.build import Order, in_store
from emb.pipeline.stage import code_digest, versions
from emb.pipeline.workers import Teller, error_of
from emb.store import Store

# What acts in a build; emb's keys hold the versions, so that other ones would make other artifacts.
_TOOLS = (
    *("keras", "tensorflow", "jax", "jaxlib", "numpy", "pillow", "onnx", "tf2onnx", "onnxruntime", "flatbuffers"),
    *("ai-edge-litert", "ai-edge-quantizer", "tflite-runtime", "ethos-u-vela"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the sweep runs. cache: its cache directory.  token: a file in its store that no other has.

    directory: what relative paths of orders begin at.  files: the recipe and target files of orders, by their paths.
    environment: of every trial; None: not set.  data: its EMB_DATA_DIR, for nodes without one.
    """

    host: str
    cache: str
    token: str
    directory: str
    files: Mapping[str, bytes]
    environment: Mapping[str, str | None]
    data: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """error: why the trial cannot be built, if it cannot.  packed: key -> reference of what the sweep's store lacks."""

    host: str
    error: EmbError | None
    packed: Mapping[str, Any]


class Relay:
    """A Ray actor that keeps what trials tell until the sweep asks for it. If its node is lost, that is lost, too."""

    def __init__(self) -> None:
        self._told: list[tuple[str, str, float | None]] = []

    def tell(self, name: str, stage: str, share: float | None) -> None:
        self._told.append((name, stage, share))

    def take(self) -> list[tuple[str, str, float | None]]:
        told, self._told = self._told, []
        return told


def facts() -> dict[str, str]:
    """name -> version of all that must be the same on every node."""
    return {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "emb's code": code_digest((".",))[:12],
        **versions(_TOOLS),
    }


def describe(home: Home) -> dict[str, Any]:
    """The facts of this node, and whether it sees the sweep's store."""
    return {"host": socket.gethostname(), "facts": facts(), "shared": _sees_store(home)}


def build_on_node(name: str, order: Order, home: Home, offers: Mapping[str, Any], relay: Any) -> Done:
    """`build_untimed` in the sweep's own store if this node sees it, else in the node's.

    offers: key -> reference of what the sweep's store holds of the order already.
    """
    import ray

    shared = _settle(home)
    with tempfile.TemporaryDirectory(prefix="emb-trial-") as folder:
        order = _with_files(order, home.files, Path(folder))
        store = Store()
        if not shared:
            for key, reference in offers.items():
                if not (store.root / "artifacts" / key).is_dir():
                    store.put(ray.get(reference))
        error = error_of(order, Teller(lambda stage, share: relay.tell.remote(name, stage, share)))
        keys: tuple[str, ...] = ()
        if not shared:
            # Also of a trial that failed: what it has trained, others need.
            with suppress(EmbError):
                keys, _ = in_store(order)
        packed = {key: ray.put(store.pack(key)) for key in keys if key not in offers}
    host = socket.gethostname()
    if error is not None and (host != home.host or not shared):
        error = type(error)(f"on {host}: {error.what}", why=error.why, fix=error.fix)
    return Done(host=host, error=error, packed=packed)


def _sees_store(home: Home) -> bool:
    """A node that has been given a cache of its own works there, even if it could reach the sweep's."""
    own = os.environ.get("EMB_CACHE_DIR")
    return own in (None, home.cache) and (Path(home.cache) / "store" / home.token).is_file()


def _settle(home: Home) -> bool:
    """Make this process one of the sweep's; whether it works in the sweep's store."""
    for name, value in home.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if home.data is not None:
        os.environ.setdefault("EMB_DATA_DIR", home.data)
    with suppress(OSError):
        os.chdir(home.directory)
    shared = _sees_store(home)
    if shared:
        os.environ["EMB_CACHE_DIR"] = home.cache
    return shared


def _with_files(order: Order, files: Mapping[str, bytes], folder: Path) -> Order:
    """The order with the recipe and target files that came along in place of those that it names."""

    def here(path: str, kind: str) -> str:
        if path not in files:
            return path
        (folder / kind).mkdir()
        file = folder / kind / Path(path).name
        file.write_bytes(files[path])
        return str(file)

    target = None if order.target is None else here(order.target, "target")
    return replace(order, recipe=here(str(order.recipe), "recipe"), target=target)
