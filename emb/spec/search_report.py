"""What came of a search, as a value. Knows no way to run one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emb.spec.overview import Section
from emb.spec.report import Row
from emb.spec.search import Question, SearchTrial


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchReport:
    """trials: all that are finished, whoever made them.  best: numbers of those that keep all constraints and that none
    other dominates.  nearest: where there is none, the one that misses the constraints by the least.

    storage: without a password.  page: the HTML report of the builds, "" without any.
    builds: number of a trial -> directory of its build; `sections` are of these.  tests: number -> what the test images
    say of the file that the trial was judged by.  seconds: wall time of this run.
    """

    directory: str
    page: str
    study: str
    storage: str
    question: Question
    space: tuple[str, ...]
    trials: Sequence[SearchTrial]
    best: tuple[int, ...]
    nearest: SearchTrial | None
    sections: Sequence[Section]
    builds: Mapping[int, str]
    tests: Mapping[int, Row]
    machine: str
    seconds: float

    @property
    def winners(self) -> list[SearchTrial]:
        """The best, by the first objective."""
        numbered = {trial.number: trial for trial in self.trials}
        return [numbered[number] for number in self.best]

    def to_json(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "page": self.page,
            "study": self.study,
            "storage": self.storage,
            "objectives": [str(one) for one in self.question.objectives],
            "constraints": [one.text for one in self.question.constraints],
            "space": list(self.space),
            "trials": [
                {**trial.to_json(), "violations": self.question.violations(trial.metrics) if trial.metrics else {}}
                for trial in self.trials
            ],
            "best": list(self.best),
            "nearest": None if self.nearest is None else self.nearest.number,
            "builds": {str(number): build for number, build in self.builds.items()},
            "tests": {str(number): row.to_json() for number, row in self.tests.items()},
            "sections": [section.to_json() for section in self.sections],
            "machine": self.machine,
            "seconds": self.seconds,
        }
