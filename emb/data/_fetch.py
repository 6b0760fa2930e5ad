"""Downloads published files: checksum, progress, resume. Knows no data set and prints nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from emb.data._files import damaged
from emb.errors import DataError
from emb.store import explained

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int], None]

_TIMEOUT_SECONDS = 30
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A published file. urls: mirrors, tried in this order.  checksum: "sha256:..." or "md5:...".

    total_bytes: None if its publisher does not state it; the server is asked then.
    unpack: base names of the members to take out of it if it is a .tar.gz; the archive is then removed.
    """

    name: str
    urls: tuple[str, ...]
    total_bytes: int | None
    checksum: str
    unpack: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """The published files of a data set, and the folder below a data directory that they belong into.

    command: what fetches them, for messages; `emb data fetch <name>` by default.
    """

    folder: str
    files: tuple[RemoteFile, ...]
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """files: all of the data set's files, in `directory`.  downloaded: names of those that were not there before."""

    name: str
    directory: Path
    files: tuple[Path, ...]
    downloaded: tuple[str, ...]


def fetch_all(name: str, download: Download, *, directory: Path, progress: Progress | None) -> Fetched:
    """Every file of `download` in `directory / download.folder`, whole and with the published checksum.

    What an interrupted call left behind (`.<file>.part`) is continued. Two calls at once do the work once.
    Raises DataError without a connection or with a wrong checksum, StoreError if the folder cannot be written.
    """
    from filelock import FileLock

    folder = directory.absolute() / download.folder
    command = download.command or f"`emb data fetch {name}`"
    files: list[Path] = []
    downloaded: list[str] = []
    with explained("create", folder):
        folder.mkdir(parents=True, exist_ok=True)
    with explained("write into", folder), FileLock(folder / ".fetch.lock"):
        for remote in download.files:
            wanted = [folder / member for member in remote.unpack or (remote.name,)]
            if not _already_there(remote, wanted, command=command):
                archive = _download(name, remote, folder=folder, command=command, progress=progress)
                if remote.unpack:
                    _unpack(archive, members=remote.unpack)
                downloaded += [path.name for path in wanted]
            files += wanted
    return Fetched(name=name, directory=folder, files=tuple(files), downloaded=tuple(downloaded))


def _already_there(remote: RemoteFile, wanted: list[Path], *, command: str) -> bool:
    if not all(path.is_file() for path in wanted):
        return False
    if not remote.unpack:
        _require_published(remote, wanted[0], command=command)
    return True


def _require_published(remote: RemoteFile, path: Path, *, command: str) -> None:
    """Never overwrite what may be the user's own file."""
    import pooch

    algorithm, _, known = remote.checksum.partition(":")
    found = pooch.file_hash(str(path), alg=algorithm)
    if found != known:
        raise DataError(
            f"{path} is not the published file",
            why=f"its {algorithm} is {found} instead of {known}",
            fix=f"keep it if you put it there yourself; else delete it and run {command} again",
        )


def _download(name: str, remote: RemoteFile, *, folder: Path, command: str, progress: Progress | None) -> Path:
    """One file from the first mirror that delivers it intact."""
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # emb says itself what it does
    failures = []
    for url in remote.urls:
        part = _PartialDownload(remote, path=folder / f".{remote.name}.part", progress=progress)
        # A second try only if the first one continued a part that turned out to be worthless.
        for _ in range(2):
            try:
                pooch.retrieve(url, known_hash=remote.checksum, fname=remote.name, path=folder, downloader=part)
                return folder / remote.name
            except requests.RequestException as error:
                failures.append(f"{url}: {_reason(error, url)}")
                break
            except ValueError:
                if not part.resumed:
                    failures.append(f"{url}: what it delivers has not the published checksum {remote.checksum}")
                    break
    raise DataError(
        f"cannot download {remote.name} of {name}",
        why="; ".join(failures),
        fix=f"connect to the internet and run {command} again, it continues where it stopped; "
        f"or put {', '.join(remote.unpack or (remote.name,))} into {folder} by hand",
    )


class _PartialDownload:
    """A downloader for pooch that continues `path` by an HTTP Range request, and keeps it if the connection breaks."""

    def __init__(self, remote: RemoteFile, *, path: Path, progress: Progress | None) -> None:
        self._remote = remote
        self._path = path
        self._progress = progress
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        total_bytes = self._remote.total_bytes or _stated_bytes(url)
        have_bytes = self._path.stat().st_size if self._path.exists() else 0
        if have_bytes > total_bytes:
            have_bytes = 0
        self.resumed = have_bytes > 0
        if have_bytes < total_bytes:
            self._continue(url, have_bytes=have_bytes, total_bytes=total_bytes)
        # Whole now. pooch compares the checksum; if that is wrong, nothing of it must be continued.
        self._path.replace(output_file)

    def _continue(self, url: str, *, have_bytes: int, total_bytes: int) -> None:
        import requests
        from urllib3.exceptions import HTTPError

        # Identity: a server that compresses on its way would make Range and checksum meaningless.
        headers = {"Accept-Encoding": "identity"}
        if have_bytes:
            headers["Range"] = f"bytes={have_bytes}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._path.unlink(missing_ok=True)
            response.raise_for_status()
            self.resumed = response.status_code == requests.codes.partial_content
            done_bytes = have_bytes if self.resumed else 0
            self._check_length(response, left_bytes=total_bytes - done_bytes)
            try:
                with self._path.open("ab" if self.resumed else "wb") as stream:
                    for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
                        stream.write(chunk)
                        done_bytes += len(chunk)
                        if self._progress is not None:
                            self._progress(self._remote.name, done_bytes, total_bytes)
            except HTTPError as error:
                raise requests.ConnectionError(f"broke off after {done_bytes:,} bytes") from error
        if done_bytes < total_bytes:
            raise requests.ConnectionError(f"broke off after {done_bytes:,} bytes")

    def _check_length(self, response: requests.Response, *, left_bytes: int) -> None:
        """A login page of the network's or another version of the file is noticed before it is stored."""
        import requests

        offered = response.headers.get("Content-Length")
        if offered is not None and int(offered) != left_bytes:
            self._path.unlink(missing_ok=True)
            raise requests.ConnectionError(f"offers {int(offered):,} bytes where {left_bytes:,} are due")


def _stated_bytes(url: str) -> int:
    """How long the server says the file is."""
    import requests

    answer = requests.head(url, headers={"Accept-Encoding": "identity"}, allow_redirects=True, timeout=_TIMEOUT_SECONDS)
    answer.raise_for_status()
    if "Content-Length" not in answer.headers:
        raise requests.ConnectionError("the server does not say how long the file is")
    return int(answer.headers["Content-Length"])


def _reason(error: requests.RequestException, url: str) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code} {error.response.reason}"
    for kind, words in (
        (requests.exceptions.SSLError, "the secure connection was refused (certificate)"),
        (requests.exceptions.ProxyError, "the proxy does not answer"),
        (requests.Timeout, f"no answer within {_TIMEOUT_SECONDS} s"),
    ):
        if isinstance(error, kind):
            return words
    if error.args and isinstance(error.args[0], str):
        return error.args[0]
    return f"no connection to {urlsplit(url).hostname}"


def _unpack(archive: Path, *, members: tuple[str, ...]) -> None:
    """Take `members` out of a .tar.gz into its own folder, then remove it. Paths inside the archive are not used."""
    import tarfile
    import zlib

    folder = archive.parent
    parts: dict[str, Path] = {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:
                base = PurePosixPath(entry.name).name
                source = tar.extractfile(entry) if entry.isreg() and base in members else None
                if source is None:
                    continue
                parts[base] = folder / f".{base}.part"
                with source, parts[base].open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise damaged(archive, f"it cannot be unpacked: {error}", fix="delete it and fetch again") from error
    missing = [member for member in members if member not in parts]
    if missing:
        raise damaged(archive, f"it does not contain {', '.join(missing)}", fix="delete it and fetch again")
    for base, part in parts.items():
        part.replace(folder / base)
    archive.unlink()
