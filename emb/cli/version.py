"""emb version."""

from __future__ import annotations

from emb.cli.options import Json


def version(as_json: Json = False) -> None:
    """Print emb's version."""
    from importlib.metadata import version as version_of

    from emb.cli.output import print_json

    number = version_of("emb")
    if as_json:
        print_json({"emb": number})
    else:
        print(f"emb {number}")
