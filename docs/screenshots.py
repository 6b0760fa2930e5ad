"""Makes the pictures of the docs: builds a small sweep on the embedded data and takes its HTML report in Chromium.

Needs Chromium on the PATH (apt install chromium). `make screenshots` runs it; the sweep takes about a minute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
SWEEP = ("sweep", "lenet", "--quantize", "float16,int8", "--width", "0.5,1", "--prune", "none,channels:0.5")
WIDTH, HEIGHT = 1100, 760


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("there is no Chromium: apt install chromium", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="emb-") as folder:
        subprocess.run([sys.executable, "-c", "from emb.cli import main; main()", *SWEEP], cwd=folder, check=True)
        _shoot(Path(folder) / "sweeps/lenet/report.html", chromium)
    return 0


def _shoot(page: Path, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    IMAGES.mkdir(exist_ok=True)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        for colours in ("light", "dark"):
            tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=colours)
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-drawn]", state="attached")
            tab.screenshot(path=IMAGES / f"report-{colours}.png")
        browser.close()


if __name__ == "__main__":
    raise SystemExit(main())
