"""`emb sweep --engine ray` on real clusters: a killed node, nodes with stores of their own, and bad addresses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed")

SHORT = ("--quantize", "int8", "--seeds", "2", "--epochs", "4", "--set", "export.formats=['tflite']")
# Ray's own defaults find a lost node after half a minute.
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 6}


@pytest.fixture(scope="module")
def here(emb: Any) -> dict[str, Any]:
    """The sweep that those on clusters must equal."""
    return emb.json("sweep", "lenet", *SHORT, "--output", "here")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """A head without CPUs, in whose cluster every node is a raylet of its own. Ends all that it started."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False, "_system_config": QUICK}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        yield cluster
    finally:
        cluster.shutdown()


def add_node(cluster: Any, cache: Path) -> Any:
    return cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, env_vars={"EMB_CACHE_DIR": str(cache)})


def begin(emb: Any, cluster: Any, *arguments: str, cache: Path) -> subprocess.Popen[str]:
    command = emb.command("sweep", "lenet", *arguments, "--engine", "ray", "--address", cluster.address, "--json")
    environment = {**emb.environment, "EMB_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        command, cwd=emb.home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def worker_in(cache: Path, process: subprocess.Popen[str]) -> int:
    """The process of Ray that is at a stage in this cache."""
    while True:
        assert process.poll() is None, process.stderr.read()
        if any(path.is_file() for path in (cache / "store/work").rglob("*")):
            for path in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    begun_there = bytes(cache) in (path / "environ").read_bytes()
                    if begun_there and (path / "cmdline").read_bytes().startswith(b"ray::build_on_node"):
                        return int(path.name)
        time.sleep(0.02)


def figures(sweep: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Everything that does not depend on the machine's mood."""
    return [(one["scheme"], one["runtime"], *one["accuracies"], one["bytes"]) for one in sweep["configurations"]]


def digest(emb: Any, output: str, name: str) -> str:
    return json.loads((emb.home / output / name / "manifest.json").read_text())["files"]["lenet-int8.tflite"]


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_node_costs_no_trial_and_doubles_none(
    emb: Any, here: dict[str, Any], cluster: Any, tmp_path: Path
) -> None:
    """One node works in the sweep's store, the other in its own; that is killed while it trains."""
    add_node(cluster, tmp_path / "cache")
    doomed = add_node(cluster, tmp_path / "own")
    with begin(emb, cluster, *SHORT, "--output", "killed", cache=tmp_path / "cache") as process:
        while not any(path.is_file() for path in (tmp_path / "own/store/work").rglob("*")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        cluster.remove_node(doomed, allow_graceful=False)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert not list((tmp_path / "own/store/artifacts").glob("*/history.json")), "it had been trained before the kill"
    found = json.loads(out)
    assert found["failures"] == {}
    assert [trial["name"] for trial in found["trials"]] == ["seed-0", "seed-1"]
    assert sorted(line.split()[1] for line in err.splitlines() if line[1:3] == "/2") == ["seed-0", "seed-1"]
    assert figures(found) == figures(here)
    assert all(digest(emb, "killed", name) == digest(emb, "here", name) for name in ("seed-0", "seed-1"))


@pytest.mark.slow
@pytest.mark.long
def test_a_node_with_a_store_of_its_own_gets_what_there_is_and_gives_what_it_makes(
    emb: Any, here: dict[str, Any], cluster: Any, tmp_path: Path
) -> None:
    """The unpruned network, trained already, goes there; the pruned one comes back, its process being killed once."""
    add_node(cluster, tmp_path / "own")
    pruning = ("--seeds", "1", "--prune", "channels:0.5", "--prune-epochs", "1")
    with begin(emb, cluster, *SHORT, *pruning, "--output", "pruned", cache=emb.home / "cache") as process:
        os.kill(worker_in(tmp_path / "own", process), signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert json.loads(out)["failures"] == {}
    there = {path.name: path for path in (tmp_path / "own/store/artifacts").iterdir()}
    both = [name for name in there if (emb.home / "cache/store/artifacts" / name / "manifest.json").is_file()]
    groups = set()
    for name in both:
        manifests = [
            json.loads((root / name / "manifest.json").read_text())
            for root in (tmp_path / "own/store/artifacts", emb.home / "cache/store/artifacts")
        ]
        assert manifests[0] == manifests[1]  # seconds and all: it was made once
        groups.add(manifests[0]["step"])
    assert {"train", "prune", "quantize", "verify"} <= groups
    assert sorted(both) == sorted(there)


@pytest.mark.slow
@pytest.mark.long
def test_the_trials_of_a_search_go_there_too(emb: Any, cluster: Any, tmp_path: Path) -> None:
    """To a node with a store of its own; the search judges and builds what comes back."""
    add_node(cluster, tmp_path / "own")
    search = ("--search", "--trials", "2", "--width", "0.3..0.4", "--constraint", "bytes<=1MB")
    short = ("--epochs", "1", "--set", "export.formats=['tflite']", "--output", "searched")
    with begin(emb, cluster, *search, *short, cache=emb.home / "cache") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    found = json.loads(out)
    assert [(trial["number"], trial["error"]) for trial in found["trials"]] == [(0, ""), (1, "")]
    assert len(list((tmp_path / "own/store/artifacts").glob("*/validation.json"))) == 2
    (best,) = found["best"]
    assert (emb.home / found["builds"][str(best)] / "lenet-int8.tflite").is_file()


# Faults


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--engine", "slurm"), "error: unknown engine 'slurm'\n  fix: known: local, ray\n"),
        (
            ("--address", "auto"),
            "error: --address does not apply to --engine local\n  fix: leave it out, or take --engine ray\n",
        ),
        (
            ("--engine", "ray", "--address", "somewhere"),
            "error: --address 'somewhere' is no address of a Ray cluster\n"
            "  fix: give auto, HOST:PORT (6379 unless it was started otherwise) or ray://HOST:PORT (10001)\n",
        ),
        (
            ("--engine", "ray", "--address", "127.0.0.1:PORT"),
            "error: there is no Ray cluster to reach at 127.0.0.1:PORT\n"
            "  why: connection refused\n"
            "  fix: start one (ray start --head), or check the address and the firewall; if it wants a token, set "
            "RAY_AUTH_MODE=token\n",
        ),
    ],
)
def test_a_fault_is_told_before_any_work(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    port = str(closed_port())
    given = [argument.replace("127.0.0.1:PORT", f"127.0.0.1:{port}") for argument in arguments]
    done = emb.run("sweep", "lenet", *SHORT, *given, "--output", "nothing", expect=2)
    assert done.stderr == message.replace("127.0.0.1:PORT", f"127.0.0.1:{port}")
    assert not (emb.home / "nothing").exists()


def test_without_ray_it_is_said_how_to_get_it() -> None:
    code = "import sys; sys.modules['ray'] = None; from emb.pipeline.ray_workers import require_ray; require_ray()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-2:] == [
        "emb.errors.SpecError: Ray is not installed",
        "  fix: pip install 'emb[ray]', or leave --engine ray out: this machine's processes do it",
    ]
