"""Compressed bodies: inflated on every door, within the limits of the inflated size."""

import gzip
import json
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from rerank_sidecar.api.inflate import inflated
from rerank_sidecar.api.json_body import read_body
from rerank_sidecar.errors import BodyTooLarge, MalformedBody
from tests.unit.api.every_door import CALLERS, Caller, is_error_of
from tests.unit.api.toy_engine import Toy, client_of, engine_with

MEBIBYTE = 1_048_576

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    " GZIP ": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
    "": bytes,
}


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for place in range(0, len(data), size):
        yield data[place : place + size]


async def inflate(data: bytes, encoding: str, size: int = 1000) -> bytes:
    return b"".join([each async for each in inflated(pieces_of(data, size), encoding)])


async def read(data: bytes, encoding: str, limit_bytes: int) -> bytes:
    async def receive() -> Message:
        return {"type": "http.request", "body": data, "more_body": False}

    headers = [(b"content-encoding", encoding.encode())]
    scope = {"type": "http", "method": "POST", "headers": headers}
    return await read_body(Request(scope, receive), limit_bytes)


@given(
    data=st.binary(max_size=5000), encoding=st.sampled_from([*COMPRESS]), size=st.integers(1, 99)
)
async def test_what_was_compressed_is_read(data: bytes, encoding: str, size: int) -> None:
    assert await inflate(COMPRESS[encoding](data), encoding, size) == data


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_large_bodies_come_in_small_pieces(encoding: str) -> None:
    data = bytes(3 * MEBIBYTE)
    sent = pieces_of(COMPRESS[encoding](data), MEBIBYTE)
    pieces = [each async for each in inflated(sent, encoding)]
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= MEBIBYTE // 4


async def test_a_gzip_body_may_have_several_members() -> None:
    assert await inflate(gzip.compress(b"one ") + gzip.compress(b"two"), "gzip", 7) == b"one two"


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (b"", "gzip", "too early"),
        (gzip.compress(b"text", mtime=0)[:-1], "gzip", "too early"),
        (zlib.compress(b"text")[:-1], "deflate", "too early"),
        (b"not compressed", "gzip", "not in the format gzip"),
        (b"not compressed", "deflate", "not in the format deflate"),
        (gzip.compress(b"text", mtime=0) + b"more", "gzip", "not in the format gzip"),
        (zlib.compress(b"text") + b"more", "deflate", "more after the end"),
        (b"text", "br", "must be gzip, deflate or identity"),
        (b"text", "gzip, gzip", "must be gzip, deflate or identity"),
    ],
)
async def test_what_is_not_of_the_encoding_is_refused(
    data: bytes, encoding: str, words: str
) -> None:
    with pytest.raises(MalformedBody, match=words):
        await inflate(data, encoding)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_the_limit_is_on_the_inflated_size(encoding: str) -> None:
    data = COMPRESS[encoding](bytes(1000))
    assert len(data) < 100
    assert await read(data, encoding, 1000) == bytes(1000)
    with pytest.raises(BodyTooLarge):
        await read(data, encoding, 999)


async def test_what_is_sent_is_limited_too() -> None:
    nothing = gzip.compress(b"") * 100
    with pytest.raises(BodyTooLarge):
        await read(nothing, "gzip", 1000)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_bomb_is_not_held(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(64 * MEBIBYTE))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLarge):
            await read(bomb, encoding, MEBIBYTE)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * MEBIBYTE


@pytest.mark.parametrize("caller", CALLERS, ids=str)
async def test_every_door_takes_compressed_bodies(caller: Caller) -> None:
    async with client_of(engine_with(Toy())) as client:
        for encoding in ("gzip", "deflate"):
            headers = {**caller.headers, "Content-Encoding": encoding}
            sent = COMPRESS[encoding](caller.body)
            response = await client.post(caller.path, content=sent, headers=headers)
            assert response.status_code == 200, response.text


@pytest.mark.parametrize("caller", CALLERS, ids=str)
async def test_every_door_refuses_encodings_that_it_cannot_read(caller: Caller) -> None:
    async with client_of(engine_with(Toy())) as client:
        headers = {**caller.headers, "Content-Encoding": "br"}
        response = await client.post(caller.path, content=caller.body, headers=headers)
    assert 400 <= response.status_code < 500
    assert any(is_error_of(each, response) for each in caller.door.dialects)
    assert "Content-Encoding" in json.dumps(response.json())
