"""emb recipes."""

from __future__ import annotations

from emb.cli.options import Json


def recipes(as_json: Json = False) -> None:
    """List what `emb build` can build by name."""
    from emb.cli.output import print_json, stdout
    from emb.pipeline.recipes import load_recipe, recipe_names, shelf

    known = [load_recipe(name) for name in recipe_names()]
    if as_json:
        path = shelf("recipes")
        print_json([{"name": r.name, "summary": r.summary, "file": str(path / f"{r.name}.toml")} for r in known])
        return
    from rich.table import Table

    table = Table("recipe", "what it builds", "data", box=None, pad_edge=False)
    for recipe in known:
        table.add_row(recipe.name, recipe.summary, recipe.data.name)
    stdout().print(table)
