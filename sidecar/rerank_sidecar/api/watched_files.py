"""What is read from files that somebody else replaces while the server runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from rerank_sidecar.errors import InvalidSetting

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

_Stamps = tuple[tuple[int, ...] | None, ...]


class WatchedFiles(Generic[T]):
    """A value made from files, made again when one of them has changed.

    Whoever wants the value looks at the files first, which costs microseconds, so that a change
    counts from the next use on. Files that are half written or do not fit together leave the value
    as it is until they change again; that is logged once. May be used by several threads.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        """Read for the first time; `read` raises InvalidSetting where the files make no sense."""
        self._paths = paths
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._stamps()
        self._value = read()

    def current(self) -> T:
        """Give the value of the files as they are, or as they last made sense."""
        with self._lock:
            stamps = self._stamps()
            if stamps != self._seen:
                self._renew(stamps)
            return self._value

    def _renew(self, stamps: _Stamps) -> None:
        try:
            value = self._read()
        except InvalidSetting as error:
            _LOG.error("%s; what was read before stays in use", error.message)
        else:
            if self._stamps() != stamps:
                return  # not one state of the files but parts of two; the next use looks again
            self._value = value
            _LOG.info("read again: %s", ", ".join(map(str, self._paths)))
        self._seen = stamps

    def _stamps(self) -> _Stamps:
        return tuple(map(_stamp, self._paths))


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
