"""uvicorn's HTTP/1.1 with two of its answers changed, for clients that are as they are."""

from __future__ import annotations

import json

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_HOP_BY_HOP = frozenset({b"upgrade", b"http2-settings"})


class PatientProtocol(HttpToolsProtocol):
    """Reads requests that wish to be upgraded as if they did not, and refuses in JSON.

    Java's client adds `Upgrade: h2c` to every request. A server may ignore that (RFC 9110, section
    7.8), but uvicorn ignores the body with it. Those who do not speak HTTP are told so in JSON,
    which is all that Weaviate can read.
    """

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived on the connection."""
        self._unset_keepalive_if_required()
        self._parse(data)

    def on_headers_complete(self) -> None:
        """Begin a call, unless its headers are to be read again without the upgrade."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body of a call."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and close the connection."""
        body = json.dumps({"error": "the request is not valid HTTP/1.1"}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
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
