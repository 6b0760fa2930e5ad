"""What `emb zoo` says: the figures of every architecture, computed from its graph, beside those published.

Computes each architecture once and keeps its figures in the store. Types in no figure: see published.toml.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emb.graph.summary import LayerGroup, Summary, summarise
from emb.pipeline.published import CONVENTION, Architecture, Column, Figure, Layers, MemoryRow, StructureRow, published
from emb.pipeline.stage import code_digest, versions
from emb.pipeline.zoo_graph import graph_of
from emb.store import Step, Store

TOLERANCE_PERCENT = 2.0
"""A deviation above this needs its explanation."""

SMALL_KERNEL = 3
"""The longest side of what the lecture calls a small kernel."""

EXPLANATIONS = "docs/explanation/published-figures.md"

_FILE = "figures.json"
_CODE = ("zoo", "layers", "graph", "pipeline/zoo.py", "pipeline/zoo_graph.py")
_MEBIBYTE = 2**20
_FLOAT32_BYTES = 4

Value = bool | int | float | tuple[int, ...]
Figures = Mapping[str, Summary]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A published value and what the graph gives.

    figure: what is compared.  published: None if the source does not say.
    deviation_percent: of numbers, counted from the published one; None for anything else.
    explanation: the heading in docs/explanation/published-figures.md, or "".
    """

    figure: str
    published: Value | None
    computed: Value
    source: str = ""
    explanation: str = ""

    @property
    def deviation_percent(self) -> float | None:
        if any(value is None or isinstance(value, bool | tuple) for value in (self.published, self.computed)):
            return None
        return 100 * (self.computed - self.published) / self.published

    @property
    def agrees(self) -> bool:
        """Numbers: within the tolerance. Anything else: equal, or not published."""
        deviation = self.deviation_percent
        if self.published is None:
            return True
        return self.published == self.computed if deviation is None else abs(deviation) <= TOLERANCE_PERCENT

    def to_json(self) -> dict[str, Any]:
        deviation = self.deviation_percent
        return {
            "figure": self.figure,
            "published": self.published,
            "computed": self.computed,
            "deviation_percent": None if deviation is None else round(deviation, 4),
            "agrees": self.agrees,
            "source": self.source or None,
            "explanation": f"{EXPLANATIONS}#{self.explanation}" if self.explanation else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An architecture with its computed figures and what was published about it."""

    architecture: Architecture
    summary: Summary
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoo:
    """entries: every architecture.  The others: label -> the cells of the lecture's summary tables, in its order."""

    entries: tuple[Entry, ...]
    structure: Mapping[str, tuple[Comparison, ...]]
    memory: Mapping[str, tuple[Comparison, ...]]
    columns: Mapping[str, tuple[Comparison, ...]]

    def comparisons(self) -> Iterable[tuple[str, Comparison]]:
        """(architecture or label, comparison), all that there are."""
        for entry in self.entries:
            yield from ((entry.architecture.name, comparison) for comparison in entry.comparisons)
        for table in (self.structure, self.memory, self.columns):
            for label, cells in table.items():
                yield from ((label, comparison) for comparison in cells)


def zoo(*, store: Store | None = None, tell: Callable[[str], None] = lambda _: None) -> Zoo:
    """All figures. tell: hears the name of each architecture whose graph has to be built first.

    Raises StoreError if the store cannot be written, SpecError if a builder refuses its own arguments.
    """
    known = published()
    shelf = store or Store()
    figures = {entry.name: figures_of(entry, store=shelf, tell=tell) for entry in known.architecture}
    return Zoo(
        entries=tuple(
            Entry(
                architecture=entry,
                summary=figures[entry.name],
                comparisons=tuple(_compared(figure, figures[entry.name]) for figure in entry.figures),
            )
            for entry in known.architecture
        ),
        structure={row.label: _structure_row(row, figures) for row in known.structure},
        memory={row.label: _memory_row(row, figures) for row in known.memory},
        columns={column.label: _column(column, figures[column.architecture]) for column in known.column},
    )


def figures_of(architecture: Architecture, *, store: Store, tell: Callable[[str], None] = lambda _: None) -> Summary:
    """The figures of one architecture, from the store or from its graph, which is built without weights."""
    step = Step(
        name="zoo",
        parameters={
            "builder": architecture.builder,
            "arguments": dict(architecture.arguments),
            "input_shape": list(architecture.input_shape),
            "classes": architecture.classes,
        },
        tools=versions(("keras",)),
        code=code_digest(_CODE),
    )

    def work(folder: Path) -> None:
        tell(architecture.name)
        height, width, channels = architecture.input_shape
        graph = graph_of(
            architecture.builder,
            input_shape=(height, width, channels),
            classes=architecture.classes,
            arguments=architecture.arguments,
        )
        (folder / _FILE).write_text(json.dumps(asdict(summarise(graph))), encoding="utf-8")

    return _summary(json.loads(store.run(step, work).path(_FILE).read_text(encoding="utf-8")))


def document(found: Zoo) -> dict[str, Any]:
    """The figures as one JSON document."""
    return {
        "macs": CONVENTION,
        "tolerance_percent": TOLERANCE_PERCENT,
        "architectures": [_entry(entry) for entry in found.entries],
        "tables": {
            "structure": _table(found.structure),
            "parameter_memory": _table(found.memory),
            "layers": _table(found.columns),
        },
    }


def _entry(entry: Entry) -> dict[str, Any]:
    architecture = entry.architecture
    return {
        "name": architecture.name,
        "builder": architecture.builder,
        "arguments": dict(architecture.arguments),
        "input_shape": list(architecture.input_shape),
        "classes": architecture.classes,
        "computed": {**asdict(entry.summary), "parameter_bytes": parameter_bytes(entry.summary)},
        "published": [comparison.to_json() for comparison in entry.comparisons],
    }


def _table(table: Mapping[str, tuple[Comparison, ...]]) -> list[dict[str, Any]]:
    return [{"name": label, "figures": [cell.to_json() for cell in cells]} for label, cells in table.items()]


def parameter_bytes(summary: Summary) -> int:
    """Bytes of all parameters as float32."""
    return _FLOAT32_BYTES * summary.parameters


def _compared(figure: Figure, summary: Summary) -> Comparison:
    return Comparison(
        figure=figure.figure,
        published=figure.value,
        computed=getattr(summary, figure.figure),
        source=figure.source,
        explanation=figure.explanation,
    )


def _structure_row(row: StructureRow, figures: Figures) -> tuple[Comparison, ...]:
    summaries = [figures[name] for name in row.architectures]
    sides = [side for summary in summaries for kernel in summary.convolution.kernels for side in kernel]
    cells: tuple[tuple[str, Value | None, Value], ...] = (
        ("single_path", row.single_path, all(summary.single_path for summary in summaries)),
        ("small_kernels", row.small_kernels, max(sides) <= SMALL_KERNEL),
        ("depth", row.depth or None, tuple(summary.depth for summary in summaries)),
    )
    return _cells(cells, row.explained)


def _memory_row(row: MemoryRow, figures: Figures) -> tuple[Comparison, ...]:
    from emb.pipeline.published import architecture

    cells: tuple[tuple[str, Value, Value], ...] = (
        ("input", row.input, architecture(row.macs_of).input_shape[:2]),
        ("mebibytes", row.mebibytes, parameter_bytes(figures[row.memory_of]) / _MEBIBYTE),
        ("macs", row.macs, figures[row.macs_of].macs),
    )
    return _cells(cells, row.explained)


def _column(column: Column, summary: Summary) -> tuple[Comparison, ...]:
    from emb.pipeline.published import architecture

    convolution, dense = column.convolution, column.dense
    cells: tuple[tuple[str, Value, Value], ...] = (
        ("input", column.input, architecture(column.architecture).input_shape[:2]),
        ("convolution.layers", convolution.layers, summary.convolution.layers),
        ("convolution.depth", convolution.depth, summary.convolution_depth),
        *_group("convolution", convolution, summary.convolution),
        *_group("dense", dense, summary.dense),
        ("weights", column.weights, summary.convolution.weights + summary.dense.weights),
        ("macs", column.macs, summary.macs),
    )
    return _cells(cells, column.explained)


def _group(name: str, said: Layers, group: LayerGroup) -> tuple[tuple[str, Value, Value], ...]:
    """The rows of the convolutions or of the dense layers; the table gives the least and the most of a count."""
    strides = (("strides", said.strides, _sides(group.strides)),) if said.strides else ()
    layers = (("layers", said.layers, group.layers),) if name == "dense" else ()
    rows: tuple[tuple[str, Value, Value], ...] = (
        *layers,
        ("kernels", said.kernels, _sides(group.kernels)),
        ("channels", said.channels, _range(group.channels)),
        ("filters", said.filters, _range(group.filters)),
        *strides,
        ("weights", said.weights, group.weights),
        ("macs", said.macs, group.macs),
    )
    return tuple((f"{name}.{row}", one, other) for row, one, other in rows)


def _cells(cells: Iterable[tuple[str, Value | None, Value]], explained: Mapping[str, str]) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(figure=figure, published=said, computed=found, explanation=explained.get(figure, ""))
        for figure, said, found in cells
    )


def _sides(pairs: Iterable[tuple[int, int]]) -> tuple[int, ...]:
    """The sides of kernels or strides, each once."""
    return tuple(sorted({side for pair in pairs for side in pair}))


def _range(counts: tuple[int, ...]) -> tuple[int, ...]:
    """The least and the most, or the only one."""
    return counts if len(counts) < 2 else (counts[0], counts[-1])


def _summary(table: Mapping[str, Any]) -> Summary:
    """The Summary in its JSON form."""
    groups = {name: _layer_group(table[name]) for name in ("convolution", "dense")}
    return Summary(**{**table, **groups})


def _layer_group(table: Mapping[str, Any]) -> LayerGroup:
    tuples = {
        name: tuple(tuple(v) if isinstance(v, list) else v for v in table[name])
        for name in ("kernels", "channels", "filters", "strides")
    }
    return LayerGroup(**{**table, **tuples})
