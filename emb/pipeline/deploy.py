"""Brings bundles to boards, several at once: looks at each, copies, proves, switches. Knows how, not what ssh does."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emb.deploy.bundle import Bundle, open_bundle
from emb.deploy.look import BoardFacts, BoardPython, any_python, chosen_python, look
from emb.deploy.remote import ask
from emb.deploy.ssh import Ssh
from emb.errors import EmbError, ModelError, SpecError
from emb.pipeline.deliverable import located
from emb.pipeline.recipes import load_target
from emb.spec.bundle import MANIFEST, is_safe_name

_REQUIREMENTS = "requirements.txt"
_WHEELS = "wheels"
_MOST_AT_ONCE = 8

Tell = Callable[[str, str], None]
"""Gets a host and what happens there now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one host. answer: what the board said, None if it failed.  error: None if it did not."""

    host: str
    answer: Any = None
    error: EmbError | None = None

    def to_json(self) -> dict[str, Any]:
        """One entry of the document of `emb deploy --json`."""
        if self.error is not None:
            return {
                "host": self.host,
                "error": {"what": self.error.what, "why": self.error.why, "fix": self.error.fix},
            }
        return {"host": self.host, **self.answer}


def deploy(
    source: str,
    *,
    hosts: Sequence[str],
    tell: Tell,
    target: str | None = None,
    ssh_config: Path | None = None,
    vendor: bool = False,
    python: str | None = None,
    service: bool = False,
) -> tuple[Outcome, ...]:
    """Make a build or a bundle the current release of its name on every host.

    source: a build's directory or its name in builds/, or a bundle's directory or archive.
    target: what a build is bundled for, and what a bundle must be for.  vendor, python: as for `emb bundle`.
    service: also give it a socket of the board's systemd.
    A host that fails stands so in its outcome. Raises SpecError or ModelError for what concerns no host.
    """
    connections = [Ssh(host=host, config=ssh_config) for host in hosts]
    with _bundle(source, target=target, vendor=vendor, python=python) as bundle:
        return _on_each(connections, lambda ssh: _deploy_to(ssh, bundle, service=service, tell=tell))


def rollback(source: str, *, hosts: Sequence[str], tell: Tell, ssh_config: Path | None = None) -> tuple[Outcome, ...]:
    """Make the release current again that the current one replaced. source: as for `deploy`, or a release's name."""
    return _simply({"command": "rollback", "name": _name_of(source)}, hosts=hosts, tell=tell, ssh_config=ssh_config)


def releases(*, hosts: Sequence[str], tell: Tell, ssh_config: Path | None = None) -> tuple[Outcome, ...]:
    """What is deployed on every host."""
    return _simply({"command": "list", "name": ""}, hosts=hosts, tell=tell, ssh_config=ssh_config)


def prune(
    source: str | None, *, keep: int, hosts: Sequence[str], tell: Tell, ssh_config: Path | None = None
) -> tuple[Outcome, ...]:
    """Remove all but the `keep` latest releases, the current one and its predecessor. source: None for every name."""
    name = "" if source is None else _name_of(source)
    return _simply({"command": "prune", "name": name, "keep": keep}, hosts=hosts, tell=tell, ssh_config=ssh_config)


def _simply(
    request: dict[str, Any], *, hosts: Sequence[str], tell: Tell, ssh_config: Path | None
) -> tuple[Outcome, ...]:
    def act(ssh: Ssh) -> Any:
        python = any_python(look(ssh), host=ssh.host)
        return ask(ssh, python=python.path, request=request, tell=lambda words: tell(ssh.host, words))

    return _on_each([Ssh(host=host, config=ssh_config) for host in hosts], act)


def _on_each(connections: Sequence[Ssh], act: Callable[[Ssh], Any]) -> tuple[Outcome, ...]:
    def outcome(ssh: Ssh) -> Outcome:
        try:
            return Outcome(host=ssh.host, answer=act(ssh))
        except EmbError as error:
            return Outcome(host=ssh.host, error=error)

    with ThreadPoolExecutor(max_workers=min(_MOST_AT_ONCE, len(connections))) as pool:
        return tuple(pool.map(outcome, connections))


def _deploy_to(ssh: Ssh, bundle: Bundle, *, service: bool, tell: Tell) -> Any:
    facts = look(ssh)
    python = chosen_python(facts, bundle.manifest.requires, host=ssh.host)
    answer = ask(
        ssh,
        python=python.path,
        request=_request(bundle, python, service=service),
        tell=lambda words: tell(ssh.host, words),
        contents=bundle.contents,
    )
    return {"name": bundle.manifest.name, **answer, "board": _board(facts, python)}


def _board(facts: BoardFacts, python: BoardPython) -> dict[str, Any]:
    return {
        "model": facts.model,
        "architecture": facts.architecture,
        "glibc": facts.glibc,
        "python": python.version,
        "clock_is_wrong": facts.clock_is_wrong,
    }


def _request(bundle: Bundle, python: BoardPython, *, service: bool) -> dict[str, Any]:
    manifest = bundle.manifest
    for name in (_REQUIREMENTS, "run.py", "contract.json"):
        if name not in manifest.files:
            raise ModelError(f"{bundle.path} is no bundle to deploy", why=f"it holds no {name}", fix="make it again")
    copied_bytes = sum(entry.bytes for entry in manifest.files.values())
    # What decides an environment: what is to be installed, and the Python that it is made of.
    decisive = [manifest.files[_REQUIREMENTS].sha256, python.minor, python.path]
    return {
        "command": "deploy",
        "name": manifest.name,
        "digest": bundle.digest,
        "bundle_json": bundle.manifest_bytes.decode("utf-8"),
        "environment": {
            "key": hashlib.sha256("\n".join(decisive).encode()).hexdigest(),
            "requirements": _REQUIREMENTS,
            "wheels": _WHEELS if any(name.startswith(f"{_WHEELS}/") for name in manifest.files) else "",
            # The bundle counts room for its archive and its directory.
            "bytes": max(0, manifest.requires.free_bytes - 2 * copied_bytes),
        },
        "service": service,
    }


@contextmanager
def _bundle(source: str, *, target: str | None, vendor: bool, python: str | None) -> Iterator[Bundle]:
    path = located(Path(source))
    if not path.exists():
        raise ModelError(
            f"there is no build and no bundle {source}", fix="give a directory that emb build or emb bundle has made"
        )
    if not (path.is_dir() and (path / "contract.json").is_file() and not (path / MANIFEST).is_file()):
        if vendor or python is not None:
            raise SpecError(
                f"{'--vendor' if vendor else '--python'} does not apply to {source}",
                why="a bundle is what it is",
                fix="leave it out, or give the build",
            )
        bundle = open_bundle(path)
        if target is not None and load_target(target).name != bundle.manifest.target:
            raise SpecError(
                f"{source} is a bundle for {bundle.manifest.target}, not for {target}",
                fix=f"bundle the build for it: emb bundle BUILD --target {target}",
            )
        yield bundle
        return
    if target is None:
        raise SpecError(f"no target for {source}", why="a build is bundled for one", fix="add --target; emb targets")
    from emb.pipeline.bundle import bundle as make_bundle

    with tempfile.TemporaryDirectory(prefix="emb-") as folder:
        place = Path(folder) / "bundle"
        made = make_bundle(path, target=target, output_directory=place, vendor=vendor, python=python)
        yield open_bundle(made.directory)


def deployed_name(build: Path) -> str:
    """The name under which a build, or the build that a model file lies in, is deployed."""
    name = (build if build.is_dir() else build.parent).resolve().name
    if not is_safe_name(name):
        raise SpecError(f"a build called {name!r} is on no board", why="it cannot be bundled", fix="rename the build")
    return name


def _name_of(source: str) -> str:
    """The name under which `source` is deployed; a name that is nothing here may be one on the board."""
    path = located(Path(source))
    if (path / MANIFEST).is_file() or path.is_file():
        return open_bundle(path).manifest.name
    if (path / "contract.json").is_file():
        return deployed_name(path)
    if not is_safe_name(source):
        raise SpecError(f"{source!r} is no name of a release", fix="emb deploy --list shows the names")
    return source
