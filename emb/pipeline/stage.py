"""A stage: a step of the store with the work that makes it, and what the work may use. Knows no particular stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from emb.spec.dataset import DataRequest, Dataset
from emb.spec.recipe import Recipe
from emb.store import Artifact, Step, digest_of_code

if TYPE_CHECKING:
    from emb.train import Progress

_PACKAGE = Path(__file__).parent.parent


class Listener(Protocol):
    """Hears how a build goes on. Every method may be called from the main thread only."""

    def stage_begins(self, name: str) -> None: ...
    def stage_ends(self, name: str, *, cached: bool, seconds: float) -> None: ...
    def training(self, progress: Progress) -> None: ...
    def downloading(self, file: str, done_bytes: int, total_bytes: int) -> None: ...
    def failed(self, message: str) -> None: ...


class Silence:
    """A listener for callers who only want the report."""

    def stage_begins(self, name: str) -> None: ...
    def stage_ends(self, name: str, *, cached: bool, seconds: float) -> None: ...
    def training(self, progress: Progress) -> None: ...
    def downloading(self, file: str, done_bytes: int, total_bytes: int) -> None: ...
    def failed(self, message: str) -> None: ...


@dataclass(frozen=True)
class Context:
    """What all stages of one build share: the recipe, its data (loaded at most once) and who listens.

    gradients: the model stage also records the gradients' norms.
    """

    recipe: Recipe
    request: DataRequest
    trust_model: bool
    listener: Listener
    gradients: bool = False

    @cached_property
    def dataset(self) -> Dataset:
        from emb import data

        return data.load(self.recipe.data.name, self.request)


@dataclass(frozen=True)
class Work:
    """One stage at work. folder: where its files go.  done: the artifacts of the stages that it needs."""

    folder: Path
    context: Context
    done: Mapping[str, Artifact]

    def file(self, stage: str, name: str) -> Path:
        """A file that an earlier stage made."""
        return self.done[stage].path(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """name: unique in its plan.  group: the heading under which its time is reported.  needs: earlier stages.

    inputs: digests of what comes from outside the plan.  packages: names below emb whose source is the
    stage's own code.  chatty: the work calls libraries that print; what they print goes to a log.
    optional: a failure is one row's error, and the build goes on.
    """

    name: str
    group: str
    work: Callable[[Work], None]
    needs: tuple[str, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    resumable: bool = False
    chatty: bool = False
    optional: bool = False

    def step(self, done: Mapping[str, Artifact]) -> Step:
        """The step of the store, once the artifacts it needs are there."""
        return Step(
            name=self.group,
            inputs={**self.inputs, **{need: done[need].digest for need in self.needs}},
            parameters=self.parameters,
            tools=self.tools,
            code=code_digest(self.packages),
            resumable=self.resumable,
        )


def versions(distributions: Iterable[str]) -> dict[str, str]:
    """name -> installed version ("absent" if it is not installed)."""
    return {name: _version(name) for name in distributions}


@cache
def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "absent"


def code_digest(packages: tuple[str, ...]) -> str:
    """Digest of the source of emb's packages or modules, named relative to emb: "zoo", "pipeline/stages.py"."""
    return digest_of_code(*(_PACKAGE / package for package in packages))
