"""Whatever is sent to a door, it answers as its dialect does, and never quotes what it was sent."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.api.every_door import CALLERS, DOORS, Caller, is_error_of
from tests.unit.api.toy_engine import Toy, client_of, engine_with

STATUSES = {200, 400, 404, 413, 422}
"""What a body alone can bring about; docs/errors.md and, per dialect, docs/doors.md have them."""

MARK = "an5wer"
"""In every text that is sent, so that an error which quotes one is seen."""

_CHARACTERS = st.characters(exclude_categories=())  # lone surrogates too
TEXTS = st.text(_CHARACTERS, max_size=8).map(lambda text: MARK + text) | st.sampled_from(
    ["", "true", "false", "END", "NONE", "left", "default", "text"]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | TEXTS
)
_NAMES = {name for caller in CALLERS for name in caller.dialect.message_type.__struct_fields__}
NAMES = st.sampled_from(sorted(_NAMES)) | st.text(_CHARACTERS, max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=3),
    max_leaves=8,
)

LEFT_OUT, DOUBLED = object(), object()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as each:
        yield each


@pytest.fixture(scope="module")
def client(runner: asyncio.Runner) -> Iterator[httpx.AsyncClient]:
    async def make() -> httpx.AsyncClient:
        return client_of(engine_with(Toy(), max_body_bytes=100_000))

    each = runner.run(make())
    yield each
    runner.run(each.aclose())


Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Give the path of a value and of all that is in it."""
    yield path
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from places(each, (*path, name))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield from places(each, (*path, at))


def changed(value: Any, path: Path, change: Any) -> Any:
    """Put something else at a path, if it is there; what is left out of a list becomes null."""
    if not path:
        doubled = value * 2 if isinstance(value, list | str) else value
        return None if change is LEFT_OUT else doubled if change is DOUBLED else change
    at, rest = path[0], path[1:]
    if isinstance(value, Mapping) and at in value:
        if rest or change is not LEFT_OUT:
            return {**value, at: changed(value[at], rest, change)}
        return {name: each for name, each in value.items() if name != at}
    if isinstance(value, list) and isinstance(at, int) and at < len(value):
        return [*value[:at], changed(value[at], rest, change), *value[at + 1 :]]
    return value


def bent(example: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Make bodies like an example: a place or two are changed, some fields are added."""
    change = TEXTS | TEXTS | VALUES | st.sampled_from([LEFT_OUT, DOUBLED])
    changes = st.lists(st.tuples(st.sampled_from(list(places(example))), change), max_size=2)

    def bend(changes: list[tuple[Path, Any]], added: dict[str, Any]) -> Any:
        value: Any = dict(example)
        for path, each in changes:
            value = changed(value, path, each)
        return {**value, **added} if isinstance(value, dict) else value

    return st.builds(bend, changes, st.just({}) | st.dictionaries(NAMES, VALUES, max_size=2))


def spoilt(body: bytes) -> st.SearchStrategy[bytes]:
    """Cut a body, or put other bytes into it."""

    def spoil(at: int, dropped: int, added: bytes) -> bytes:
        return body[:at] + added + body[at + dropped :]

    dropped = st.sampled_from([0, 0, 1, len(body)])
    return st.builds(spoil, st.integers(0, len(body)), dropped, st.binary(max_size=6))


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, gzip"]),
        "Inference-Header-Content-Length": st.sampled_from(["0", "1", "60", "999", "-1", "x", ""]),
        "Content-Type": st.sampled_from(["application/json", "text/plain", ""]),
    },
)


def check(
    caller: Caller,
    client: httpx.AsyncClient,
    runner: asyncio.Runner,
    body: bytes,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> httpx.Response:
    headers = {**headers, **caller.headers}
    response = runner.run(client.post(caller.path, content=body, headers=headers))
    assert response.status_code in STATUSES, response.text
    if response.status_code != 200:
        assert any(is_error_of(each, response) for each in caller.door.dialects), response.text
        assert not any(text in response.text for text in (MARK, "red fruit", "sky", "apple"))
    return response


few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.mark.parametrize("caller", CALLERS, ids=str)
@few
@given(data=st.data(), is_ascii=st.booleans())
def test_bodies_of_about_the_right_shape(
    caller: Caller,
    client: httpx.AsyncClient,
    runner: asyncio.Runner,
    data: st.DataObject,
    is_ascii: bool,
) -> None:
    value = data.draw(bent(caller.dialect.example))
    body = json.dumps(value, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
    response = check(caller, client, runner, body)
    msgspec.json.decode(response.content)  # which takes no NaN


@pytest.mark.parametrize("caller", CALLERS, ids=str)
@few
@given(data=st.data())
def test_raw_bytes(
    caller: Caller, client: httpx.AsyncClient, runner: asyncio.Runner, data: st.DataObject
) -> None:
    body = data.draw(st.just(caller.body).flatmap(spoilt) | st.binary())
    check(caller, client, runner, body, data.draw(HEADERS))


HOSTILE = [
    b"",
    b"\xef\xbb\xbf",
    b"null",
    b"[]",
    b"{}",
    b"[" * 90_000,
    b'{"a":' * 15_000,
    b'{"query": "' + MARK.encode() + b"\xff" + b'"}',
    b'{"query": "' + MARK.encode() + b'", "query": 5}',
    b'{"query": 1e400, "documents": ["' + MARK.encode() + b'"], "texts": -1e400}',
    b'{"top_n": ' + b"9" * 5_000 + b', "query": "\\ud800' + MARK.encode() + b'"}',
    b'{"documents": ' + b"[" * 40_000 + b"]" * 40_000 + b"}",
    (b'{"query": "' + MARK.encode() + b'"}').decode().encode("utf-16"),
    b'{"query": "' + MARK.encode() + b'\n"}',
    b"x" * 100_001,
]


@pytest.mark.parametrize("door", DOORS, ids=lambda each: each.path)
def test_bodies_that_others_have_fallen_for(
    door: Any, client: httpx.AsyncClient, runner: asyncio.Runner
) -> None:
    for body in HOSTILE:
        response = check(Caller(door, door.dialects[0]), client, runner, body)
        assert response.status_code != 200
