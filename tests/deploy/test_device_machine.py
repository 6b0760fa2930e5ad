"""What run.py reads of clock, temperature and power, from a tree of files as a Raspberry Pi 4 has it, and from none."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest

from emb import deploy

NOTHING = {
    "governor": None,
    "frequency_hz": None,
    "highest_frequency_hz": None,
    "temperature_c": None,
    "throttled": None,
}


def write(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_raspberry_pi(device: ModuleType, tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu/cpu"
    for number in range(2):
        write(
            tmp_path,
            **{
                f"{cpu}{number}/cpufreq/scaling_governor": "ondemand\n",
                f"{cpu}{number}/cpufreq/scaling_cur_freq": f"{600000 + number}\n",
                f"{cpu}{number}/cpufreq/cpuinfo_max_freq": "1500000\n",
            },
        )
    zone = "sys/class/thermal/thermal_zone"
    write(tmp_path, **{f"{zone}0/temp": "48686\n", f"{zone}0/type": "cpu-thermal\n"})
    write(tmp_path, **{f"{zone}1/temp": "-1000\n", f"{zone}1/type": "cpu-thermal\n"})
    write(tmp_path, **{f"{zone}2/temp": "broken\n", f"{zone}2/type": "other\n"})
    write(tmp_path, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"})
    state = device.board_state(tmp_path)
    del state["load_average"]
    assert state == {
        "governor": "ondemand",
        "frequency_hz": [600_000_000, 600_001_000],
        "highest_frequency_hz": [1_500_000_000, 1_500_000_000],
        "temperature_c": {"cpu-thermal": 48.686, "cpu-thermal (thermal_zone1)": -1.0},
        "throttled": {
            "raw": 0x50005,
            "under_voltage": True,
            "frequency_capped": False,
            "throttled": True,
            "soft_temperature_limit": False,
            "under_voltage_since_boot": True,
            "frequency_capped_since_boot": False,
            "throttled_since_boot": True,
            "soft_temperature_limit_since_boot": False,
        },
    }


def test_what_is_not_told_is_none(device: ModuleType, tmp_path: Path) -> None:
    state = device.board_state(tmp_path)
    del state["load_average"]
    assert state == NOTHING


def test_sensors_of_power(device: ModuleType, tmp_path: Path) -> None:
    hwmon = "sys/class/hwmon/hwmon"
    write(tmp_path, **{f"{hwmon}0/name": "cpu_thermal\n", f"{hwmon}0/temp1_input": "48686\n"})
    write(tmp_path, **{f"{hwmon}1/name": "ina226\n", f"{hwmon}1/power1_input": "3275000\n"})
    write(tmp_path, **{f"{hwmon}2/power1_input": "1500000\n", f"{hwmon}2/power1_label": "5V in\n"})
    write(tmp_path, **{f"{hwmon}3/name": "ina226\n", f"{hwmon}3/power1_input": "125000\n"})
    write(tmp_path, **{f"{hwmon}4/name": "broken\n", f"{hwmon}4/power1_input": "\n"})
    assert device.powers(tmp_path) == {"ina226": 3.275, "hwmon2 5V in": 1.5, "ina226 (hwmon3/power1_input)": 0.125}
    assert device.powers(tmp_path / "nothing") is None


@pytest.mark.parametrize("text", ["", "no", "throttled"])
def test_flags_that_are_no_number(device: ModuleType, tmp_path: Path, text: str) -> None:
    write(tmp_path, **{"sys/devices/platform/soc/soc:firmware/get_throttled": text})
    assert device.board_state(tmp_path)["throttled"] is None


def test_python_3_9_can_read_it() -> None:
    path = Path(deploy.__file__).parent / "device" / "run.py"
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [one.name for one in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy"}
    # A union of types is evaluated in annotations alone, which the future import keeps as text.
    assert "from __future__ import annotations" in path.read_text(encoding="utf-8")
