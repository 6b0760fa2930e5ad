"""The HTML report of real builds: what stands in the file, and what Chromium makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

MOST_BYTES = 2_000_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
# What Chromium would do in the background leaves the page, but is not the page's doing. As root it needs no sandbox.
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


@pytest.fixture(scope="module")
def builds(emb: Any, built: dict[str, Any]) -> tuple[str, str]:
    """The shared build, and one of the same training with other ranges and with the error of each layer."""
    emb.run("build", "lenet", "--quantize", "int8", "--calibration", "40", "--epochs", "6", "--output", "other")
    emb.run("inspect", "other", "--quantization-error", "--layers", "0")
    return "built", "other"


@pytest.fixture(scope="module")
def page(emb: Any, builds: tuple[str, str]) -> Path:
    done = emb.run("report", *builds, "--format", "html", "--output", "page.html")
    assert done.stdout == "page.html\n"
    return emb.home / "page.html"


@pytest.fixture(scope="module")
def rows(emb: Any, builds: tuple[str, str]) -> list[dict[str, Any]]:
    """The same rows, as `emb report --json` gives them."""
    (section,) = emb.json("report", *builds)["sections"]
    return section["rows"]


def lines_of(text: str) -> list[list[str]]:
    """The cells of the first table."""
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    return [
        list(map(unescape, re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line)))
        for line in body.splitlines()
        if line.startswith("<tr")
    ]


def test_the_figures_stand_in_the_page_without_scripts(page: Path, rows: list[dict[str, Any]]) -> None:
    lines = lines_of(page.read_text(encoding="utf-8"))
    assert len(lines) == len(rows)
    assert any(line[10] != "–" for line in lines)
    for line, row in zip(lines, rows, strict=True):
        assert line[:4] == [row["build"], row["file"], row["runtime"], f"{row['bytes']:,}"]
        if row["accuracy"] is None:
            assert (line[4], line[8], line[12]) == ("–", "–", row["source"])
            continue
        assert line[4] == f"{100 * row['accuracy']:.2f}"
        assert float(line[8].replace(",", "")) == pytest.approx(row["latency_us"]["median"], rel=0.006)
        # A file that runs too seldom in a tenth of a second has none.
        assert (line[10] == "–") == (row["latency_us"]["p99"] is None)
        assert line[12] == f"measured ({row['machine']})"


def test_the_page_needs_nothing_and_stays_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert "default-src 'none'" in text
    # The libraries name schemas and web pages in strings; no element of the page refers to anything.
    markup = re.sub(r"<script.*?</script>|<style.*?</style>", "", text, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href|action)=["'](?!data:)""", markup)
    assert not re.findall(r"https?:", markup)


def test_details_of_a_build(emb: Any, page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    kept = json.loads((emb.home / "other/quantization-error.json").read_text())
    assert "What int8 does to each layer" in text
    for layer in kept["layers"]:
        assert f'<th scope="row">{layer["layer"]}</th>' in text
    classes = json.loads((emb.home / "other/classes.json").read_text())
    assert len(classes["mistakes"]["pictures"]) >= 1
    for picture in classes["mistakes"]["pictures"]:
        assert f'alt="Test image {picture["image"]}"' in text
        assert (emb.home / "other" / picture["picture"]).is_file()
    manifest = json.loads((emb.home / "other/manifest.json").read_text())
    assert manifest["files"]["lenet-int8.tflite"] in text


def test_confusions_count_every_image(emb: Any, built: dict[str, Any]) -> None:
    classes = json.loads((emb.home / "built/classes.json").read_text())
    by_way = {(row["file"], row["runtime"], row["mode"]): row for row in built["rows"]}
    assert len(classes["rows"]) == sum(row["accuracy"] is not None for row in built["rows"])
    for found in classes["rows"]:
        row = by_way[found["file"], found["runtime"], found["mode"]]
        assert sum(count for *_, count in found["confusion"]) == built["data"]["test_images"]
        right = sum(count for label, answer, count in found["confusion"] if label == answer)
        assert right / built["data"]["test_images"] == pytest.approx(row["accuracy"])
        assert row["accuracy"] <= row["top5"] <= 1
        assert 0 <= row["expected_calibration_error"] <= 1


@pytest.fixture(scope="module")
def aimed(emb: Any, builds: tuple[str, str]) -> Path:
    """A page of three builds for targets and one for none. What is estimated is made up; the builds are real."""
    made = {
        "npu": ("imx93", 0.0, {"npu": {"latency_us": 48.2, "cycles": 48_200, "compiler": "Vela 5"}}),
        "slow": ("rpi4", 0.0, {"latency_us": {"lowest_us": 120.0, "highest_us": 410.0, "source": "MACs at a rate"}}),
        "fast": ("rpi4", 0.03, {"latency_us": {"lowest_us": 80.0, "highest_us": 150.0, "source": "MACs at a rate"}}),
    }
    for name, (target, less_accurate, found) in made.items():
        shutil.copytree(emb.home / "other", emb.home / name)
        report = json.loads((emb.home / name / "report.json").read_text())
        report["target"] = {"name": target, "file": "lenet-int8.tflite", "latency_us": None, "npu": None, **NO_FAULT}
        report["target"] |= found
        for row in report["rows"]:
            row["accuracy"] -= less_accurate
        (emb.home / name / "report.json").write_text(json.dumps(report))
    emb.run("report", *made, "other", "--format", "html", "--output", "aimed.html")
    return emb.home / "aimed.html"


NO_FAULT = {"fits": True, "faults": [], "arena_bytes": None}


def test_estimates_stand_in_a_column_of_their_own(emb: Any, page: Path, aimed: Path) -> None:
    assert "estimated µs" not in page.read_text(encoding="utf-8")
    lines = lines_of(aimed.read_text(encoding="utf-8"))
    found = {(line[0], line[3], line[12]) for line in lines if line[1] == "lenet-int8.tflite"}
    assert found == {
        ("npu", "imx93", "48.2"),
        ("slow", "rpi4", "120–410"),
        ("fast", "rpi4", "80.0–150"),
        ("other", "", "–"),
    }
    assert {line[12] for line in lines if line[1] != "lenet-int8.tflite"} == {"–"}
    (section,) = emb.json("report", "slow", "other")["sections"]
    assert [row["estimated_us"] and row["estimated_us"]["highest_us"] for row in section["rows"]] == [
        410.0 if (row["build"], row["file"]) == ("slow", "lenet-int8.tflite") else None for row in section["rows"]
    ]


EVIL = "</script><img src=x onerror=alert(1)><!--"


@pytest.fixture(scope="module")
def evil(emb: Any, builds: tuple[str, str]) -> Path:
    """Class names come from a folder's directories, and may hold anything."""
    shutil.copytree(emb.home / "other", emb.home / "evil")
    contract = json.loads((emb.home / "evil/contract.json").read_text())
    contract["labels"] = [f"{EVIL}{label}" for label in contract["labels"]]
    (emb.home / "evil/contract.json").write_text(json.dumps(contract))
    emb.run("report", "evil", "--format", "html", "--output", "evil.html")
    return emb.home / "evil.html"


def test_names_from_outside_are_text(evil: Path) -> None:
    text = evil.read_text(encoding="utf-8")
    assert EVIL not in text
    assert text.count("</script>") == 3


def test_a_page_of_many_builds_leaves_pictures_out(emb: Any, builds: tuple[str, str]) -> None:
    import numpy as np
    from PIL import Image

    names = []
    for number in range(24):
        names.append(f"many-{number}")
        shutil.copytree(emb.home / "other", emb.home / names[-1])
        for place, path in enumerate(sorted((emb.home / names[-1] / "mistakes").iterdir())):
            rng = np.random.default_rng((number, place))
            Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(path)
    emb.run("report", *names, "--format", "html", "--output", "many.html")
    text = (emb.home / "many.html").read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert "lie in many-23/mistakes; this page has no room for them" in text


def test_another_file_is_not_replaced(emb: Any, builds: tuple[str, str]) -> None:
    (emb.home / "mine.html").write_text("<p>mine</p>")
    done = emb.run("report", *builds, "--format", "html", "--output", "mine.html", expect=2)
    assert done.stderr == (
        "error: mine.html holds something else than a report of emb\n"
        "  why: emb would replace the file\n"
        "  fix: name another file with --output\n"
    )
    assert (emb.home / "mine.html").read_text() == "<p>mine</p>"
    done = emb.run("report", *builds, "--format", "html", "--output", "built", expect=2)
    assert done.stderr == "error: built is a directory\n  fix: name a file with --output\n"
    done = emb.run("report", *builds, "--output", "x.html", expect=2)
    assert done.stderr == "error: --output is for a page\n  why: all else is printed\n  fix: add --format html\n"


# In the browser


@dataclass
class Seen:
    """An open page, with all that it said and asked for."""

    page: Any
    said: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def require_quiet(self) -> None:
        assert self.said == []
        assert [url for url in self.requests if not url.startswith("data:")] == self.requests[:1]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *sandbox])
        yield started
        started.close()


@contextmanager
def opened(browser: Any, path: Path, *, width: int = 1200, colours: str = "light") -> Iterator[Seen]:
    """The page in a window of its own, drawn."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=colours)
    seen = Seen(page)
    page.on("console", lambda message: seen.said.append(message.text))
    page.on("pageerror", lambda error: seen.said.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-drawn]", state="attached")
    yield seen
    page.close()


@pytest.fixture
def seen(browser: Any, page: Path) -> Iterator[Seen]:
    with opened(browser, page) as open_page:
        yield open_page


def best_lines(seen: Seen) -> list[int]:
    return [int(line.get_attribute("data-row")) for line in seen.page.locator("tbody tr.best").all()]


@needs_browser
@pytest.mark.browser
def test_it_renders_quietly_and_asks_for_nothing(seen: Seen) -> None:
    assert seen.page.locator(".tradeoff .chart svg").count() == 1
    for summary in seen.page.locator("summary").all():
        summary.click()
    seen.page.wait_for_selector("details:last-of-type .confusion svg")
    assert seen.page.locator(".curves svg").count() == 2
    assert seen.page.locator(".confusion svg").count() == 2
    seen.require_quiet()


@needs_browser
@pytest.mark.browser
def test_names_from_outside_run_nothing(browser: Any, evil: Path) -> None:
    with opened(browser, evil) as seen:
        assert seen.page.locator("img[src=x]").count() == 0
        seen.require_quiet()


@needs_browser
@pytest.mark.browser
def test_the_frontier_is_that_of_emb_report(seen: Seen, rows: list[dict[str, Any]]) -> None:
    assert best_lines(seen) == [number for number, row in enumerate(rows) if row["on_size_frontier"]]
    seen.page.select_option("select[name=x]", "median_us")
    seen.page.wait_for_function("document.querySelector('.chart').textContent.includes('latency, median')")
    assert best_lines(seen) == [number for number, row in enumerate(rows) if row["on_latency_frontier"]]


@needs_browser
@pytest.mark.browser
def test_filters_and_axes(seen: Seen, rows: list[dict[str, Any]]) -> None:
    seen.page.select_option("select[name=runtime]", "onnxruntime")
    visible = [int(line.get_attribute("data-row")) for line in seen.page.locator("tbody tr[data-row]:visible").all()]
    wanted = [number for number, row in enumerate(rows) if row["runtime"] == "onnxruntime"]
    assert visible == wanted
    assert seen.page.locator(".tradeoff figcaption").text_content().startswith(f"{len(wanted)} shown, ")
    seen.page.select_option("select[name=runtime]", "")
    seen.page.select_option("select[name=y]", "expected_calibration_error")
    seen.page.wait_for_function("document.querySelector('.chart').textContent.includes('calibration error')")
    # Of errors, less is better.
    errors = {number: row["expected_calibration_error"] for number, row in enumerate(rows) if row["accuracy"]}
    assert min(errors, key=errors.__getitem__) in best_lines(seen)
    assert seen.page.is_checked("input[name=log]")
    seen.page.uncheck("input[name=log]")
    seen.page.select_option("select[name=x]", "peak_memory_bytes")
    seen.require_quiet()


@needs_browser
@pytest.mark.browser
def test_estimates_are_compared_for_one_target_alone(browser: Any, page: Path, aimed: Path) -> None:
    with opened(browser, page) as seen:
        assert seen.page.locator("select[name=x] option[value=estimated_us]").count() == 0
        assert seen.page.locator("select[name=target]").count() == 0
    with opened(browser, aimed) as seen:
        seen.page.select_option("select[name=x]", "estimated_us")
        seen.page.wait_for_function("document.querySelector('.chart').textContent.includes('estimated')")
        assert {seen.page.locator(f"tr[data-row='{line}'] th").text_content() for line in best_lines(seen)} == {
            *("npu", "slow", "fast")
        }
        assert "for the same target" in seen.page.locator(".tradeoff figcaption").text_content()
        seen.page.locator(".tradeoff .mark-symbol path[aria-roledescription=point]").last.hover()
        told = seen.page.locator("#vg-tooltip-element.visible").text_content()
        assert "time estimated: " in told
        assert "accuracy measured (" in told
        seen.page.select_option("select[name=target]", "rpi4")
        seen.page.wait_for_function("document.querySelector('figcaption').textContent.startsWith('4 shown, 4 on')")
        builds = seen.page.locator("tbody tr[data-row]:visible th").all_text_contents()
        assert set(builds) == {"slow", "fast"}
        seen.require_quiet()


@needs_browser
@pytest.mark.browser
def test_a_point_tells_what_it_is(seen: Seen, rows: list[dict[str, Any]]) -> None:
    seen.page.select_option("select[name=runtime]", "onnxruntime")
    seen.page.wait_for_timeout(300)
    seen.page.locator(".tradeoff .mark-symbol path[aria-roledescription=point]").last.hover()
    tooltip = seen.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    told = tooltip.text_content()
    assert "onnxruntime" in told
    assert any(row["file"] in told for row in rows)
    assert "measured" in told


@needs_browser
@pytest.mark.browser
def test_the_keyboard_is_enough(seen: Seen) -> None:
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.name") == "x"
    seen.page.keyboard.press("ArrowDown")
    assert seen.page.locator("select[name=x]").input_value() == "gzip_bytes"
    seen.page.wait_for_function("document.querySelector('.chart').textContent.includes('after gzip')")
    seen.page.locator("summary").first.focus()
    seen.page.keyboard.press("Enter")
    assert seen.page.locator("details").first.get_attribute("open") is not None


@needs_browser
@pytest.mark.browser
@pytest.mark.parametrize(("width", "colours"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_axe_finds_no_serious_fault(browser: Any, page: Path, width: int, colours: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    with opened(browser, page, width=width, colours=colours) as seen:
        seen.page.locator("summary").last.click()
        seen.page.wait_for_selector("details[open] .confusion svg")
        faults = Axe().run(seen.page).response["violations"]
        assert [(fault["id"], fault["impact"]) for fault in faults if fault["impact"] in ("serious", "critical")] == []


@needs_browser
@pytest.mark.browser
def test_a_phone_scrolls_one_way_only(browser: Any, page: Path) -> None:
    with opened(browser, page, width=390) as seen:
        for summary in seen.page.locator("summary").all():
            summary.click()
        seen.page.wait_for_selector("details:last-of-type .confusion svg")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390


@needs_browser
@pytest.mark.browser
def test_print_shows_everything_on_white(browser: Any, page: Path) -> None:
    with opened(browser, page, colours="dark") as seen:
        seen.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        seen.page.emulate_media(media="print")
        assert seen.page.locator("details:not([open])").count() == 0
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        seen.page.wait_for_function(
            "getComputedStyle(document.querySelector('.chart svg .role-axis-label text')).fill === 'rgb(27, 27, 27)'"
        )
        assert not seen.page.locator("form.controls").is_visible()
