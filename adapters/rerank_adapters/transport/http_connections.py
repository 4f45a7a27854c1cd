"""HTTP/1.1 connections that are kept and shared by threads, and requests that have a deadline."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import (
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
)
from urllib.parse import SplitResult, urlsplit

import grpc

from rerank_adapters.errors import Cancelled, DeadlineExceeded, RerankCallError, Unreachable

_MOST_IDLE = 64
_PIECE_BYTES = 65_536
_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: `path` is below that of the server's URL."""

    method: str
    path: str
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, whatever its status says; `retry_after` is that header."""

    status: int
    retry_after: str | None
    body: bytes


class Connections:
    """The connections to one server; a process that forks has its own in the child.

    Raises:
        ValueError: the URL is not one of a server.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("url: must be http://host:port or https://host:port")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("url: may have a path, but no user, query or fragment")
        self._host, self._port, self._prefix = parts.hostname, _port(parts), parts.path.rstrip("/")
        self._tls = _context(parts.scheme, tls)
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._busy: set[Transfer] = set()
        self._process = os.getpid()
        self._is_closed = False

    def close(self) -> None:
        """Close every connection, also those that are in use."""
        with self._lock:
            self._follow_fork()
            self._is_closed = True
            idle, self._idle = self._idle, []
            busy = tuple(self._busy)
        for connection in idle:
            connection.close()
        for transfer in busy:
            transfer.abort()

    def check_open(self) -> None:
        """Raise a RuntimeError if they were closed."""
        if self._is_closed:
            raise RuntimeError("the client is closed")

    def path(self, below: str) -> str:
        """Give the whole path of one below the server's URL."""
        return self._prefix + below

    def open(self) -> HTTPConnection:
        """Make a connection, which is not connected yet."""
        if self._tls is None:
            return HTTPConnection(self._host, self._port)
        return HTTPSConnection(self._host, self._port, context=self._tls)

    def over_tls(self, plain: socket.socket) -> socket.socket:
        """Wrap the socket of a new connection as the URL's scheme wants it; nothing is sent yet."""
        if self._tls is None:
            return plain
        return self._tls.wrap_socket(
            plain, server_hostname=self._host, do_handshake_on_connect=False
        )

    def take(self, transfer: Transfer) -> HTTPConnection | None:
        """Give a connection that was kept, if there is one."""
        with self._lock:
            self.check_open()
            self._follow_fork()
            self._busy.add(transfer)
            return self._idle.pop() if self._idle else None

    def keep(self, connection: HTTPConnection) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            if not self._is_closed and len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def done(self, transfer: Transfer) -> None:
        """Forget a transfer that has ended."""
        with self._lock:
            self._busy.discard(transfer)

    def _follow_fork(self) -> None:
        """Leave to the parent what is the parent's: both have the same sockets."""
        if self._process != os.getpid():
            for connection in self._idle:
                connection.close()  # this process's side of it
            self._process, self._idle, self._busy = os.getpid(), [], set()


class Transfer:
    """One request on its way, until a time on the clock of `time.monotonic`."""

    def __init__(
        self,
        connections: Connections,
        request: Request,
        headers: Mapping[str, str],
        until: float,
    ) -> None:
        self._connections = connections
        self._request = request
        self._headers = headers
        self._until = until
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_aborted = False

    def run(self) -> Answer:
        """Send the request and give the answer.

        Raises:
            DeadlineExceeded: the answer was not there in time.
            Unreachable: there is no connection, or it broke.
            Cancelled: `abort` was called.
        """
        kept = self._connections.take(self)
        try:
            if kept is not None:
                try:
                    return self._over(kept)
                except (ConnectionError, HTTPException):
                    if self._is_aborted:
                        raise
                    # The server had closed it meanwhile; scoring twice does no harm.
            return self._over(self._connections.open())
        except (OSError, HTTPException) as error:
            raise self._told(error) from error
        finally:
            self._connections.done(self)

    def abort(self) -> None:
        """End the transfer, from another thread than its own."""
        with self._lock:
            self._is_aborted = True
            if self._socket is not None:
                with suppress(OSError):
                    # The shutdown of an SSLSocket takes away what the other thread works with.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _over(self, connection: HTTPConnection) -> Answer:
        is_kept = False
        try:
            if connection.sock is None:
                self._connect(connection)
            self._socket = connection.sock
            response = self._response(connection)
            body = self._body(response)
            is_kept = not response.will_close
            return Answer(response.status, response.headers.get("Retry-After"), body)
        finally:
            with self._lock:
                self._socket = None
            if is_kept:
                self._connections.keep(connection)
            else:
                connection.close()

    def _connect(self, connection: HTTPConnection) -> None:
        """Connect within the time, to the first address that answers; `abort` ends that, too."""
        failure = OSError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            connection.host, connection.port, type=socket.SOCK_STREAM
        ):
            self._socket = connection.sock = socket.socket(family, kind, protocol)
            self._left_s()
            try:
                connection.sock.connect(address)
            except OSError as error:
                failure = error
                connection.sock.close()
                continue
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = connection.sock = self._connections.over_tls(connection.sock)
            if isinstance(connection.sock, ssl.SSLSocket):
                self._left_s()
                connection.sock.do_handshake()
            return
        raise failure

    def _response(self, connection: HTTPConnection) -> HTTPResponse:
        asked = self._request
        left_ms = max(1, int(self._left_s() * 1000))
        headers = {**self._headers, "x-request-timeout-ms": str(left_ms)}
        with suppress(BrokenPipeError, ConnectionResetError):  # a refusal need not read the body
            connection.request(
                asked.method, self._connections.path(asked.path), asked.body, headers
            )
        self._left_s()
        return connection.getresponse()

    def _body(self, response: HTTPResponse) -> bytes:
        pieces = []
        while self._left_s() and (piece := response.read1(_PIECE_BYTES)):
            pieces.append(piece)
        body = b"".join(pieces)
        if response.length:  # `read1` does not mind
            raise IncompleteRead(body, response.length)
        response.close()  # `read1` does not, and the connection would not take another request
        return body

    def _left_s(self) -> float:
        """Give what is left of the time, which is also how long the socket waits from now on."""
        left_s = self._until - time.monotonic()
        if left_s <= 0 or self._is_aborted:
            raise TimeoutError
        if self._socket is not None:
            self._socket.settimeout(left_s)
        return left_s

    def _told(self, error: Exception) -> RerankCallError:
        if self._is_aborted:
            return Cancelled(_Code.CANCELLED, None, "the call was ended before its answer")
        is_socket_s = isinstance(error, TimeoutError) and error.errno is None
        if is_socket_s or time.monotonic() >= self._until:
            return deadline_passed()
        said = error.strerror if isinstance(error, OSError) else None
        return Unreachable(_Code.UNAVAILABLE, None, said or type(error).__name__)


def deadline_passed() -> DeadlineExceeded:
    """Give the error of a call whose time is over."""
    message = "the deadline passed before the answer was there"
    return DeadlineExceeded(_Code.DEADLINE_EXCEEDED, None, message)


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError("url: the port is not a number of one") from None


def _context(scheme: str, tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    if scheme == "http":
        if tls is not None:
            raise ValueError("tls: is for https:// only")
        return None
    return tls or ssl.create_default_context()
