"""emb targets."""

from __future__ import annotations

from emb.cli.options import Json


def targets(as_json: Json = False) -> None:
    """List the machines that emb can build for."""
    from emb.cli.output import print_json, stdout
    from emb.pipeline.recipes import load_target, target_names

    known = [load_target(name) for name in target_names()]
    if as_json:
        print_json(
            [
                {"name": t.name, "summary": t.summary, "processor": t.processor, "runtimes": list(t.runtimes)}
                for t in known
            ]
        )
        return
    from rich.table import Table

    table = Table("target", "machine", "runtimes", box=None, pad_edge=False)
    for target in known:
        table.add_row(target.name, target.summary, ", ".join(target.runtimes))
    stdout().print(table)
