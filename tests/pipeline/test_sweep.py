"""`emb sweep`: shared work once, failures of single trials, kills, and the figures of its table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from emb.errors import EmbError, SpecError
from emb.pipeline.build import Order
from emb.pipeline.sweep import _configuration
from emb.pipeline.workers import make_ready
from emb.report.frontier import frontier
from emb.spec.fit import Estimate
from emb.spec.overview import Entry
from emb.spec.report import Row
from emb.spec.sweep import Grid, Trial

SHORT = ("--quantize", "int8", "--seeds", "2", "--epochs", "4", "--set", "export.formats=['tflite']")
GRID = (*SHORT, "--prune", "none,channels:0.5", "--prune-epochs", "2")
NAMES = ["none_seed-0", "channels-0.5_seed-0", "none_seed-1", "channels-0.5_seed-1"]


# The grid


def test_every_combination_is_one_trial_and_has_a_name_of_its_own() -> None:
    grid = Grid(widths=(0.5, 1.0, 0.5), prunings=("none", "channels:0.3"), targets=("rpi4", "a/b.toml"), seeds=3)
    trials = grid.trials()
    assert len(trials) == len(set(trials)) == 2 * 2 * 2 * 3
    names = [trial.name for trial in trials]
    assert len(set(names)) == len(names)
    assert all("/" not in name and ":" not in name for name in names)
    assert trials[0].name == "width-0.5_none_rpi4_seed-0"
    # Those that share a training stand together.
    changes = sum(one.trained_as != other.trained_as for one, other in pairwise(trials))
    assert changes == len({trial.trained_as for trial in trials}) - 1


def test_the_recipe_alone_is_one_trial() -> None:
    assert Grid().trials() == (Trial(width=None, pruning=None, target=None, seed=0),)


@pytest.mark.parametrize(("changes", "message"), [({"seeds": 0}, "seeds must"), ({"widths": (0.0,)}, "widths must")])
def test_no_grid_without_trials(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid(**changes)


def test_an_estimate_reaches_from_the_least_to_the_most_of_any_seed() -> None:
    def of_a_seed(lowest_us: float, highest_us: float) -> Entry:
        fields = {"file": "a", "format": "tflite", "scheme": "int8", "runtime": "litert", "mode": "default"}
        fields |= {"bytes": 9, "gzip_bytes": 9, "parameters": 9, "macs": 9, "accuracy": 0.9, "sha256": "", "source": ""}
        estimate = Estimate(lowest_us=lowest_us, highest_us=highest_us, source="a rate")
        row, nowhere = Row(**fields), {"build": "", "machine": "", "device": "", "smallest": False, "fastest": False}
        return Entry(**nowhere, target="rpi4", estimate=estimate, row=row)

    key = (None, None, "rpi4", "tflite", "int8", "litert")
    found = _configuration(key, [of_a_seed(3, 8), of_a_seed(2, 7)])
    assert found.estimate == Estimate(lowest_us=2, highest_us=8, source="a rate")
    assert found.to_json()["estimated_us"] == {"lowest_us": 2, "highest_us": 8, "source": "a rate"}
    nothing = replace(of_a_seed(1, 2), estimate=None)
    assert _configuration(key, [nothing]).estimate is None


def test_an_error_goes_whole_from_one_process_to_another() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(SpecError("what", why="why", fix="fix")))
    assert (type(error), error.what, error.why, error.fix) == (SpecError, "what", "why", "fix")
    assert isinstance(error, EmbError)


class Deadly:
    """Ends the process that receives it, after a mark in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"import os; open({str(self.path)!r}, 'a').write('x'); os._exit(3)",)


class Ends:
    """A listener that keeps what has ended."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def goes_on(self, name: str, stage: str, share: float | None) -> None: ...

    def has_ended(self, name: str, error: EmbError | None) -> None:
        self.names.append(name)


def test_an_order_whose_process_dies_is_tried_once_more(tmp_path: Path) -> None:
    orders: dict[str, Any] = {name: Order(recipe=Deadly(tmp_path / name)) for name in ("one", "two")}  # type: ignore[arg-type]
    ends = Ends()
    failures = make_ready(orders, processes=2, alone=["two"], listener=ends)
    assert sorted(ends.names) == sorted(failures) == ["one", "two"]
    assert all(failure.what == f"the process of {name} died twice" for name, failure in failures.items())
    assert [(tmp_path / name).read_text() for name in orders] == ["xx", "xx"]


# Real sweeps


@pytest.fixture(scope="module")
def swept(emb: Any) -> dict[str, Any]:
    return emb.json("sweep", "lenet", *GRID)


@pytest.mark.slow
def test_shared_work_is_done_once(emb: Any, swept: dict[str, Any]) -> None:
    assert [trial["name"] for trial in swept["trials"]] == NAMES
    assert swept["failures"] == {}
    stages = {
        name: json.loads((emb.home / f"sweeps/lenet/{name}/manifest.json").read_text())["stages"] for name in NAMES
    }
    for seed in "01":
        plain, pruned = stages[f"none_seed-{seed}"], stages[f"channels-0.5_seed-{seed}"]
        assert plain["model"]["files"]["model.keras"] == pruned["unpruned"]["files"]["model.keras"]
        assert plain["model"]["seconds"] == pruned["unpruned"]["seconds"]
    assert stages["none_seed-0"]["model"]["files"] != stages["none_seed-1"]["model"]["files"]
    assert swept["stage_seconds"] > 0


@pytest.mark.slow
def test_the_table_is_that_of_the_builds(emb: Any, swept: dict[str, Any]) -> None:
    reports = {name: json.loads((emb.home / f"sweeps/lenet/{name}/report.json").read_text()) for name in NAMES}
    assert len(swept["configurations"]) == 2 * 4  # prunings, and files on runtimes
    for one in swept["configurations"]:
        rows = [
            row
            for seed in (0, 1)
            for row in reports[f"{one['prune'].replace(':', '-')}_seed-{seed}"]["rows"]
            if (row["scheme"], row["runtime"], row["mode"]) == (one["scheme"], one["runtime"], "default")
        ]
        assert one["accuracies"] == [row["accuracy"] for row in rows]
        assert one["mean_accuracy"] == pytest.approx(sum(one["accuracies"]) / 2)
        assert one["bytes"] == pytest.approx(sum(row["bytes"] for row in rows) / 2)
        assert one["median_us"] == min(row["latency_us"]["median"] for row in rows)
    gains = [one["mean_accuracy"] for one in swept["configurations"]]
    for flag, key in (("on_size_frontier", "bytes"), ("on_latency_frontier", "median_us")):
        found = [one[flag] for one in swept["configurations"]]
        near = 0.01 if key == "median_us" else 0.0
        assert found == frontier([one[key] for one in swept["configurations"]], gains, equal_within=near)
        assert any(found)
    page = (emb.home / swept["page"]).read_text(encoding="utf-8")
    assert all(f"sweeps/lenet/{name}" in page for name in NAMES)
    kept = json.loads((emb.home / "sweeps/lenet/sweep.json").read_text())
    assert kept["configurations"] == swept["configurations"]


def figures(sweep: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Everything that does not depend on the machine's mood."""
    return [
        (one["prune"], one["scheme"], one["runtime"], *one["accuracies"], one["bytes"])
        for one in sweep["configurations"]
    ]


def workers_of(pid: int) -> list[int]:
    """The processes that were started by `pid` to make trials ready."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            command = (path / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if parent == pid and b"spawn_main" in command:
            found.append(int(path.name))
    return sorted(found)


@pytest.mark.slow
@pytest.mark.long
def test_killed_twice_and_a_worker_too_it_ends_as_if_it_had_not_been(emb: Any, swept: dict[str, Any]) -> None:
    """In a cache of its own, so that everything is done again; without pruning, for the sake of time."""
    command = emb.command("sweep", "lenet", *SHORT, "--prune", "none", "--output", "killed", "--json")
    environment = {**emb.environment, "EMB_CACHE_DIR": str(emb.home / "cache-of-killed")}

    def begin() -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=emb.home, env=environment, **pipes)

    def killed_while(what: str, process: subprocess.Popen[str]) -> None:
        while what not in (line := process.stderr.readline()):
            assert line, "it ended before"
        time.sleep(1.5)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL

    killed_while("trials, ", begin())
    killed_while("1/2 ", begin())
    with begin() as process:
        while "trials, " not in process.stderr.readline():
            pass
        while not (workers := workers_of(process.pid)):
            time.sleep(0.05)
        os.kill(workers[0], signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = json.loads(out)
    assert found["failures"] == {}
    assert figures(found) == [one for one in figures(swept) if one[0] == "none"]
    for name in NAMES[::2]:
        files = [
            json.loads((emb.home / place / name / "manifest.json").read_text())["files"]
            for place in ("killed", "sweeps/lenet")
        ]
        assert files[0]["lenet-int8.tflite"] == files[1]["lenet-int8.tflite"]


@pytest.mark.slow
def test_what_cannot_be_built_does_not_hinder_the_others(emb: Any, swept: dict[str, Any]) -> None:
    """A Cortex-M0 board has no room for LeNet beside its int8 runtime; the host does."""
    (emb.home / "tiny.toml").write_text((Path("targets") / "rp2040.toml").read_text().replace("270_336", "2_000"))
    done = emb.run(
        "sweep", "lenet", *SHORT, "--seeds", "1", "--target", "host,tiny.toml", "--output", "s", "--json", expect=1
    )
    found = json.loads(done.stdout)
    assert list(found["failures"]) == ["tiny.toml_seed-0"]
    assert (emb.home / "s/host_seed-0/report.json").is_file()
    assert not (emb.home / "s/tiny.toml_seed-0").exists()
    assert {one["target"] for one in found["configurations"]} == {"host"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--width", "0.5,wide"),
            "error: --width '0.5,wide' is no list of numbers\n  fix: separate them by commas: --width 0.5,1\n",
        ),
        (
            ("--prune", "none,channels:2"),
            "error: recipe lenet.toml with the options given has a fault\n"
            "  why: prune.goal: '2' must lie between 0 and 1\n  fix: correct them and try again\n",
        ),
        (
            ("--prune-epochs", "3"),
            "error: recipe lenet.toml with the options given has a fault\n"
            "  why: prune.epochs: needs a method, e.g. channels\n  fix: correct them and try again\n",
        ),
        (
            ("--target", "rpi44"),
            "error: unknown target 'rpi44'\n",
        ),
        (
            ("--output", "full"),
            "error: full holds something else than a sweep\n"
            "  why: emb replaces the whole directory and would delete it\n"
            "  fix: choose another place with --output, or empty it yourself\n",
        ),
    ],
)
def test_a_fault_is_told_before_any_work(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    (emb.home / "full").mkdir(exist_ok=True)
    (emb.home / "full/precious.txt").write_text("x")
    done = emb.run("sweep", "lenet", *arguments, expect=2)
    assert done.stderr.startswith(message)
    assert "trials" not in done.stderr
    assert [path.name for path in (emb.home / "full").iterdir()] == ["precious.txt"]
