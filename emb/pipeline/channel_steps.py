"""One step of channel pruning: what channels are worth, the search for the goal, the smaller model. Trains nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emb.errors import SpecError
from emb.pipeline.conversion import FEW_IMAGES, converted, time_share
from emb.pipeline.fine_tuning import opened, pixels_of
from emb.pipeline.json_files import read_json, replace_json
from emb.pipeline.stage import Work
from emb.spec.contract import Pixels
from emb.spec.scheme import Scheme

if TYPE_CHECKING:
    import keras

    from emb.prune.channels import Found, Scores

# As many images as emb.prune.channels looks at.
_IMAGES = 512
_SCHEME = "int8"
# A file's size is exact, unlike a latency: a search for it may go nearer.
_NEAR, _MOST_TRIES = 0.005, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStep:
    """plan: of emb.prune.channels, as JSON.  reached: what was measured of the goal, in words."""

    plan: dict[str, Any]
    reached: str


def channel_step(work: Work, folder: Path, *, model: Path, unpruned: Path, number: int) -> ChannelStep:
    """Prune `model` into `folder`/pruned.keras, unless an interrupted build has done that; number: of the step, from 1.

    Each step of several removes the same share of what is left.
    Raises SpecError for a goal that is out of reach, naming the nearest, ModelError if no channel can go.
    """
    note = folder / "step.json"
    if note.exists():
        return ChannelStep(**read_json(note))
    folder.mkdir(exist_ok=True)
    from emb.prune import channels

    prune = work.context.recipe.prune
    goal, part = prune.target, number / prune.steps
    network = opened(model, work.context)
    worth = _scores(network, work)
    if goal.kind == "macs":
        plan = channels.plan_for_macs(
            network,
            worth,
            removed=1 - (1 - goal.amount) ** part,
            scope=prune.scope,
            multiple=prune.multiple,
            macs_before=channels.macs(opened(unpruned, work.context)),
        )
        smaller, step = channels.smaller(network, plan), ChannelStep(plan=plan.to_json(), reached="")
    else:
        search = _to_bytes if goal.kind == "bytes" else _to_latency
        found, step = search(network, worth, work, unpruned=unpruned, amount=goal.amount, part=part)
        smaller = found.model
    smaller.save(folder / "pruned.keras")
    replace_json(note, asdict(step))
    return step


def _to_bytes(
    model: keras.Model, worth: Scores, work: Work, *, unpruned: Path, amount: float, part: float
) -> tuple[Found, ChannelStep]:
    """Every candidate is converted: no estimate decides that the goal is met."""
    from emb.prune import channels

    def size(candidate: keras.Model) -> float:
        return _measured(candidate, work, lambda path, pixels: path.stat().st_size)

    start = size(opened(unpruned, work.context)) if part < 1 else amount
    goal = start * (amount / start) ** part if start > amount else amount
    prune = work.context.recipe.prune
    found = channels.plan_for_goal(
        model,
        worth,
        scope=prune.scope,
        multiple=prune.multiple,
        cost=size,
        goal=goal,
        unit="bytes",
        per_weight=True,
        tolerance=_NEAR,
        most_tries=_MOST_TRIES,
    )
    reached = f"{found.cost:,.0f} bytes as int8 .tflite, after {len(found.tries)} conversions"
    return found, ChannelStep(plan=found.plan.to_json(), reached=reached)


def _to_latency(
    model: keras.Model, worth: Scores, work: Work, *, unpruned: Path, amount: float, part: float
) -> tuple[Found, ChannelStep]:
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

        goal, prune = (1 / amount) ** part, work.context.recipe.prune
        try:
            found = channels.plan_for_goal(
                model, worth, scope=prune.scope, multiple=prune.multiple, cost=share, goal=goal
            )
        except SpecError as error:
            if not shares or min(shares) <= goal:
                raise
            raise SpecError(
                f"{model.name} cannot be made {1 / goal:.3g}x as fast by pruning channels",
                why=f"the nearest that was reached is {1 / min(shares):.2f}x on one thread of LiteRT here, with as few "
                "as a tenth of the channels of every group",
                fix="choose a lower goal, or a smaller architecture",
            ) from error
    reached = f"{1 / found.cost:.2f}x as fast as the unpruned int8 .tflite, on one thread of LiteRT here"
    return found, ChannelStep(plan=found.plan.to_json(), reached=reached)


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

    recipe, train = work.context.recipe, work.context.dataset.train
    rng = np.random.default_rng(recipe.train.seed)
    chosen = np.sort(rng.permutation(len(train))[:_IMAGES])
    return channels.scores(
        model,
        criterion=recipe.prune.criterion,
        images=as_expected(train.images[chosen], pixels_of(recipe)),
        labels=train.labels[chosen],
    )
