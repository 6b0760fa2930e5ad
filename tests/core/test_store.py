"""The store: one run per key, whole artifacts only, whatever is killed or damaged."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from emb.errors import StoreError
from emb.store import Packed, Step, Store, canonical_json, replace_directory


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def write(name: str, text: str):
    return lambda folder: (folder / name).write_text(text)


def test_a_step_runs_once(store: Store):
    calls = []
    step = Step(name="train", parameters={"epochs": 3})

    def work(folder: Path) -> None:
        calls.append(folder)
        (folder / "model").write_text("weights")

    first = store.run(step, work)
    second = store.run(step, work)
    assert len(calls) == 1
    assert (first.cached, second.cached) == (False, True)
    assert second.path("model").read_text() == "weights"
    assert first.digest == second.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "export"},
        {"inputs": {"data": "bb"}},
        {"parameters": {"epochs": 4}},
        {"tools": {"keras": "3.16"}},
        {"code": "cc"},
    ],
)
def test_every_field_that_decides_the_output_is_in_the_key(changed):
    fields = {
        "name": "train",
        "inputs": {"data": "aa"},
        "parameters": {"epochs": 3},
        "tools": {"keras": "3.15"},
        "code": "dd",
    }
    assert Step(**fields).key != Step(**{**fields, **changed}).key
    assert Step(**fields).key == Step(**fields).key


def test_the_manifest_is_the_provenance(store: Store):
    step = Step(name="train", inputs={"data": "aa"}, tools={"keras": "3"})
    manifest = json.loads((store.run(step, write("model", "x")).directory / "manifest.json").read_text())
    assert manifest["inputs"] == {"data": "aa"}
    assert manifest["tools"] == {"keras": "3"}
    assert list(manifest["files"]) == ["model"]


def test_the_digest_of_an_artifact_depends_on_its_content_alone(store: Store):
    one = store.run(Step(name="a"), write("f", "same"))
    two = store.run(Step(name="b"), write("f", "same"))
    three = store.run(Step(name="c"), write("f", "other"))
    assert one.digest == two.digest != three.digest


@pytest.mark.parametrize("damage", ["change", "remove", "manifest"])
def test_a_damaged_artifact_is_made_again(store: Store, damage: str):
    step = Step(name="train")
    made = store.run(step, write("model", "weights"))
    if damage == "change":
        made.path("model").write_text("rotten!")
    elif damage == "remove":
        made.path("model").unlink()
    else:
        (made.directory / "manifest.json").write_text("{")
    again = store.run(step, write("model", "weights"))
    assert not again.cached
    assert again.path("model").read_text() == "weights"


def test_a_failed_step_leaves_nothing(store: Store):
    step = Step(name="export")

    def work(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("converter died")

    with pytest.raises(RuntimeError, match="converter died"):
        store.run(step, work)
    assert store.find(step) is None
    assert list((store.root / "work").iterdir()) == []


def test_a_resumable_step_finds_what_it_left(store: Store):
    step = Step(name="train", resumable=True)

    def interrupted(folder: Path) -> None:
        (folder / "epoch-1").write_text("state")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.run(step, interrupted)

    def resumed(folder: Path) -> None:
        assert (folder / "epoch-1").read_text() == "state"
        (folder / "model").write_text("done")

    assert set(store.run(step, resumed).files) == {"epoch-1", "model"}


def test_a_killed_process_leaves_no_artifact_and_no_lock(store: Store):
    program = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from emb.store import Step, Store
        def work(folder):
            (folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
        Store(Path(sys.argv[1])).run(Step(name="export"), work)
    """)
    killed = subprocess.run([sys.executable, "-c", program, str(store.root)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.find(Step(name="export")) is None
    made = store.run(Step(name="export"), write("model", "whole"))
    assert list(made.files) == ["model"]


def test_two_processes_make_one_artifact(store: Store, tmp_path: Path):
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from emb.store import Step, Store
        def work(folder):
            with open(sys.argv[2], "a") as log:
                log.write("ran\\n")
            time.sleep(0.5)
            (folder / "model").write_text("x")
        Store(Path(sys.argv[1])).run(Step(name="train"), work)
    """)
    log = tmp_path / "log"
    arguments = [sys.executable, "-c", program, str(store.root), str(log)]
    both = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert log.read_text() == "ran\n"


def test_an_unwritable_store_says_so(tmp_path: Path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StoreError) as raised:
        Store(file / "store").run(Step(name="train"), write("model", "x"))
    assert raised.value.what == f"cannot write the cache {file / 'store'}"
    assert raised.value.why == "not a directory"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_says_so(store: Store):
    def work(folder: Path) -> None:
        with Path("/dev/full").open("w") as stream:
            stream.write("x")

    with pytest.raises(StoreError) as raised:
        store.run(Step(name="train"), work)
    assert raised.value.why == "no space left on device"
    assert raised.value.fix.startswith("free some space")


def test_canonical_json_refuses_what_has_no_one_text():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json(float("nan"))


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path):
    target = tmp_path / "builds" / "lenet-int8"
    replace_directory(target, write("old", "1"))
    replace_directory(target, write("new", "2"))
    assert [path.name for path in target.iterdir()] == ["new"]
    beside = [path.name for path in target.parent.iterdir() if path.name != ".lenet-int8.lock"]
    assert beside == ["lenet-int8"]


def test_a_failed_replacement_keeps_the_old_directory(tmp_path: Path):
    target = tmp_path / "build"
    replace_directory(target, write("old", "1"))

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no report")

    with pytest.raises(RuntimeError, match="no report"):
        replace_directory(target, fail)
    assert [path.name for path in target.iterdir()] == ["old"]


def test_a_file_in_the_way_is_not_removed(tmp_path: Path):
    target = tmp_path / "build"
    target.write_text("mine")
    with pytest.raises(StoreError, match="is not a directory"):
        replace_directory(target, write("new", "2"))
    assert target.read_text() == "mine"


def packed_step(store: Store) -> tuple[Step, Packed]:
    step = Step(name="train", inputs={"data": "aa"})

    def work(folder: Path) -> None:
        (folder / "logs").mkdir()
        (folder / "logs/log.txt").write_text("x")
        (folder / "model").write_text("weights")

    return step, store.pack(store.run(step, work).directory.name)


def test_what_one_store_packs_another_has(store: Store, tmp_path: Path):
    step, packed = packed_step(store)
    other = Store(tmp_path / "other")
    for _ in range(2):  # what is there stays
        other.put(packed)
    taken, given = other.find(step), store.find(step)
    assert taken is not None
    assert (taken.digest, taken.seconds) == (given.digest, given.seconds)
    assert taken.path("logs/log.txt").read_text() == "x"
    assert list((tmp_path / "other/work").iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda packed: {"key": "0" * 64},
        lambda packed: {"files": {**packed.files, "model": b"other weights"}},
        lambda packed: {"files": {"model": packed.files["model"]}},
        lambda packed: {"manifest": packed.manifest.replace(b'"train"', b'"prune"')},
        lambda packed: {"manifest": b"{}"},
        lambda packed: {
            "files": {"../model": packed.files["model"], "logs/log.txt": packed.files["logs/log.txt"]},
            "manifest": packed.manifest.replace(b'"model"', b'"../model"'),
        },
    ],
)
def test_what_is_no_whole_artifact_is_not_taken(store: Store, tmp_path: Path, change):
    _, packed = packed_step(store)
    other = Store(tmp_path / "other")
    with pytest.raises(StoreError) as caught:
        other.put(replace(packed, **change(packed)))
    assert caught.value.what.endswith("is damaged")
    assert not (tmp_path / "other").exists()


def test_what_is_not_there_cannot_be_packed(store: Store):
    with pytest.raises(StoreError, match="cannot read the cache"):
        store.pack("0" * 64)
