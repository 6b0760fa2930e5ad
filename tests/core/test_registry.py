"""A folder is a registry."""

from __future__ import annotations

import sys
import textwrap
from importlib.metadata import EntryPoint

import pytest

from emb import registry
from emb.errors import SpecError
from emb.registry import Registry


@pytest.fixture
def shop(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_private.py").write_text("")
    (folder / "small_net.py").write_text('"""A small net.\n\nMore."""\nVALUE = 7\n')
    (folder / "broken.py").write_text('"""Fails when imported."""\nraise RuntimeError("imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("shop", kind="model")
    for name in [name for name in sys.modules if name.startswith("shop")]:
        del sys.modules[name]


def test_names_are_file_names_and_nothing_is_imported(shop):
    assert shop.names() == ("broken", "small-net")
    assert shop.help("broken") == "Fails when imported."
    assert "shop.small_net" not in sys.modules


def test_a_name_is_imported_when_used(shop):
    assert shop.get("small-net").VALUE == 7


def test_an_unknown_name_offers_the_nearest(shop):
    with pytest.raises(SpecError) as raised:
        shop.get("smal-net")
    assert raised.value.what == "unknown model 'smal-net'"
    assert raised.value.fix == "did you mean 'small-net'? known: broken, small-net"


def test_entry_points_add_names_and_clashes_are_errors(tmp_path, monkeypatch, shop):
    (tmp_path / "foreign_net.py").write_text(textwrap.dedent('"""From elsewhere."""'))
    point = EntryPoint("their-net", "foreign_net", "shop")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "shop" else [])
    assert Registry("shop", kind="model").help("their-net") == "From elsewhere."
    clash = EntryPoint("small-net", "foreign_net", "shop")
    monkeypatch.setattr(registry, "entry_points", lambda group: [clash])
    with pytest.raises(SpecError, match="two models are called 'small-net'"):
        Registry("shop", kind="model").names()
