"""Asks pip's own resolver whether emb's dependencies can be installed on another Python version.

Usage: resolve.py 3.13 pyproject.toml    prints pip's installation report (JSON) on stdout.
pip evaluates markers for the Python it runs on, even with --python-version; the environment is therefore replaced.
"""

import sys
import tempfile
import tomllib
from pathlib import Path

from pip._internal.cli.main import main
from pip._vendor.packaging import markers

wanted, project = sys.argv[1], Path(sys.argv[2])
running = markers.default_environment()
markers.default_environment = lambda: {
    **running,
    "python_version": wanted,
    "python_full_version": f"{wanted}.0",
}
dependencies = tomllib.loads(project.read_text())["project"]["dependencies"]
with tempfile.TemporaryDirectory() as target:
    arguments = ["--dry-run", "--quiet", "--ignore-installed", "--only-binary=:all:", "--target", target]
    raise SystemExit(main(["install", *arguments, "--python-version", wanted, "--report", "-", *dependencies]))
