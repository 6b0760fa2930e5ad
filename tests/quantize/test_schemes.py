"""The registry of schemes: each describes itself, and listing them is light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from emb.quantize import SCHEMES
from emb.spec.scheme import Scheme


def test_names() -> None:
    assert SCHEMES.names() == ("dynamic", "float16", "float32", "int16x8", "int4w", "int8", "int8-qat", "int8-uint8")


@pytest.mark.parametrize("name", SCHEMES.names())
def test_a_scheme_is_what_its_file_is_called(name: str) -> None:
    scheme = SCHEMES.get(name).SCHEME
    assert isinstance(scheme, Scheme)
    assert scheme.name == name
    assert "tflite" in scheme.formats
    assert SCHEMES.help(name).endswith(".")
    assert scheme.calibrated == scheme.integer_only


def test_listing_the_schemes_imports_no_quantizer() -> None:
    code = (
        "import sys; from emb.quantize import SCHEMES; [SCHEMES.get(name) for name in SCHEMES.names()];"
        "print(sorted({'numpy', 'keras', 'tensorflow', 'onnx', 'onnxruntime', 'ai_edge_quantizer', 'ai_edge_litert'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
