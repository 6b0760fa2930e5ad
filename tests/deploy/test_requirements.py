"""What a bundle pins for the board, from the lock file that emb itself is installed from."""

from __future__ import annotations

import re
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement

from emb.deploy.requirements import (
    Pin,
    installed_bytes,
    least_glibc,
    lock_file,
    needed,
    pins_for,
    read_lock,
    requirements_text,
)
from emb.runtimes import RUNTIMES

LOCK = """\
alone==1.0 \\
    --hash=sha256:{a}
    # via emb (pyproject.toml)
ai-edge-litert==2.3.0 \\
    --hash=sha256:{a} \\
    --hash=sha256:{b}
    # via
    #   emb (pyproject.toml)
    #   ai-edge-quantizer
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:{a}
    # via tqdm
numpy==1.26.4 ; python_full_version < '3.12' \\
    --hash=sha256:{a}
    # via ai-edge-litert
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{b}
    # via ai-edge-litert
tqdm==4.70.1 \\
    --hash=sha256:{b}
    # via ai-edge-litert
""".format(a="a" * 64, b="b" * 64)


def lock() -> tuple[Pin, ...]:
    return read_lock(lock_file().read_text(encoding="utf-8"))


def test_a_lock_file_is_read() -> None:
    pins = read_lock(LOCK)
    assert [pin.name for pin in pins] == ["alone", "ai-edge-litert", "colorama", "numpy", "numpy", "tqdm"]
    assert pins[1] == Pin(
        name="ai-edge-litert",
        version="2.3.0",
        marker="",
        hashes=(f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"),
        wanted_by=("emb", "ai-edge-quantizer"),
    )
    assert pins[3].marker == "python_full_version < '3.12'"
    assert [pin.requirement for pin in pins_for(["litert"], pins)] == [
        "ai-edge-litert==2.3.0",
        "numpy==1.26.4 ; python_full_version < '3.12'",
        "numpy==2.5.5 ; python_full_version >= '3.12'",
        "tqdm==4.70.1",
    ]


def test_the_text_is_read_back() -> None:
    pins = pins_for(["litert"], read_lock(LOCK))
    text = requirements_text(pins)
    assert [(pin.requirement, pin.hashes) for pin in read_lock(text)] == [(pin.requirement, pin.hashes) for pin in pins]


@pytest.mark.parametrize("runtime", RUNTIMES.names())
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_nothing_that_a_runtime_needs_is_missing(runtime: str, python: str) -> None:
    """Against what the installed distributions say themselves."""
    pins = {pin.name: pin for pin in needed(pins_for([runtime], lock()), architecture="aarch64", python=python)}
    if runtime == "tflite-runtime" and python != "3.11":
        assert set(pins) == {"numpy"}
        return
    for pin in pins.values():
        assert pin.hashes
        for text in requires(pin.name) or []:
            wanted = Requirement(text)
            environment = {"extra": "", "python_version": python, "python_full_version": f"{python}.0"}
            if wanted.marker is None or wanted.marker.evaluate({**environment, "sys_platform": "linux"}):
                name = re.sub(r"[-_.]+", "-", wanted.name).lower()
                assert name in pins, f"{pin.name} needs {text}"


def test_every_runtime_has_its_wheels_known() -> None:
    for runtime in RUNTIMES.names():
        pins = pins_for([runtime], lock())
        assert re.fullmatch(r"2\.\d\d", least_glibc(pins, architecture="aarch64", pythons=["3.11"]))
        assert least_glibc(pins, architecture="any", pythons=["3.11"]) == ""
        assert installed_bytes([runtime]) > 100_000_000


def test_the_least_glibc_is_that_of_the_wheels_for_this_python() -> None:
    pins = pins_for(["litert", "tflite-runtime"], lock())
    assert least_glibc(pins, architecture="aarch64", pythons=["3.11", "3.12"]) == "2.34"
    assert least_glibc(pins, architecture="aarch64", pythons=["3.12", "3.13"]) == "2.27"
    assert least_glibc(pins, architecture="x86_64", pythons=["3.11"]) == "2.27"


def test_no_address_stands_in_a_bundle() -> None:
    text = requirements_text(pins_for(["litert", "tflite-runtime", "onnxruntime"], lock()))
    assert "://" not in text
    assert "index" not in text
