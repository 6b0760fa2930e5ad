"""Which options of emb inspect go together: one view at a time, each with the options that are for it."""

from __future__ import annotations

from collections.abc import Mapping

from emb.errors import SpecError

TABLE = "the table of operations"
# What each option is for; TABLE is what is shown if no view is named.
_FOR: Mapping[str, tuple[str, ...]] = {
    "--output": ("--feature-maps",),
    "--classes": (TABLE, "--receptive-field"),
    "--data": ("--sensitivity", "--quantization-error"),
    "--rates": ("--sensitivity",),
    "--images": ("--quantization-error",),
    "--layers": ("--quantization-error",),
}
# One call draws both.
_PICTURES = {"--filters", "--feature-maps"}


def refuse_what_does_nothing(*, views: Mapping[str, bool], options: Mapping[str, bool]) -> None:
    """Raises SpecError for two views, or for an option that the view would pass over in silence.

    views, options: name -> whether it was given.
    """
    named = [view for view, given in views.items() if given]
    if len(named) > 1 and not set(named) <= _PICTURES:
        first, second = named[0], next(view for view in named[1:] if not {named[0], view} <= _PICTURES)
        raise SpecError(
            f"{first} and {second} cannot go together",
            why="each shows something else of a model",
            fix="call emb inspect once with each",
        )
    shown = named or [TABLE]
    for option in (option for option, given in options.items() if given):
        views_of = _FOR[option]
        if not set(views_of) & set(shown):
            others = [view for view in views_of if view != TABLE]
            fix = f"add {' or '.join(others)}, or leave {option} out" if shown == [TABLE] else f"leave {option} out"
            raise SpecError(f"{option} has nothing to do", why=f"it is for {' and '.join(views_of)}", fix=fix)
