"""Every path that takes requests by POST, and which dialects may be spoken on it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_sidecar.api.dialects import DIALECTS, Dialect
from rerank_sidecar.api.dialects.base import Headers
from rerank_sidecar.api.routing import BARE_PATHS, choose_dialect, read_shape
from rerank_sidecar.errors import InvalidSetting, RouteNotFound
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.settings import Settings

AnyDialect = Dialect[Any]

MODEL_MOUNT = "/models/{model:path}"
"""Before any other path it names the model, for clients that cannot send a name."""


@dataclass(frozen=True, slots=True)
class Door:
    """A path and who may be speaking on it.

    The first of `dialects` tells the errors of a request whose speaker is not known. If `guesses`
    is false it is the only one.
    """

    path: str
    dialects: tuple[AnyDialect, ...]
    guesses: bool = False

    @property
    def key_headers(self) -> tuple[str, ...]:
        """Give the headers that may carry a key, in lower case."""
        return tuple(dict.fromkeys(name for each in self.dialects for name in each.key_headers))

    def dialect_of(self, body: bytes, headers: Headers) -> AnyDialect:
        """Tell who is speaking.

        Raises:
            MalformedBody: nobody whom this path knows.
            RouteNotFound: somebody whose door is switched off.
        """
        if not self.guesses:
            return self.dialects[0]
        name = choose_dialect(self.path, read_shape(body), "api-key" in headers)
        for each in self.dialects:
            if each.name == name:
                return each
        raise RouteNotFound(f"the door {name}, which this body is for, is switched off")


def open_dialects(settings: Settings, only: Collection[str] | None = None) -> list[AnyDialect]:
    """Give the dialects that are served: all but `disabled_doors`, or of them only those named.

    A setting may name a dialect (`cohere_v1`) or all under a mount (`cohere`).

    Raises:
        InvalidSetting: `disabled_doors` names no door.
    """
    off = set(settings.disabled_doors)
    unknown = off.difference(*map(_names, DIALECTS))
    if unknown:
        raise InvalidSetting(f"disabled_doors: there is no door {_listed(unknown)}")
    return [
        each for each in DIALECTS if not off & _names(each) and (only is None or each.name in only)
    ]


def check_default(settings: Settings, info: RerankerInfo) -> None:
    """Refuse a default model with which Weaviate's door could never answer.

    Raises:
        InvalidSetting: its scores mean something only within one request, and the door is open.
    """
    if not info.comparable_across_requests and open_dialects(settings, ("weaviate",)):
        raise InvalidSetting(
            f"model: scores of {info.name} mean something only within one request, and Weaviate "
            "sends a search in several; make another model the default, or switch Weaviate's door "
            "off: disabled_doors, on the command line --disabled-doors weaviate"
        )


def make_doors(dialects: Sequence[AnyDialect], settings: Settings) -> list[Door]:
    """Give every door, the most usual path first.

    Raises:
        InvalidSetting: `pinned_paths` names a path or a dialect that is not served.
    """
    by_name = {each.name: each for each in dialects}
    pinned = _pinned(settings, by_name)
    return [
        *_bare_doors(by_name, pinned),
        *(Door(each.mount + path, (each,)) for each in dialects for path in each.paths),
    ]


def _bare_doors(
    dialects: Mapping[str, AnyDialect], pinned: Mapping[str, AnyDialect]
) -> Iterator[Door]:
    for path, names in BARE_PATHS.items():
        speakers = tuple(dialects[name] for name in names if name in dialects)
        if path in pinned:
            yield Door(path, (pinned[path],))
        elif speakers:
            yield Door(path, speakers, guesses=len(names) > 1)


def _pinned(settings: Settings, dialects: Mapping[str, AnyDialect]) -> dict[str, AnyDialect]:
    known = {each.name: each for each in DIALECTS}
    for path, name in settings.pinned_paths.items():
        if path not in BARE_PATHS:
            raise InvalidSetting(f"pinned_paths: no path {path}; there are {_listed(BARE_PATHS)}")
        if name not in known:
            raise InvalidSetting(f"pinned_paths: no dialect {name}; there are {_listed(known)}")
        if not _names(known[name]).isdisjoint(settings.disabled_doors):
            raise InvalidSetting(f"pinned_paths: {path} is pinned to {name}, which is disabled")
    # A listener that serves only some dialects leaves the others' pins to the main one.
    pins = settings.pinned_paths.items()
    return {path: dialects[name] for path, name in pins if name in dialects}


def _names(dialect: AnyDialect) -> set[str]:
    return {dialect.name, dialect.mount.removeprefix("/")} - {""}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
