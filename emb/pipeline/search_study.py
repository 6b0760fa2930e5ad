"""The trials of a search in its database: who takes which, and what came of them. Builds and measures nothing.

Several processes may share one. Each trial belongs to one of them; of one that died, another takes them over as they
are, so that a search of N trials has N, whatever happens to whom.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emb.pipeline.search_database import Database, explained_failure
from emb.spec.recipe import Scalar
from emb.spec.search import Question, SearchTrial
from emb.spec.space import Choice, Range, Space

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# So many suggestions in a row that were tried before end a search: there is hardly anything left.
MOST_REPEATS = 20
# Of a trial, beside what Optuna keeps.
_OWNER, _VALUES, _METRICS, _ERROR, _REPEATS = "owner", "values", "metrics", "error", "same_as"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A trial that this process is to make."""

    number: int
    values: Mapping[str, Scalar]


class Study:
    """A study of Optuna. Every method raises StoreError if the database cannot be reached any more."""

    def __init__(self, database: Database, *, name: str, question: Question, space: Space, seed: int) -> None:
        """name: of this question to this recipe; trials of another one are not to be mixed with it."""
        import optuna

        self._database = database
        self._question = question
        self._space = space
        self._seed = seed
        with self._exclusively():
            self._study = optuna.create_study(
                storage=database.storage,
                study_name=name,
                directions=[one.direction for one in question.objectives],
                load_if_exists=True,
            )

    def claim(self, most: int, *, total: int) -> list[Claim]:
        """At most so many trials for this process to make: first those that a dead process left, then new ones.

        total: of the search, whoever made them. None where all have been taken, or where nothing new is suggested.
        """
        with self._exclusively():
            trials = self._study.get_trials(deepcopy=False)
            left = [one for one in trials if not one.state.is_finished() and not self._is_taken(one)]
            claims = [self._taken(one) for one in left[:most]]
            size = self._space.size
            goal = total if size is None else min(total, size)
            while len(claims) < most and sum(not _repeats(one) for one in trials) < goal:
                if all(_repeats(one) for one in trials[-MOST_REPEATS:]) and len(trials) >= MOST_REPEATS:
                    break
                claim = self._suggested(trials)
                if claim is not None:
                    claims.append(claim)
                trials = self._study.get_trials(deepcopy=False)
        return claims

    def are_others_at_work(self) -> bool:
        """Whether another process that is alive is at a trial."""
        with self._exclusively():
            return any(not one.state.is_finished() for one in self._study.get_trials(deepcopy=False))

    def tell(self, claim: Claim, *, metrics: Mapping[str, float] | None = None, error: str = "") -> bool:
        """What came of it: the metrics, or why there are none. False if another process has taken it meanwhile."""
        with self._exclusively():
            frozen = self._frozen(claim.number)
            if frozen.state.is_finished() or frozen.user_attrs.get(_OWNER) != self._database.guard.owner:
                return False
            self._record(frozen, metrics=metrics, error=error)
        return True

    def trials(self) -> tuple[SearchTrial, ...]:
        """Those that are finished, each once."""
        with self._exclusively():
            found = self._study.get_trials(deepcopy=False)
        return tuple(_finished(one) for one in found if one.state.is_finished() and not _repeats(one))

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        with explained_failure(self._database.address), self._database.guard.exclusively():
            yield

    def _frozen(self, number: int) -> FrozenTrial:
        return next(one for one in self._study.get_trials(deepcopy=False) if one.number == number)

    def _is_taken(self, frozen: FrozenTrial) -> bool:
        """By a process that is alive. Without a name it was left while it was being taken."""
        owner = frozen.user_attrs.get(_OWNER)
        return owner is not None and self._database.guard.is_alive(owner)

    def _taken(self, frozen: FrozenTrial) -> Claim:
        self._study.sampler = self._sampler(frozen.number)
        return self._own(self._opened(frozen))

    def _suggested(self, trials: list[FrozenTrial]) -> Claim | None:
        """The next trial, or None if it is the same as an earlier one, whose result it has then."""
        import optuna

        self._study.sampler = self._sampler(len(trials))
        claim = self._own(self._study.ask())
        earlier = [one for one in trials if one.user_attrs.get(_VALUES) == claim.values and not _repeats(one)]
        if not earlier:
            return claim
        trial = self._opened(self._frozen(claim.number))
        trial.set_user_attr(_REPEATS, earlier[0].number)
        if earlier[0].state.is_finished():
            metrics, error = earlier[0].user_attrs.get(_METRICS), earlier[0].user_attrs.get(_ERROR, "")
            self._record(self._frozen(claim.number), metrics=metrics, error=error)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return None

    def _own(self, trial: optuna.Trial) -> Claim:
        """Draw what has not been drawn yet, and put this process's name on it, last."""
        values = {one.field: one.value_of(_drawn(trial, one.field, one.domain)) for one in self._space.parameters}
        trial.set_user_attr(_VALUES, values)
        trial.set_user_attr(_OWNER, self._database.guard.owner)
        return Claim(number=trial.number, values=values)

    def _record(self, frozen: FrozenTrial, *, metrics: Mapping[str, float] | None, error: str) -> None:
        import optuna

        trial = self._opened(frozen)
        if metrics is None:
            trial.set_user_attr(_ERROR, error)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        trial.set_user_attr(_METRICS, dict(metrics))
        for name, violation in self._question.violations(metrics).items():
            if name not in frozen.constraints:  # it may have been taken over from one that died here
                trial.set_constraint(name, violation)
        self._study.tell(trial, [metrics[one.metric.name] for one in self._question.objectives])

    def _opened(self, frozen: FrozenTrial) -> optuna.Trial:
        # Optuna has no other way to go on with a trial that another process began.
        import optuna

        return optuna.Trial(self._study, frozen._trial_id)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """For one trial. Its seed follows from the number, so that processes and repeated runs do not draw the same.

        TPE for several objectives too: within the hundred trials that a search has, a genetic algorithm has two
        generations.
        """
        import optuna

        seed = hashlib.sha256(f"{self._seed}:{number}".encode()).digest()[:4]
        return optuna.samplers.TPESampler(seed=int.from_bytes(seed, "big"), multivariate=True)


def _drawn(trial: optuna.Trial, field: str, domain: Range | Choice) -> Any:
    if isinstance(domain, Choice):
        return trial.suggest_categorical(field, domain.values)
    if domain.whole:
        return trial.suggest_int(field, int(domain.low), int(domain.high), log=domain.log)
    return trial.suggest_float(field, domain.low, domain.high, log=domain.log)


def _repeats(frozen: FrozenTrial) -> bool:
    return _REPEATS in frozen.user_attrs


def _finished(frozen: FrozenTrial) -> SearchTrial:
    return SearchTrial(
        number=frozen.number,
        values=frozen.user_attrs.get(_VALUES, {}),
        metrics=frozen.user_attrs.get(_METRICS, {}),
        error=frozen.user_attrs.get(_ERROR, ""),
    )
