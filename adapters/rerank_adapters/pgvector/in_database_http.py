"""How the SQL function reaches the sidecar: HTTP with a deadline, over a connection that is kept.

A part of the body of the SQL function, under the rules that `in_database` has for it.
"""

import errno
import io
import os
import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

KEPT = "rerank_sidecar"
LOOK_EVERY_S = 0.1
MOST_BYTES = 64 * 2**20  # of an answer; a score takes less than 100

# Status, Retry-After and body.
Answer = tuple[int, "str | None", bytes]


class TimeUp(Exception):
    """The call's time is over."""


class Service:
    """Where the sidecar is, from an address such as `https://rerank.example:8080`.

    Raises:
        ValueError: it is no such address.
    """

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address if re.fullmatch("[!-~]{1,2000}", address) else "")
            self.host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError("address: its host or port is none") from None
        if parts.scheme not in ("http", "https") or not self.host or port == 0:
            raise ValueError("address: must be http://host:port or https://host:port")
        if parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError("address: may have a path, but no user, query or fragment")
        self.address = address.rstrip("/")
        self.is_encrypted = parts.scheme == "https"
        self.port = port or (443 if self.is_encrypted else 80)
        self.path = parts.path.rstrip("/") + "/api/v1/rerank"


class Clock:
    """Says when the call's time is over, and lets PostgreSQL end a query that was cancelled."""

    def __init__(self, plpy: Any, timeout_s: float) -> None:  # noqa: ANN401
        self._plpy = plpy
        self._timeout_s = timeout_s
        self._end = time.monotonic() + timeout_s
        self._next_look = 0.0

    def remaining_s(self) -> float:
        """Give what is left, in seconds."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeUp(f"no answer within {self._timeout_s:g} s")
        return left

    def look(self) -> float:
        """Give what is left, unless the query is cancelled or has reached statement_timeout."""
        if time.monotonic() >= self._next_look:
            self._plpy.execute("SELECT 1")  # where PostgreSQL attends to its interrupts
            self._next_look = time.monotonic() + LOOK_EVERY_S
        return self.remaining_s()

    def wait(self, link: socket.socket, events: int) -> None:
        """Wait until a socket can be read from or written to."""
        poll = select.poll()
        poll.register(link, events)
        while not poll.poll(1000 * min(self.look(), LOOK_EVERY_S)):
            pass


class Wire:
    """A socket as http.client wants it, with which nothing takes longer than the clock allows."""

    def __init__(self, link: socket.socket, clock: Clock) -> None:
        link.setblocking(False)
        self.link = link
        self._clock = clock

    def connect(self, where: Any) -> None:  # noqa: ANN401
        """Open the connection; `where` is as getaddrinfo gives it."""
        state = self.link.connect_ex(where)
        if state == errno.EINPROGRESS:
            self._clock.wait(self.link, select.POLLOUT)
            state = self.link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if state:
            raise OSError(state, os.strerror(state))
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def encrypt(self, host: str) -> None:
        """Speak TLS from here on, if the system trusts the host's certificate."""
        context = ssl.create_default_context()
        self.link = encrypted = context.wrap_socket(
            self.link, server_hostname=host, do_handshake_on_connect=False
        )
        self.finish(encrypted.do_handshake, select.POLLIN)

    def finish(self, operation: Callable[[], Any], events: int) -> Any:  # noqa: ANN401
        """Try an operation until it need not wait."""
        while True:
            self._clock.look()
            try:
                return operation()
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            except BlockingIOError:
                pass
            self._clock.wait(self.link, events)

    def sendall(self, content: bytes) -> None:
        """Send all of it."""
        left = memoryview(content)
        while left:
            left = left[self.finish(partial(self.link.send, left), select.POLLOUT) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Give what comes in as a file."""
        return io.BufferedReader(Incoming(self))

    def close(self) -> None:
        """Do nothing: http.client closes before it has read; who opened the socket closes it."""


class Incoming(io.RawIOBase):
    """What comes in over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._left = MOST_BYTES

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        """Wait for bytes; 0 is the end."""
        read = partial(self._wire.link.recv_into, buffer)
        count = int(self._wire.finish(read, select.POLLIN))
        self._left -= count
        if self._left < 0:
            raise HTTPException(f"its answer is longer than {MOST_BYTES} bytes")
        return count


def connected(service: Service, clock: Clock) -> socket.socket:
    """Open a connection to the first of the service's addresses that takes one."""
    problem = OSError("no address")
    for family, kind, protocol, _, where in socket.getaddrinfo(
        service.host, service.port, type=socket.SOCK_STREAM
    ):
        wire = Wire(socket.socket(family, kind, protocol), clock)
        try:
            wire.connect(where)
            if service.is_encrypted:
                wire.encrypt(service.host)
        except BaseException as error:
            wire.link.close()
            if not isinstance(error, OSError):
                raise
            problem = error
        else:
            return wire.link
    raise problem


def is_quiet(link: socket.socket) -> bool:
    """Tell whether a kept connection is still open: a closed one has its end to read."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    return not poll.poll(0)


class Call:
    """One request; `kept` holds the connection of the call before, and then that of this one."""

    def __init__(self, service: Service, clock: Clock, kept: "dict[str, Any]") -> None:
        self._service = service
        self._clock = clock
        self._kept = kept

    def answer(self, body: bytes, headers: "dict[str, str]") -> Answer:
        """Ask over the kept connection, or over a new one where the sidecar had closed it."""
        address, link = self._kept.pop(KEPT, ("", None))
        if link is not None and address == self._service.address and is_quiet(link):
            try:
                return self._exchange(link, body, headers)
            except (ConnectionError, ssl.SSLError):
                pass  # closed at this very moment; asking twice does no harm
        elif link is not None:
            link.close()
        return self._exchange(connected(self._service, self._clock), body, headers)

    def _exchange(self, link: socket.socket, body: bytes, headers: "dict[str, str]") -> Answer:
        connection = HTTPConnection(self._service.host, self._service.port)
        connection.sock = Wire(link, self._clock)
        left_ms = str(max(1, int(1000 * self._clock.remaining_s())))
        try:
            connection.request(
                "POST", self._service.path, body, {**headers, "X-Request-Timeout-Ms": left_ms}
            )
            response = connection.getresponse()
            content = response.read()
        except BaseException:
            link.close()
            raise
        if connection.sock is None:  # the other side is about to close it
            link.close()
        else:
            self._kept[KEPT] = self._service.address, link
        return response.status, response.getheader("Retry-After"), content
