"""Tokens over HTTP: which are taken, where they are looked for, and that no path goes around."""

import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from rerank_sidecar.api.auth import OpenGuard, guard_of
from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.api.doors import Door, make_doors
from rerank_sidecar.api.http_app import build_http_app
from rerank_sidecar.api.http_server import HttpServer
from rerank_sidecar.errors import InvalidSetting, Unauthenticated
from rerank_sidecar.settings import Settings, read_settings
from tests.unit.api.test_http_server import Connection
from tests.unit.api.toy_engine import Toy, engine_with

TOKEN = "a-token.of_ours~1"  # noqa: S105
BEARER = {"Authorization": f"Bearer {TOKEN}"}
KEYS = {**BEARER, "Api-Key": TOKEN, "X-API-Key": TOKEN}
MADE_UP = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OPEN_PATHS = re.compile(
    r"(/(live|ready|health|ping|v1/cluster/auth)|/metrics|/docs|/openapi.json)$"
)


@cache
def guarded_app(**settings: object) -> Starlette:
    engine = engine_with(Toy(), **{"auth_tokens": TOKEN, **settings})
    return build_http_app(engine, engine.settings, guard=guard_of(engine.settings))


def client(**settings: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(guarded_app(**settings))
    return httpx.AsyncClient(transport=transport, base_url="http://sidecar")


def check(headers: Mapping[str, str], *names: str, **settings: object) -> str | None:
    """Ask the guard; gives the message of a refusal."""
    guard = guard_of(read_settings(None, **{"auth_tokens": TOKEN, **settings}))
    try:
        guard.check(headers, names or ("authorization",))
    except Unauthenticated as error:
        return error.message
    return None


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "  Bearer ", "Bearer\t"])
@pytest.mark.parametrize("end", ["", " "])
def test_the_schemes_case_and_spaces_do_not_matter(scheme: str, end: str) -> None:
    assert check({"authorization": f"{scheme} {TOKEN}{end}"}) is None


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({}, "a token is needed: Authorization: Bearer <token>"),
        ({"authorization": ""}, "a token is needed"),
        ({"authorization": "Basic YTpi"}, "a token is needed"),
        ({"authorization": TOKEN}, "a token is needed"),
        ({"authorization": f"Bearer{TOKEN}"}, "a token is needed"),
        ({"x-api-key": TOKEN}, "a token is needed"),
        # Open WebUI without a key sends this.
        ({"authorization": "Bearer "}, "the word Bearer has no token behind it"),
        ({"authorization": "Bearer"}, "the word Bearer has no token behind it"),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, "not one that the server takes"),
        ({"authorization": f"Bearer {TOKEN}1"}, "not one that the server takes"),
        ({"authorization": f"Bearer {TOKEN.upper()}"}, "not one that the server takes"),
        ({"authorization": f"Bearer {TOKEN} {TOKEN}"}, "not one that the server takes"),
        ({"authorization": "Bearer t\xf6k\xe9n"}, "not one that the server takes"),
        ({"authorization": "Bearer \ud83d\u2028"}, "not one that the server takes"),
    ],
)
def test_what_is_refused_and_why(headers: dict[str, str], complaint: str) -> None:
    message = check(headers)
    assert message is not None
    assert complaint in message
    assert TOKEN not in message


def test_a_dialect_names_the_headers_that_count() -> None:
    names = ("authorization", "api-key")
    assert check({"api-key": TOKEN}, *names) is None
    assert check({"authorization": "Bearer wrong", "api-key": TOKEN}, *names) is None
    assert check({"authorization": f"Bearer {TOKEN}"}, "api-key") == (
        "a token is needed: api-key: <token>"
    )


@pytest.mark.parametrize("text", ["a,b", " a , b ", "a,,b,", "a\nb"])
def test_tokens_are_separated_by_commas(text: str) -> None:
    for token in ("a", "b"):
        assert check({"authorization": f"Bearer {token}"}, auth_tokens=text) is None
    assert check({"authorization": "Bearer a,b"}, auth_tokens=text) is not None


@pytest.mark.parametrize(
    "variable", ["AUTHENTICATION_ALLOWED_TOKENS", "RERANK_SIDECAR_AUTH_TOKENS"]
)
def test_tokens_come_from_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "token1,token2")
    guard = guard_of(read_settings())
    for token in ("token1", "token2"):
        guard.check({"authorization": f"Bearer {token}"}, ["authorization"])
    with pytest.raises(Unauthenticated):
        guard.check({}, ["authorization"])


def test_tokens_come_from_a_config_file(tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    for text in ('"token1,token2"', '["token1", "token2"]'):
        config.write_text(f"auth_tokens = {text}\n")
        guard_of(read_settings(config)).check({"authorization": "Bearer token2"}, ["authorization"])


def test_without_tokens_everybody_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHENTICATION_ALLOWED_TOKENS", "")
    assert isinstance(guard_of(read_settings()), OpenGuard)


@pytest.mark.parametrize("text", [",", " ", " , ,"])
def test_tokens_that_are_none_do_not_open_the_door(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"auth_tokens: .*no token"):
        read_settings(None, auth_tokens=text)


@pytest.mark.parametrize("text", ["two words", "tökén", "a\x00b"])
def test_a_token_that_no_header_carries_is_a_wrong_setting(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="auth_tokens: ") as caught:
        guard_of(read_settings(None, auth_tokens=text))
    assert text not in caught.value.message
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InvalidSetting, match="auth_tokens_file: "):
        guard_of(read_settings(None, auth_tokens_file=file))


def test_a_file_of_tokens_is_read_again_when_it_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text("# of the team\nfirst\n\n  second  \r\n")
    guard = guard_of(read_settings(None, auth_tokens=TOKEN, auth_tokens_file=file))

    def taken(*tokens: str) -> list[str]:
        return [token for token in tokens if passes(token)]

    def passes(token: str) -> bool:
        try:
            guard.check({"authorization": f"Bearer {token}"}, ["authorization"])
        except Unauthenticated:
            return False
        return True

    everything = (TOKEN, "first", "second", "third", "#", "# of the team")
    assert taken(*everything) == [TOKEN, "first", "second"]
    file.write_text("third")
    assert taken(*everything) == [TOKEN, "third"]
    caplog.set_level(logging.DEBUG)
    for broken in ("", "two words", "# nobody"):
        file.write_text(broken)
        assert taken(*everything) == [TOKEN, "third"]
    file.unlink()
    assert taken(*everything) == [TOKEN, "third"]
    assert caplog.text.count("what was read before stays in use") == 4
    file.write_text("first\n")
    assert taken(*everything) == [TOKEN, "first"]
    assert not [token for token in ("third", "two words") if token in caplog.text]


@pytest.mark.parametrize("state", ["missing", "empty", "a folder", "bytes"])
def test_a_file_of_tokens_that_cannot_be_used_is_a_wrong_setting(
    tmp_path: Path, state: str
) -> None:
    file = tmp_path / "tokens"
    if state == "a folder":
        file.mkdir()
    elif state != "missing":
        file.write_bytes(b"\xff\xfe" if state == "bytes" else b"\n")
    with pytest.raises(InvalidSetting, match=f"auth_tokens_file: {file}"):
        guard_of(read_settings(None, auth_tokens_file=file))


def test_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTHENTICATION_ALLOWED_TOKENS", TOKEN)
    settings = read_settings()
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert TOKEN not in shown
    assert TOKEN not in repr(vars(guard_of(settings)))
    config = tmp_path / "sidecar.toml"
    config.write_text(f"auth_tokens = [{{secret = '{TOKEN}'}}]\nhttp_port = 'x'\n")
    monkeypatch.delenv("AUTHENTICATION_ALLOWED_TOKENS")
    with pytest.raises(InvalidSetting) as caught:
        read_settings(config)
    assert TOKEN not in f"{caught.value} {caught.value.__cause__}"


def _filled(path: str) -> str:
    return path.replace("{model:path}", "toy").replace("{version}", "1")


def _ways_in() -> Iterator[tuple[str, str]]:
    for route in guarded_app().routes:
        assert isinstance(route, Route)
        for method in sorted(route.methods or ()):
            yield method, route.path


@pytest.mark.parametrize(("method", "path"), list(_ways_in()))
async def test_every_way_in_asks_for_a_token_or_is_open_by_decision(method: str, path: str) -> None:
    async with client() as asked:
        without = await asked.request(method, _filled(path), content=b"{}")
        wrong, valid = [
            await asked.request(method, _filled(path), content=b"{}", headers=headers)
            for headers in (dict.fromkeys(KEYS, "Bearer wrong"), KEYS)
        ]
    assert valid.status_code != 401
    if OPEN_PATHS.search(path):
        assert without.status_code == wrong.status_code == valid.status_code
    else:
        assert (without.status_code, wrong.status_code) == (401, 401)
        assert without.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("door", make_doors(DIALECTS, Settings()), ids=lambda door: door.path)
async def test_each_dialect_refuses_in_its_own_form(door: Door) -> None:
    message = check({}, *door.key_headers)
    assert message is not None
    status, body = door.dialects[0].render_error(Unauthenticated(message))
    async with client() as asked:
        for mount in ("", "/models/toy") if "{model" not in door.path else ("",):
            response = await asked.post(mount + _filled(door.path), content=b"not even JSON")
            assert response.status_code == status == 401
            expected = b"" if body is None else msgspec.json.encode(body)
            assert MADE_UP.sub(b"", response.content) == MADE_UP.sub(b"", expected)


async def test_metrics_ask_for_a_token_if_told_to() -> None:
    async with client(metrics_auth=True) as asked:
        assert (await asked.get("/metrics")).status_code == 401
        assert (await asked.get("/metrics", headers=BEARER)).status_code == 200


async def test_meta_refuses_as_the_stock_container_does() -> None:
    async with client() as asked:
        response = await asked.get("/meta")
        assert (response.status_code, list(response.json())) == (401, ["error"])
        assert TOKEN not in (await asked.get("/meta", headers=BEARER)).text


@pytest.fixture
async def port() -> AsyncIterator[int]:
    engine = engine_with(Toy(), auth_tokens=TOKEN, http_port=0)
    server = HttpServer(engine, engine.settings)
    yield await server.start()
    await server.stop(0)


@pytest.fixture
async def connection(port: int) -> AsyncIterator[Connection]:
    connection = await Connection.to(port)
    yield connection
    await connection.close()


BODY = b'{"query": "q", "documents": ["1"]}'

TARGETS = [
    "/rerank",
    "/rerank/",
    "//rerank",
    "/./rerank",
    "/.well-known/../rerank",
    "/.well-known/live/../../rerank",
    "/.well-known/live%2F..%2F..%2Frerank",
    "/%72erank",
    "/rerank%2F",
    "/rerank%00",
    "/RERANK",
    "/rerank?/.well-known/live",
    "/rerank#/.well-known/live",
    "/rerank;/.well-known/live",
    "/models/toy/rerank",
    "/models/.well-known/live/rerank",
    "/models/%2Fhealth/rerank",
    "/models//rerank",
    "/health/../rerank",
    "/weaviate/rerank",
    "http://x/.well-known/live/../../rerank",
    "http://x/rerank",
]


@pytest.mark.parametrize(
    "host", ["x", "x/.well-known/live?", "x/.well-known/live#", "[", "@/health"]
)
async def test_no_spelling_of_path_or_host_goes_around(port: int, host: str) -> None:
    """Checks that rebuild the path from the Host header have been gone around (vLLM)."""
    for target, method in product(TARGETS, ("POST", "HEAD")):
        connection = await Connection.to(port)
        head = f"{method} {target} HTTP/1.1\nHost: {host}\nContent-Length: {len(BODY)}"
        await connection.send(head, BODY)
        status = int((await connection.reader.readuntil(b"\r\n")).split()[1])
        await connection.close()
        assert status in {400, 401, 404, 405}, (method, target)


async def test_a_header_of_any_bytes_is_refused(connection: Connection) -> None:
    for value in (b"\xff\xfe", "tökén".encode(), b"\x80", TOKEN.encode() + b"\xc2\xa0"):
        lines = [b"POST /rerank HTTP/1.1", b"Host: x", b"Authorization: Bearer " + value]
        connection.writer.write(b"\r\n".join([*lines, b"Content-Length: 0", b"", b""]))
        assert (await connection.answer())[0] == 401


async def test_a_refused_body_is_not_awaited_and_the_connection_stays(
    connection: Connection,
) -> None:
    await connection.send("POST /rerank HTTP/1.1\nHost: x\nContent-Length: 100")
    assert (await connection.answer())[0] == 401
    connection.writer.write(b"x" * 100)
    head = f"POST /rerank HTTP/1.1\nHost: x\nAuthorization: Bearer {TOKEN}"
    await connection.send(f"{head}\nContent-Length: {len(BODY)}", BODY)
    assert (await connection.answer())[0] == 200


async def test_tokens_are_not_logged(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for given, status in ((TOKEN, 200), ("another-token", 401)):
        head = f"POST /rerank HTTP/1.1\nHost: x\nAuthorization: Bearer {given}"
        await connection.send(f"{head}\nContent-Length: {len(BODY)}", BODY)
        assert (await connection.answer())[0] == status
    assert "token.of" not in caplog.text
    assert "another-token" not in caplog.text
