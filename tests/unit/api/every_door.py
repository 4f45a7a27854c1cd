"""Every door of a server with default settings, and who may be speaking there."""

import json
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from rerank_sidecar.api.doors import AnyDialect, Door, make_doors, open_dialects
from rerank_sidecar.settings import read_settings

SETTINGS = read_settings()
DOORS = make_doors(open_dialects(SETTINGS), SETTINGS)


def concrete(path: str) -> str:
    """Put names of this server into a path that has places for them."""
    return path.replace("{model:path}", "toy").replace("{version}", "1")


@dataclass(frozen=True)
class Caller:
    """A client of one dialect at one door, and what it sends."""

    door: Door
    dialect: AnyDialect

    @property
    def path(self) -> str:
        return concrete(self.door.path)

    @property
    def headers(self) -> dict[str, str]:
        return {"Api-Key": "a key"} if "api-key" in self.dialect.key_headers else {}

    @property
    def body(self) -> bytes:
        return json.dumps(dict(self.dialect.example)).encode()

    def __str__(self) -> str:
        return f"{self.dialect.name}:{self.path}"


CALLERS = [Caller(door, dialect) for door in DOORS for dialect in door.dialects]


def is_error_of(dialect: AnyDialect, response: httpx.Response) -> bool:
    """Tell whether an answer is JSON of the form in which a dialect tells errors."""
    assert response.headers["content-type"] == "application/json"
    body: Any = response.json()
    try:
        msgspec.convert(body, dialect.error_type)
    except msgspec.ValidationError:
        return False
    return bool(body)
