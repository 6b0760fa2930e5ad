"""One step towards a smaller network: what its channels or blocks are worth, the search for the goal, the model.

Trains nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from emb.errors import SpecError
from emb.pipeline.conversion import FEW_IMAGES, converted, time_share
from emb.pipeline.fine_tuning import opened, pixels_of
from emb.pipeline.json_files import read_json, replace_json
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.dataset import Split
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import keras

    from emb.prune.blocks import BlockPlan
    from emb.prune.channels import ChannelPlan, Found, Scores

    Plan = BlockPlan | ChannelPlan

# As many images as emb.prune.channels looks at.
_IMAGES = 512
# A probability of 0 would be an infinite loss.
_SMALLEST = 1e-7
_SCHEME = "int8"
# A file's size is exact, unlike a latency: a search for it may go nearer.
_NEAR, _MOST_TRIES = 0.005, 16
_LEAST = {
    "channels": "as few as a tenth of the channels of every group",
    "blocks": "no residual branch left that can go",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneStep:
    """plan: of emb.prune.channels or blocks, as JSON.  reached: what was measured of the goal, in words."""

    plan: dict[str, Any]
    reached: str


def prune_step(work: Work, folder: Path, *, model: Path, unpruned: Path, number: int) -> PruneStep:
    """Prune `model` into `folder`/pruned.keras, unless an interrupted build has done that; number: of the step, from 1.

    Each step of several removes the same share of what is left.
    Raises SpecError for a goal that is out of reach, naming the nearest, ModelError if nothing can go.
    """
    note = folder / "step.json"
    if note.exists():
        return PruneStep(**read_json(note))
    folder.mkdir(exist_ok=True)
    prune = work.context.recipe.prune
    goal, part = prune.target, number / prune.steps
    network = opened(model, work.context)
    pruner: _Pruner = _Blocks.of(network, work) if prune.method == "blocks" else _Channels.of(network, work)
    if goal.kind == "macs":
        smaller, plan = pruner.without_macs(1 - (1 - goal.amount) ** part, unpruned=unpruned)
        step = PruneStep(plan=plan, reached="")
    else:
        search = _to_bytes if goal.kind == "bytes" else _to_latency
        found, step = search(pruner, work, unpruned=unpruned, amount=goal.amount, part=part)
        smaller = found.model
    smaller.save(folder / "pruned.keras")
    replace_json(note, asdict(step))
    return step


class _Pruner(Protocol):
    """One method, with a model and what is worth how much in it."""

    @property
    def model(self) -> keras.Model: ...

    def without_macs(self, removed: float, *, unpruned: Path) -> tuple[keras.Model, dict[str, Any]]:
        """The smaller model and its plan as JSON. removed: share of the MACs of the model in the file `unpruned`."""
        ...

    def search(self, *, cost: Callable[[keras.Model], float], goal: float, **options: Any) -> Found[Plan]:
        """See plan_for_goal of emb.prune.channels or blocks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channels:
    model: keras.Model
    worth: Scores
    work: Work

    @classmethod
    def of(cls, model: keras.Model, work: Work) -> _Channels:
        return cls(model=model, worth=_scores(model, work), work=work)

    def without_macs(self, removed: float, *, unpruned: Path) -> tuple[keras.Model, dict[str, Any]]:
        from emb.prune import channels

        recipe, before = self.work.context.recipe, channels.macs(opened(unpruned, self.work.context))
        plan = channels.plan_for_macs(
            self.model,
            self.worth,
            removed=removed,
            scope=recipe.prune.scope,
            multiple=recipe.channel_multiple,
            macs_before=before,
        )
        return channels.smaller(self.model, plan), plan.to_json()

    def search(self, *, cost: Callable[[keras.Model], float], goal: float, **options: Any) -> Found[ChannelPlan]:
        from emb.prune import channels

        recipe = self.work.context.recipe
        scope, multiple = recipe.prune.scope, recipe.channel_multiple
        return channels.plan_for_goal(
            self.model, self.worth, scope=scope, multiple=multiple, cost=cost, goal=goal, **options
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    model: keras.Model
    rises: Mapping[str, float]

    @classmethod
    def of(cls, model: keras.Model, work: Work) -> _Blocks:
        from emb.prune import blocks

        return cls(model=model, rises=blocks.rises(model, loss=_loss(work)))

    def without_macs(self, removed: float, *, unpruned: Path) -> tuple[keras.Model, dict[str, Any]]:
        from emb.prune import blocks

        plan = blocks.plan_for_macs(self.model, self.rises, removed=removed)
        return blocks.smaller(self.model, plan), plan.to_json()

    def search(self, *, cost: Callable[[keras.Model], float], goal: float, **options: Any) -> Found[BlockPlan]:
        from emb.prune import blocks

        return blocks.plan_for_goal(self.model, self.rises, cost=cost, goal=goal, **options)


def _to_bytes(
    pruner: _Pruner, work: Work, *, unpruned: Path, amount: float, part: float
) -> tuple[Found[Plan], PruneStep]:
    """Every candidate is converted: no estimate decides that the goal is met."""

    def size(candidate: keras.Model) -> float:
        return _measured(candidate, work, lambda path, pixels: path.stat().st_size)

    start = size(opened(unpruned, work.context)) if part < 1 else amount
    goal = start * (amount / start) ** part if start > amount else amount
    found = pruner.search(cost=size, goal=goal, unit="bytes", per_weight=True, tolerance=_NEAR, most_tries=_MOST_TRIES)
    reached = f"{found.cost:,.0f} bytes as int8 .tflite, after {len(found.tries)} conversions"
    return found, PruneStep(plan=found.plan.to_json(), reached=reached)


def _to_latency(
    pruner: _Pruner, work: Work, *, unpruned: Path, amount: float, part: float
) -> tuple[Found[Plan], PruneStep]:
    """Every candidate is timed beside the unpruned model, as the machine may be busier now than a minute ago."""
    from emb.prune import channels

    shares: list[float] = []
    with tempfile.TemporaryDirectory(prefix="emb-unpruned-") as folder:
        before = Path(folder) / "model.tflite"
        whole = opened(unpruned, work.context)
        of_before, whole_macs = _convert(whole, before, work), channels.macs(whole)

        def share(candidate: keras.Model) -> float:
            def measure(path: Path, pixels: Pixels) -> float:
                return time_share(path, before, work, pixels=(pixels, of_before))

            # The unpruned model itself: no noise shall make it faster than it is.
            is_whole = channels.macs(candidate) == whole_macs
            shares.append(1.0 if is_whole else _measured(candidate, work, measure))
            return shares[-1]

        goal, method = (1 / amount) ** part, work.context.recipe.prune.method
        try:
            found = pruner.search(cost=share, goal=goal)
        except SpecError as error:
            if not shares or min(shares) <= goal:
                raise
            raise SpecError(
                f"{pruner.model.name} cannot be made {1 / goal:.3g}x as fast by pruning {method}",
                why=f"the nearest that was reached is {1 / min(shares):.2f}x on one thread of LiteRT here, with "
                + _LEAST[method],
                fix="choose a lower goal, or a smaller architecture",
            ) from error
    reached = f"{1 / found.cost:.2f}x as fast as the unpruned int8 .tflite, on one thread of LiteRT here"
    return found, PruneStep(plan=found.plan.to_json(), reached=reached)


def _measured(model: keras.Model, work: Work, measure: Callable[[Path, Pixels], float]) -> float:
    """What `measure` says of the model's int8 .tflite."""
    with tempfile.TemporaryDirectory(prefix="emb-candidate-") as folder:
        path = Path(folder) / "model.tflite"
        pixels = _convert(model, path, work)
        return measure(path, pixels)


def _convert(model: keras.Model, path: Path, work: Work) -> Pixels:
    from emb.export.source import open_source
    from emb.quantize import SCHEMES

    scheme: Scheme = SCHEMES.get(_SCHEME).SCHEME
    saved = path.with_suffix(".keras")
    model.save(saved)
    source = open_source(saved, trust=work.context.trust_model)
    return converted(source, path, work, scheme=scheme, images=FEW_IMAGES)


def _scores(model: keras.Model, work: Work) -> Scores:
    from emb.prune import channels
    from emb.train.batches import as_expected

    recipe, images = work.context.recipe, _some_images(work)
    return channels.scores(
        model,
        criterion=recipe.prune.criterion,
        images=as_expected(images.images[:], pixels_of(recipe)),
        labels=images.labels,
    )


def _loss(work: Work) -> Callable[[keras.Model], float]:
    """The mean over some train images of a model's loss, from its probabilities."""
    from emb.train.validate import predict

    some, pixels = _some_images(work), pixels_of(work.context.recipe)

    def loss(model: keras.Model) -> float:
        told = predict(model, some.images, pixels=pixels)
        return float(-np.log(np.clip(told[np.arange(len(some)), some.labels], _SMALLEST, None)).mean())

    return loss


def _some_images(work: Work) -> Split:
    """The train images that decide what goes."""
    train = work.context.dataset.train
    rng = np.random.default_rng(work.context.recipe.train.seed)
    chosen = np.sort(rng.permutation(len(train))[:_IMAGES])
    return Split(images=train.images[chosen], labels=train.labels[chosen])
