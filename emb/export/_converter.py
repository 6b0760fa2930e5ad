"""Runs a converter with everything it prints kept in a log; its failure becomes an ExportError with its last words.

TensorFlow and its converters write to file descriptors from C++, so no Python stream can keep them quiet.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from emb.errors import EmbError, ExportError

_LAST_LINES = 8
_STDOUT, _STDERR = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ConverterLog:
    """What the converter has printed so far."""

    file: BinaryIO

    def text(self) -> str:
        """Everything printed up to now."""
        _flush()
        position = self.file.tell()
        self.file.seek(0)
        text = self.file.read().decode("utf-8", errors="replace")
        self.file.seek(position)
        return text


@contextlib.contextmanager
def converting(what: str, *, fix: str = "") -> Iterator[ConverterLog]:
    """Within the block, what is printed to stdout and stderr goes to the log, and warnings are not shown.

    what: the sentence of the ExportError that any exception but an EmbError becomes, with the log's last lines.
    Both descriptors belong to the whole process: another thread's output in the meantime lands in the log, too.
    """
    with printing_to_log() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield log
        except EmbError:
            raise
        except Exception as error:
            raise ExportError(what, why=last_words(error, log.text()), fix=fix) from error


def last_words(error: Exception, printed: str) -> str:
    """The exception's message and the last lines that were printed, without the routine ones."""
    message = (str(error).strip() or type(error).__name__).splitlines()
    if message[0] == "in user code:":  # TensorFlow's own traceback, the cause at its end
        message = message[-2:]
    lines = [line.rstrip() for line in printed.splitlines() if line.strip() and not _is_routine(line)]
    return "\n       ".join(line.strip() for line in [*message[:_LAST_LINES], *lines[-_LAST_LINES:]] if line.strip())


def _is_routine(line: str) -> bool:
    """glog's information and warnings: I0000 00:00:... and W0000 ...; TensorFlow prints dozens on every run."""
    return line[:1] in "IW" and line[1:5].isdigit()


@contextlib.contextmanager
def printing_to_log() -> Iterator[ConverterLog]:
    """Within the block, what is printed to stdout and stderr, from C++ too, goes to a log."""
    _flush()
    with tempfile.TemporaryFile() as file:
        saved = {descriptor: os.dup(descriptor) for descriptor in (_STDOUT, _STDERR)}
        try:
            for descriptor in saved:
                os.dup2(file.fileno(), descriptor)
            yield ConverterLog(file=file)
        finally:
            _flush()
            for descriptor, original in saved.items():
                os.dup2(original, descriptor)
                os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A stream may be absent (pythonw) or closed by a test's capture.
        with contextlib.suppress(AttributeError, ValueError, io.UnsupportedOperation):
            stream.flush()
