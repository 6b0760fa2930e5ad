"""The words of edgetpu_compiler, in texts of our own: see edgetpu_tool.py."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emb.deploy.edgetpu import DATA_TYPE, MAPPED, RANK, SECOND_SUBGRAPH, UNSPECIFIED, UNSUPPORTED
from emb.deploy.edgetpu_log import Row, parse, reason_of
from emb.errors import ExportError

_SPEC = importlib.util.spec_from_file_location("edgetpu_tool", Path(__file__).with_name("edgetpu_tool.py"))
texts = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(texts)

VERSION_OF_OPERATION = "Operation version not supported"
ROWS = [
    ("CONV_2D", 11, MAPPED),
    ("CONV_2D", 2, SECOND_SUBGRAPH),
    ("LOCAL_RESPONSE_NORMALIZATION", 1, UNSUPPORTED),
    ("DEQUANTIZE", 2, DATA_TYPE),
    ("RESIZE_NEAREST_NEIGHBOR", 1, VERSION_OF_OPERATION),
    ("RELU_N1_TO_1", 1, UNSPECIFIED),
    ("RESHAPE", 2, RANK),
    ("MAX_POOL_2D", 123, MAPPED),
]


def test_every_row_with_its_status_and_the_sizes_in_bytes() -> None:
    found = parse(
        output=texts.output(ROWS, on_chip="6.89MiB", off_chip="175.00KiB", subgraphs=2), log=texts.table(ROWS)
    )
    assert found.rows == tuple(Row(kind=kind, count=count, status=status) for kind, count, status in ROWS)
    assert found.version == "16.0.384591198"
    assert found.on_chip_bytes == round(6.89 * 2**20)
    assert found.off_chip_bytes == 175 * 2**10
    assert found.subgraphs == 2
    assert (found.operations, found.mapped) == (143, 134)
    assert found.lost == {kind for kind, _, status in ROWS if status != MAPPED}


@given(
    rows=st.lists(
        st.tuples(
            st.from_regex(r"[A-Z][A-Z0-9_]{0,40}", fullmatch=True),
            st.integers(1, 99_999),
            st.sampled_from(sorted({status for _, _, status in ROWS})),
        ),
        max_size=12,
    )
)
def test_any_table_is_read_back(rows: list[tuple[str, int, str]]) -> None:
    """Kinds and counts of any length; the columns are told apart by blanks."""
    found = parse(output=texts.output(rows), log=texts.table(rows))
    assert [(row.kind, row.count, row.status) for row in found.rows] == rows
    assert found.mapped == sum(count for _, count, status in rows if status == MAPPED)


@pytest.mark.parametrize(
    ("said", "count_bytes"),
    [("0.00B", 0), ("512.00B", 512), ("66.00KiB", 67_584), ("1.02 MiB", 1_069_548), ("1.50GiB", 1_610_612_736)],
)
def test_units(said: str, count_bytes: int) -> None:
    rows = [("CONV_2D", 1, MAPPED)]
    assert parse(output=texts.output(rows, off_chip=said), log=texts.table(rows)).off_chip_bytes == count_bytes


@pytest.mark.parametrize(
    "label",
    [
        "On-chip memory used for caching model parameters",
        "Off-chip memory used for streaming uncached model parameters",
        "Number of Edge TPU subgraphs",
        "Total number of operations",
    ],
)
def test_a_line_that_is_missing_is_named(label: str) -> None:
    rows = [("CONV_2D", 1, MAPPED)]
    printed = texts.output(rows)
    lines = [line for line in printed.splitlines() if not line.startswith(label)]
    assert len(lines) == len(printed.splitlines()) - 1
    with pytest.raises(ExportError) as caught:
        parse(output="\n".join(lines), log=texts.table(rows))
    assert str(caught.value) == (
        "what edgetpu_compiler says is not understood\n"
        f"  why: it does not say: {label}\n"
        "  fix: compile with its version 16.0, whose words emb knows; edgetpu_compiler --version"
    )


def test_a_table_that_does_not_hold_all_operations_is_refused() -> None:
    """As when a later version writes its rows in another way."""
    with pytest.raises(ExportError) as caught:
        parse(output=texts.output(ROWS), log=texts.table(ROWS).replace("MAX_POOL_2D ", "max pooling "))
    assert caught.value.why == "it counts 143 operations, and its table has 20"


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            texts.failure("Compilation failed due to large activation tensors in model."),
            "Compilation failed due to large activation tensors in model.",
        ),
        (texts.failure(""), "ERROR: Restored original execution plan after delegate application failure."),
        (
            "Edge TPU Compiler version 16.0\nCompilation timeout. This is usually caused by large activations.\n"
            "Compilation failed! \n",
            "Compilation timeout. This is usually caused by large activations.",
        ),
        ("Edge TPU Compiler version 14.1\nInternal compiler error. Aborting!\n", "Internal compiler error. Aborting!"),
        ("Invalid model: model.tflite\nModel not quantized\n", "Model not quantized"),
        ("", ""),
    ],
)
def test_why_it_failed(printed: str, reason: str) -> None:
    assert reason_of(printed) == reason
