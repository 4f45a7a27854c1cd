"""uvicorn's HTTP/1.1 with two of its answers changed, for clients that are as they are."""

from __future__ import annotations

import json

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 65_536
"""How much of a request line and headers is read beyond the piece of data in which they begin."""

_HOP_BY_HOP = frozenset({b"upgrade", b"http2-settings"})


class PatientProtocol(HttpToolsProtocol):
    """Reads requests that wish to be upgraded as if they did not, and refuses in JSON.

    Java's client adds `Upgrade: h2c` to every request. A server may ignore that (RFC 9110, section
    7.8), but uvicorn ignores the body with it. Those who do not speak HTTP are told so in JSON,
    which is all that Weaviate can read. A head without an end would fill the memory before any
    token is looked at: httptools, unlike h11, has no limit of its own.
    """

    _head_bytes: int | None = None
    """What followed the piece in which the head that is being read began; None between heads."""

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived on the connection."""
        self._unset_keepalive_if_required()
        if self._head_bytes is not None:
            self._head_bytes += len(data)
        self._parse(data)
        if self._head_bytes is not None and self._head_bytes > MOST_HEAD_BYTES:
            self._refuse("431 Request Header Fields Too Large", "the headers are too large")

    def on_message_begin(self) -> None:
        """Begin the head of a request."""
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a call, unless its headers are to be read again without the upgrade."""
        self._head_bytes = None
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body of a call."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and close the connection."""
        self._refuse("400 Bad Request", "the request is not valid HTTP/1.1")

    def _refuse(self, status: str, reason: str) -> None:
        body = json.dumps({"error": reason}).encode()
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as wanted:
            self._parse_without_upgrade(data[wanted.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _parse_without_upgrade(self, rest: bytes) -> None:
        method = self.parser.get_method()
        if method == b"CONNECT":  # the one upgrade that is in the method
            self.send_400_response("")
            return
        lines = [b"%b %b HTTP/1.1" % (method, self.url)]
        lines += [b"%b: %b" % header for header in map(_without_upgrade, self.headers) if header]
        self.parser = httptools.HttpRequestParser(self)
        self._parse(b"\r\n".join([*lines, b"", rest]))


def _without_upgrade(header: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    name, value = header
    if name in _HOP_BY_HOP:
        return None
    if name != b"connection":
        return header
    options = [each.strip() for each in value.split(b",")]
    return name, b", ".join(each for each in options if each.lower() not in _HOP_BY_HOP)
