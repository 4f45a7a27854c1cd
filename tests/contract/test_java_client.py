"""Java's own HTTP client wishes to be upgraded to HTTP/2 with every request that it sends."""

import json
import socket

import pytest

BODY = json.dumps({"query": "red fruit", "documents": ["apple", "sky"]}).encode()
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n"


def as_length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def as_chunks(body: bytes) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    with connection.makefile("rb") as stream:
        status = int(stream.readline().split()[1])
        headers = dict(
            line.lower().split(b": ", 1) for line in iter(stream.readline, b"\r\n") if line
        )
        return status, stream.read(int(headers[b"content-length"]))


@pytest.mark.parametrize("end", [as_length(BODY), as_chunks(BODY)], ids=["length", "chunked"])
@pytest.mark.parametrize("piece", [1_000_000, 7], ids=["at once", "in pieces"])
def test_a_wish_to_upgrade_is_ignored(http_port: int, end: bytes, piece: int) -> None:
    request = b"POST /rerank HTTP/1.1\r\nHost: sidecar\r\n" + UPGRADE + end
    with socket.create_connection(("127.0.0.1", http_port), timeout=30) as connection:
        for _ in range(2):  # the connection stays usable
            for start in range(0, len(request), piece):
                connection.sendall(request[start : start + piece])
            status, body = answer(connection)
            assert status == 200
            assert len(json.loads(body)["scores"]) == 2


def test_a_tunnel_is_refused_in_json(http_port: int) -> None:
    with socket.create_connection(("127.0.0.1", http_port), timeout=30) as connection:
        connection.sendall(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n")
        status, body = answer(connection)
    assert status == 400
    assert isinstance(json.loads(body)["error"], str)
