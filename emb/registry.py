"""A folder is a registry: a file's name is the public name, its docstring the help. Imports a file only when used.

`emb/zoo/mnist_cnn.py` is the public name `mnist-cnn` of the registry `emb.zoo`. Folders in it, and files whose name
begins with an underscore, are its own business. Other distributions add names through entry points of the same group.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from emb.errors import SpecError


def nearest(name: str, names: Iterable[str]) -> str:
    """The sentence that offers the names closest to `name`, or all of them if none is close."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}? known: {', '.join(known)}"
    return f"known: {', '.join(known)}"


@dataclass(frozen=True)
class Registry:
    """The public modules of one package, e.g. Registry("emb.zoo", kind="model")."""

    package: str
    kind: str

    def names(self) -> tuple[str, ...]:
        """All public names, sorted. Imports none of the modules."""
        return tuple(sorted({*self._own, *self._foreign}))

    def get(self, name: str) -> ModuleType:
        """The module behind a public name. Raises SpecError for an unknown name, offering the nearest."""
        if name in self._own:
            return importlib.import_module(f"{self.package}.{self._own[name]}")
        if name in self._foreign:
            module = self._foreign[name].load()
            if not isinstance(module, ModuleType):
                raise SpecError(
                    f"the entry point {self.package}:{name} is not a module",
                    why=f"it loads {type(module).__name__}",
                    fix="let the entry point name a module, e.g. my-net = 'my_package.my_net'",
                )
            return module
        raise SpecError(f"unknown {self.kind} {name!r}", fix=nearest(name, self.names()))

    def help(self, name: str) -> str:
        """First line of the module's docstring, read without importing it."""
        if name not in self._own:
            return (self.get(name).__doc__ or "").strip().split("\n")[0]
        spec = find_spec(f"{self.package}.{self._own[name]}")
        assert spec is not None  # listed a moment ago
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        return (ast.get_docstring(tree) or "").split("\n")[0]

    @cached_property
    def _own(self) -> dict[str, str]:
        folder = find_spec(self.package)
        if folder is None or folder.submodule_search_locations is None:
            return {}
        modules = pkgutil.iter_modules(folder.submodule_search_locations)
        found = (module.name for module in modules if not module.ispkg)
        return {name.replace("_", "-"): name for name in found if not name.startswith("_")}

    @cached_property
    def _foreign(self) -> dict[str, EntryPoint]:
        foreign: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.package):
            if point.name in self._own or point.name in foreign:
                raise SpecError(
                    f"two {self.kind}s are called {point.name!r}",
                    why=f"one of them comes from the entry point {point.value}",
                    fix="uninstall one of the two distributions, or rename its entry point",
                )
            foreign[point.name] = point
        return foreign
