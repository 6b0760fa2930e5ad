"""`emb zoo`: what it says of every architecture, that each deviation is explained, what it does not compute twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import emb
from emb.pipeline.published import architecture, published
from emb.pipeline.zoo import EXPLANATIONS, Comparison, Zoo, document, figures_of, zoo
from emb.store import Store
from emb.zoo import ZOO, check_arguments

ROOT = Path(emb.__file__).parents[1]

# The counts that are published to the last parameter.
EXACT = {
    "lenet-caffe": 431_080,
    "alexnet": 60_965_224,
    "vgg-11": 132_863_336,
    "vgg-11-bn": 132_868_840,
    "vgg-13": 133_047_848,
    "vgg-13-bn": 133_053_736,
    "vgg-16": 138_357_544,
    "vgg-16-bn": 138_365_992,
    "vgg-19": 143_667_240,
    "vgg-19-bn": 143_678_248,
    "googlenet": 6_998_552,
    "googlenet-auxiliary": 13_378_280,
    "inception-v4": 42_679_816,
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    "densenet-121": 7_978_856,
    "densenet-169": 14_149_480,
    "densenet-201": 20_013_928,
}


def _headings() -> set[str]:
    """Anchors of the explanations, as a browser knows them."""
    text = (ROOT / EXPLANATIONS).read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _explanations() -> set[str]:
    """The headings that published.toml refers to."""
    known = published()
    tables = [table.explained for table in (*known.structure, *known.memory, *known.column)]
    figures = {figure.explanation for entry in known.architecture for figure in entry.figures}
    return (figures | {heading for table in tables for heading in table.values()}) - {""}


def test_every_builder_is_in_the_zoo() -> None:
    assert {entry.builder for entry in published().architecture} == set(ZOO.names())


@pytest.mark.parametrize("entry", published().architecture, ids=lambda entry: entry.name)
def test_every_entry_can_be_built_as_it_says(entry: Any) -> None:
    check_arguments(entry.builder, entry.arguments)
    assert len(entry.input_shape) == 3
    assert all(figure.value > 0 and figure.source for figure in entry.figures)


def test_explanations_and_headings_are_the_same() -> None:
    assert _explanations() == _headings()


@pytest.mark.slow
def test_figures_are_computed_once(tmp_path: Path) -> None:
    told: list[str] = []
    store = Store(tmp_path)
    first = figures_of(architecture("lenet"), store=store, tell=told.append)
    assert (first.trainable, first.macs, first.convolution_depth, first.depth) == (61_706, 416_520, 2, 5)
    assert first.single_path
    assert first.convolution.kernels == ((5, 5),)
    assert figures_of(architecture("lenet"), store=store, tell=told.append) == first
    assert told == ["lenet"]


def test_graphs_are_built_without_weights(tmp_path: Path) -> None:
    """And leave nothing behind that the next model of this process would have to initialize."""
    import keras

    found = figures_of(architecture("alexnet"), store=Store(tmp_path))
    assert found.trainable == 60_965_224
    # A scope of Keras's own gives values to all variables that wait for them; only this layer's may.
    layer = keras.layers.Dense(2)
    with keras.StatelessScope():
        layer.build((None, 3))
    assert layer.kernel.value.shape == (3, 2)


def test_deviations() -> None:
    off = Comparison(figure="macs", published=200, computed=205, explanation="lenet-5")
    assert off.to_json() == {
        "figure": "macs",
        "published": 200,
        "computed": 205,
        "deviation_percent": 2.5,
        "agrees": False,
        "source": None,
        "explanation": "docs/explanation/published-figures.md#lenet-5",
    }
    assert Comparison(figure="macs", published=200, computed=204).agrees
    assert Comparison(figure="kernels", published=(1, 5), computed=(1, 5)).agrees
    assert not Comparison(figure="kernels", published=(1, 4), computed=(1, 5)).agrees
    assert not Comparison(figure="single_path", published=True, computed=False).agrees
    assert Comparison(figure="depth", published=None, computed=(40,)).agrees


@pytest.fixture(scope="module")
def whole() -> Zoo:
    """All of it, kept in the store of the tests."""
    return zoo()


@pytest.mark.slow
def test_every_deviation_is_explained_and_nothing_else_is(whole: Zoo) -> None:
    compared = list(whole.comparisons())
    assert len(compared) > 150
    unexplained = [(name, one.figure) for name, one in compared if not one.agrees and not one.explanation]
    assert unexplained == []
    needless = [(name, one.figure) for name, one in compared if one.agrees and one.explanation]
    assert needless == []


@pytest.mark.slow
def test_published_counts_are_met_exactly(whole: Zoo) -> None:
    found = {entry.architecture.name: entry.summary.trainable for entry in whole.entries}
    assert {name: found[name] for name in EXACT} == EXACT
    said = {
        entry.architecture.name: comparison.published
        for entry in whole.entries
        for comparison in entry.comparisons
        if comparison.figure == "trainable" and entry.architecture.name in EXACT
    }
    assert said == EXACT
    by_name = {entry.architecture.name: entry.summary for entry in whole.entries}
    rounded = [
        (entry.architecture.name, one.figure)
        for entry in whole.entries
        for one in entry.comparisons
        if one.figure != "macs" and one.published != one.computed
    ]
    assert not {name for name, _ in rounded} & set(EXACT)
    # What is not met to the last parameter was published as a round number.
    values = {(entry.name, one.figure): one.value for entry in published().architecture for one in entry.figures}
    assert [name for name in rounded if values[name] % 10_000] == []
    assert by_name["inception-v3"].parameters == 23_851_784
    assert by_name["resnet-8"].parameters == 78_666


@pytest.mark.slow
def test_the_arithmetic_of_the_explanations(whole: Zoo) -> None:
    """The figures that docs/explanation/published-figures.md works with are those of the graphs."""
    text = (ROOT / EXPLANATIONS).read_text(encoding="utf-8")
    by_name = {entry.architecture.name: entry.summary for entry in whole.entries}
    for name in (
        "lenet",
        "lenet-caffe",
        "alexnet",
        "inception-v2",
        "googlenet",
        "resnet-18",
        "resnet-34",
        "vgg-16",
        "densenet-121",
    ):
        assert f"{by_name[name].macs:,}" in text, name
    assert f"{by_name['densenet-100'].trainable:,}" in text
    assert f"{by_name['inception-v2'].trainable:,}" in text
    assert f"{by_name['inception-v2'].convolution.weights:,}" in text
    assert f"{by_name['googlenet-auxiliary'].parameters:,}" in text
    assert f"{by_name['vgg-16'].macs + 3 * (13_547_520 + 8_192) + 1_000 + 8 * 1_530_368:,}" in text
    assert f"{by_name['alexnet'].macs + 3 * 658_272 + 1_000 + 8 * 122_464:,}" in text
    separable, ordinary = (7 * 7 * 24 + 24 * 64) * 112**2, 7 * 7 * 3 * 64 * 112**2
    assert f"{by_name['inception-v2'].macs - separable + ordinary:,}" in text
    assert f"{13_600_000 - by_name['inception-v2'].trainable:,}" in text
    assert f"1 + 2 * 130 + 3 + 1 = {by_name['densenet-264'].depth}" in text
    assert f"1 + 2 * 58 + 3 + 1 = {by_name['densenet-121'].depth}" in text
    # GoogLeNet with poolings that round down.
    floored = 118_013_952 + 114_688 * 55**2 + 551_424 * 27**2 + 2_805_504 * 13**2 + 2_485_248 * 6**2
    assert f"{floored:,}" in text
    ceiled = 118_013_952 + 114_688 * 56**2 + 551_424 * 28**2 + 2_805_504 * 14**2 + 2_485_248 * 7**2
    assert ceiled == by_name["googlenet"].convolution.macs


def _run(*arguments: str) -> str:
    """stdout of `emb zoo` in a process of its own, which must import neither Keras nor numpy: all is in the store."""
    program = (
        "import sys\n"
        "from emb.cli import app\n"
        "try:\n"
        "    app(prog_name='emb')\n"
        "finally:\n"
        "    print(sorted({'keras', 'tensorflow', 'numpy'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "zoo", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "[]\n"
    return done.stdout


@pytest.mark.slow
def test_json_and_tables_of_the_command(whole: Zoo) -> None:
    found = json.loads(_run("--json"))
    assert found == json.loads(json.dumps(document(whole)))
    assert [entry["name"] for entry in found["architectures"]] == [entry.name for entry in published().architecture]
    alexnet = next(entry for entry in found["architectures"] if entry["name"] == "alexnet")
    assert alexnet["computed"]["parameter_bytes"] == 4 * 60_965_224
    assert alexnet["published"][0]["deviation_percent"] == 0
    assert len(found["tables"]["layers"]) == len(published().column)
    text = _run()
    for part in (
        "138,357,544 =",
        "kernels of 3x3 at most",
        "121-265",
        "GoogLeNet v1",
        "depth in # of CONV layers",
        "lenet-5",
        "one MAC is one",
    ):
        assert part in text
