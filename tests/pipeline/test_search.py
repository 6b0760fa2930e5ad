"""`emb sweep --search`: real searches, broken off and shared, judged by validation images alone."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emb.data import load
from emb.pipeline.recipes import load_recipe
from emb.pipeline.request import data_request
from emb.runtimes import open_runtime
from emb.spec.contract import Pixels

SHORT = ("sweep", "lenet", "--search", "--epochs", "2", "--set", "export.formats=['tflite']", "--trials", "4")
SPACE = ("--width", "0.3..0.6")
SEARCH = (*SHORT, *SPACE, "--constraint", "bytes <= 40kB", "--constraint", "latency<1s")


def steps_of(home: Path, name: str) -> list[dict[str, Any]]:
    """The artifacts of one step in the store."""
    manifests = [json.loads(path.read_text()) for path in (home / "cache/store/artifacts").glob("*/manifest.json")]
    return [manifest for manifest in manifests if manifest["step"] == name]


def begin(emb: Any, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(emb.command(*arguments), cwd=emb.home, env={**emb.environment, **environment}, **pipes)


def killed_after(what: str, process: subprocess.Popen[str]) -> None:
    while what not in (line := process.stderr.readline()):
        assert line, "it ended before"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture(scope="module")
def own(emb: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The command line with a cache of these tests alone."""
    return type(emb)(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def searched(own: Any) -> dict[str, Any]:
    """A search that was killed after its first batch."""
    killed_after("2/4  trial-1 ", begin(own, *SEARCH))
    return own.json(*SEARCH)


@pytest.mark.slow
def test_killed_it_goes_on_and_its_best_is_built(own: Any, searched: dict[str, Any]) -> None:
    assert [trial["number"] for trial in searched["trials"]] == [0, 1, 2, 3]
    assert all(trial["error"] == "" for trial in searched["trials"])
    assert all(0.3 <= trial["values"]["model.arguments.width"] <= 0.6 for trial in searched["trials"])
    assert all(trial["metrics"]["latency"] > 0 for trial in searched["trials"])
    (best,) = searched["best"]
    assert searched["trials"][best]["metrics"]["accuracy"] == max(
        trial["metrics"]["accuracy"] for trial in searched["trials"] if not any(trial["violations"].values())
    )
    build = own.home / searched["builds"][str(best)]
    report = json.loads((build / "report.json").read_text())
    (row,) = [
        row for row in report["rows"] if (row["scheme"], row["runtime"], row["mode"]) == ("int8", "litert", "default")
    ]
    assert searched["tests"][str(best)] == row
    assert (build / "lenet-int8.tflite").stat().st_size == searched["trials"][best]["metrics"]["bytes"]
    # The times that it was judged by are those of its build.
    assert row["latency_us"]["median"] == searched["trials"][best]["metrics"]["latency"]
    assert str(build.relative_to(own.home)) in (own.home / searched["page"]).read_text(encoding="utf-8")
    assert json.loads((own.home / "sweeps/lenet-search/search.json").read_text())["trials"] == searched["trials"]


@pytest.mark.slow
def test_trials_are_judged_by_validation_images_and_the_test_images_see_the_winner_alone(
    own: Any, searched: dict[str, Any]
) -> None:
    assert len(steps_of(own.home, "validate")) == 4
    assert len(steps_of(own.home, "reference")) == 1
    assert (
        len({step["inputs"]["int8.tflite"] for step in steps_of(own.home, "verify") if "int8.tflite" in step["inputs"]})
        == 1
    )
    (best,) = searched["best"]
    recipe = load_recipe("lenet")
    validation = load(recipe.data.name, data_request(recipe, data_dir=None)).validation
    with open_runtime("litert", model=own.home / searched["builds"][str(best)] / "lenet-int8.tflite") as process:
        scores = process.scores(validation.images, pixels=Pixels())
    share = 100 * float(np.mean(scores.argmax(axis=1) == validation.labels))
    assert searched["trials"][best]["metrics"]["accuracy"] == pytest.approx(share)


@pytest.mark.slow
def test_again_it_finds_everything_and_with_more_trials_goes_on(own: Any, searched: dict[str, Any]) -> None:
    trained = len(steps_of(own.home, "train"))
    again = own.json(*SEARCH)
    assert (again["trials"], again["best"], again["tests"]) == (
        searched["trials"],
        searched["best"],
        searched["tests"],
    )
    assert len(steps_of(own.home, "train")) == trained == 4


@pytest.mark.slow
def test_where_nothing_keeps_the_constraints_the_nearest_is_named(own: Any, searched: dict[str, Any]) -> None:
    """The same trials, as the first ones are drawn by their number alone; so all is in the cache."""
    constraint = ("--constraint", "bytes<=1kB", "--output", "none")
    done = own.run(*SHORT, *SPACE, *constraint, expect=1)
    smallest = min(searched["trials"], key=lambda trial: trial["metrics"]["bytes"])
    size = int(smallest["metrics"]["bytes"])
    assert "none of 4 trials keeps bytes<=1kB" in done.stdout
    assert (
        f"nearest: trial-{smallest['number']}, with bytes {size:,}, {size - 1000:,} bytes above the limit"
        in done.stdout
    )
    assert len(steps_of(own.home, "train")) == 4
    kept = json.loads((own.home / "none/search.json").read_text())
    assert (kept["best"], kept["nearest"], kept["builds"], kept["page"]) == ([], smallest["number"], {}, "")


@pytest.mark.slow
@pytest.mark.long
def test_where_no_trial_can_be_built_the_reason_is_told(own: Any) -> None:
    (own.home / "tiny.toml").write_text((Path("targets") / "rp2040.toml").read_text().replace("270_336", "2_000"))
    arguments = (
        "--vary",
        "train.batch_size=32,64",
        "--trials",
        "2",
        "--jobs",
        "1",
        "--target",
        "tiny.toml",
        "--output",
        "tiny",
    )
    done = own.run(*SHORT, *arguments, expect=2)
    assert "error: none of 2 trials could be built\n  why: trial-0: " in done.stderr
    assert not list((own.home / "tiny").glob("trial-*"))


@pytest.mark.slow
@pytest.mark.long
def test_two_share_a_search_on_postgresql_and_one_is_killed(own: Any, postgresql: Any) -> None:
    """No trial lost or doubled; with a cache of its own, so that each is really trained."""
    asked = (*SHORT, *SPACE, "--epochs", "1", "--jobs", "1", "--constraint", "bytes<=1kB", "--storage", postgresql.url)
    cache = {"EMB_CACHE_DIR": str(own.home / "shared")}
    one = begin(own, *asked, "--output", "one", **cache)
    other = begin(own, *asked, "--output", "other", "--json", **cache)
    killed_after("/4  trial-", one)
    out, err = other.communicate(timeout=600)  # where the dead one's trial was not seen to be free, for ever
    assert other.returncode == 1, err  # nothing is that small
    found = json.loads(out)
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert all(trial["metrics"] for trial in found["trials"])
    assert len({trial["values"]["model.arguments.width"] for trial in found["trials"]}) == 4
    assert found["storage"] == postgresql.shown
    assert postgresql.password not in out + err + (own.home / "other/search.json").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_a_database_that_goes_away_loses_nothing(own: Any, searched: dict[str, Any], postgresql: Any) -> None:
    """The first trials are those in the cache; the others take longer than a server to stop."""
    asked = (*SHORT, *SPACE, "--constraint", "bytes<=1kB", "--storage", postgresql.url, "--output", "gone")
    more = (*asked, "--trials", "12")
    process = begin(own, *more)
    while "4/12  trial-" not in process.stderr.readline():
        assert process.poll() is None
    postgresql.stop()
    try:
        _, err = process.communicate()
        unreachable = own.run(*asked[:-1], "never", expect=2).stderr
    finally:
        postgresql.start()
    assert process.returncode == 2
    assert f"error: the database {postgresql.shown} cannot be reached any more\n  why: " in err
    assert "\n  fix: run the same command again when it can: it goes on, and what was trained is in the cache\n" in err
    assert unreachable.startswith(f"error: cannot use the database {postgresql.shown}\n  why: ")
    assert "nothing has been trained yet" in unreachable
    assert not (own.home / "never").exists()
    found = json.loads(own.run(*asked, "--json", expect=1).stdout)["trials"]
    # It may have told some of the others before.
    assert [trial["metrics"]["bytes"] for trial in found[:4]] == [
        trial["metrics"]["bytes"] for trial in searched["trials"]
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--search", "--minimize", "latencyy"),
            "error: --minimize names an unknown metric: 'latencyy'\n"
            "  fix: did you mean 'latency'? known: accuracy, bytes, gzip_bytes, latency, macs, parameters\n",
        ),
        (
            ("--search", "--vary", "train.learning_rat=0.1..1"),
            "error: recipe lenet.toml with the options given has a fault\n"
            "  why: train.learning_rat: is unknown; did you mean 'learning_rate'?\n"
            "  fix: correct them and try again\n",
        ),
        (
            ("--search", "--vary", "train.momentum=0.5..1"),
            "error: recipe lenet.toml with the options given has a fault\n"
            "  why: train.momentum: must lie in [0, 1)\n"
            "  fix: correct them and try again\n",
        ),
        (
            ("--search", "--vary", "train.epochs=1.5..3"),
            "error: train.epochs is a whole number, which 1.5..3 is no range of\n"
            "  fix: write whole numbers as both ends, e.g. 2..8\n",
        ),
        (
            ("--search", "--vary", "train.optimizer=1..2"),
            "error: train.optimizer is no number, which 1..2 is a range of\n  fix: list its values: A,B,C\n",
        ),
        (
            ("--search", "--vary", "train.seed=0..9"),
            "error: a search cannot vary train.seed\n"
            "  why: it decides which images judge a trial, and trials of different ones cannot be compared\n"
            "  fix: vary something else; for several seeds of one build there is emb sweep --seeds\n",
        ),
        (
            ("--search", "--target", "rpi4,host"),
            "error: a search is for one target\n  why: --target names several: rpi4,host\n  fix: name one of them\n",
        ),
        (
            ("--search", "--seeds", "2"),
            "error: --seeds does not apply to a search\n  fix: build its best with several seeds afterwards\n",
        ),
        (
            ("--constraint", "bytes<=50kB"),
            "error: --constraint belongs to a search\n  fix: add --search, or leave it out\n",
        ),
    ],
)
def test_a_fault_is_told_before_any_work(emb: Any, arguments: tuple[str, ...], message: str) -> None:
    assert emb.run("sweep", "lenet", *arguments, expect=2).stderr == message
    assert not (emb.home / "sweeps/lenet-search").exists()
