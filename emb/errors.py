"""What can go wrong, said so that the reader can mend it. Knows nothing of the rest of emb.

EmbError                 anything that emb tells its user; the CLI prints it and exits with `exit_code`
├── SpecError            a recipe, target or option is wrong                              exit 2
├── DataError            a data set is missing, damaged or unfit                          exit 2
├── ModelError           a model file is missing, damaged, unsafe or does not fit         exit 2
├── StoreError           the cache or an output directory cannot be read or written       exit 2
├── BoardError           a board cannot be reached or does not fit; nothing was changed   exit 2
├── DeployError          a deploy failed on a board; what ran there before still does     exit 1
├── ExportError          a converter could not make the file, or made one that breaks a rule   exit 1
└── RuntimeFailure       a runtime crashed, hung or refused a model                       exit 1
"""

from __future__ import annotations


class EmbError(Exception):
    """An error with a cause and a remedy.

    what: one sentence, what is wrong.  why: the cause, if it is known beyond `what`.
    fix: what the user can do now.
    """

    exit_code = 2

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        """Goes from one process to another whole: an exception would leave behind what is no positional argument."""
        return (_made, (type(self), self.what, self.why, self.fix))

    def __str__(self) -> str:
        lines = [self.what]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)


def _made(kind: type[EmbError], what: str, why: str, fix: str) -> EmbError:
    return kind(what, why=why, fix=fix)


class SpecError(EmbError):
    """A recipe, a target or an option is wrong."""


class DataError(EmbError):
    """A data set is missing, damaged or unfit for the task."""


class ModelError(EmbError):
    """A model file is missing, damaged, unsafe to load or does not fit the data."""


class StoreError(EmbError):
    """The cache or an output directory cannot be read or written."""


class BoardError(EmbError):
    """A board cannot be reached, or does not fit what is to run there; nothing was changed on it."""


class DeployError(EmbError):
    """A deploy failed or was refused on the board after it began; what was current there still is."""

    exit_code = 1


class ExportError(EmbError):
    """A converter could not produce the file, or produced one that breaks a rule."""

    exit_code = 1


class RuntimeFailure(EmbError):
    """A runtime crashed, hung or refused a model; `why` holds its last words."""

    exit_code = 1
