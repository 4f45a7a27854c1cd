"""Weaviate's reranker-transformers client as it is, in Python: what it sends, reads and assumes.

Written after modules/reranker-transformers/clients/ranker.go of weaviate/weaviate and Go's
net/http and encoding/json: chunks of 32, as many at once as Weaviate's host has cores, no header
that Go does not add by itself, scores read by position.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any

CHUNK = 32
MAX_IDLE = 2
"""Idle connections that Go's default transport keeps for one host."""

_ESCAPED = re.compile('[\x00-\x1f<>&\u2028\u2029"\\\\]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class GoError(Exception):
    """What the user of Weaviate sees when its module could not rerank."""


def go_json(query: str, documents: Sequence[str]) -> bytes:
    """Marshal a request as encoding/json does: HTML-safe, line separators and controls escaped."""
    listed = ",".join(_go_string(each) for each in documents)
    return f'{{"query":{_go_string(query)},"documents":[{listed}],"property":""}}'.encode()


def _go_string(text: str) -> str:
    escaped = _ESCAPED.sub(lambda each: _SHORT.get(each[0], f"\\u{ord(each[0]):04x}"), text)
    return f'"{escaped}"'


class GoClient:
    """One Weaviate: its pool of connections and its number of cores.

    `opened` counts the connections that it made, `resent` the requests that were sent again because
    a pooled connection had broken.
    """

    def __init__(self, port: int, cores: int) -> None:
        self._port = port
        self._cores = cores
        self._idle: list[HTTPConnection] = []
        self._lock = threading.Lock()
        self.opened = 0
        self.resent = 0

    def rank(self, query: str, documents: Sequence[str]) -> list[float]:
        """Rerank one search and give its scores, one per document, as Weaviate reads them."""
        chunks = [documents[at : at + CHUNK] for at in range(0, len(documents), CHUNK)]
        with ThreadPoolExecutor(self._cores) as group:
            answers = list(group.map(lambda chunk: self._perform_rank(query, chunk), chunks))
        scores = [score for answer in answers for score in answer]
        return [scores[position] for position in range(len(documents))]

    def _perform_rank(self, query: str, documents: Sequence[str]) -> list[float]:
        status, body = self.do("POST", "/rerank", go_json(query, documents))
        try:
            answer = _unmarshal(body)
        except ValueError as error:
            raise GoError(f"unmarshal response body. Got: {body!r}") from error
        if status != 200:
            raise GoError(f"fail with status {status}: {answer['error']}")
        return [each["score"] for each in answer["scores"]]

    def do(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send one request over a pooled connection; again, if that one turns out to be broken."""
        connection = self._take_idle()
        if connection is not None:
            with suppress(HTTPException, OSError):
                return self._exchange(connection, method, path, body)
            connection.close()
        with self._lock:
            self.opened += 1
            self.resent += connection is not None
        return self._exchange(HTTPConnection("127.0.0.1", self._port), method, path, body)

    def _exchange(
        self, connection: HTTPConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        send(connection, method, path, body)
        response = connection.getresponse()
        content = response.read()
        self._put_idle(connection)
        return response.status, content

    def break_idle(self) -> int:
        """Break the connections that are pooled, unnoticed by the client, and say how many."""
        for connection in self._idle:
            connection.sock.shutdown(socket.SHUT_RDWR)
        return len(self._idle)

    def close(self) -> None:
        """Close the pooled connections."""
        while self._idle:
            self._idle.pop().close()

    def _take_idle(self) -> HTTPConnection | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _put_idle(self, connection: HTTPConnection) -> None:
        with self._lock:
            if connection.sock is not None and len(self._idle) < MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()


def send(connection: HTTPConnection, method: str, path: str, body: bytes | None) -> None:
    """Write a request with the headers that net/http adds by itself and no others."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    connection.putheader("User-Agent", "Go-http-client/1.1")
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.putheader("Accept-Encoding", "gzip")
    connection.endheaders(body)


def _unmarshal(body: bytes) -> dict[str, Any]:
    """Unmarshal as encoding/json does into RankResponse: unknown keys ignored, null is zero."""
    answer = json.loads(body.decode(), parse_constant=_not_json)
    if not isinstance(answer, dict):
        raise TypeError("not an object")
    zeros: dict[str, Any] = {"query": "", "property": "", "score": 0.0, "error": "", "scores": []}
    read = {
        name: zero if answer.get(name) is None else answer[name] for name, zero in zeros.items()
    }
    for name, zero in zeros.items():
        if not isinstance(read[name], (float, int) if zero == 0.0 else type(zero)):
            raise TypeError(f"cannot unmarshal {name}")
    for each in read["scores"]:
        if not isinstance(each["document"], str) or not isinstance(each["score"], float | int):
            raise TypeError("cannot unmarshal scores")
    return read


def _not_json(name: str) -> None:
    raise ValueError(f"invalid character in {name}")
