"""One call over HTTP, tried again as gRPC's channels do it by themselves."""

from __future__ import annotations

import ssl
import threading
import time

import grpc

from rerank_adapters.errors import Cancelled, RerankCallError
from rerank_adapters.transport.channel import bearer
from rerank_adapters.transport.http_connections import Connections, Request, Transfer
from rerank_adapters.transport.json_wire import read_error
from rerank_adapters.transport.policy import THROTTLE_RATIO, THROTTLE_TOKENS, backoff_s

_OK = 200


class Throttle:
    """Stops repeating what hardly ever succeeds (gRFC A6, "Throttling Retry Attempts")."""

    def __init__(self) -> None:
        self._tokens = float(THROTTLE_TOKENS)
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """Count an attempt that was answered."""
        with self._lock:
            self._tokens = min(THROTTLE_TOKENS, self._tokens + THROTTLE_RATIO)

    def failed(self) -> bool:
        """Count an attempt that was not, and tell whether to try again."""
        with self._lock:
            self._tokens = max(0, self._tokens - 1)
            return self._tokens > THROTTLE_TOKENS / 2


class HttpDoor:
    """Where the server is, what goes with each call, and how often one is tried.

    Raises:
        ValueError: the URL or the token cannot be used.
    """

    def __init__(
        self, url: str, tls: ssl.SSLContext | None, token: str | None, max_attempts: int
    ) -> None:
        self.connections = Connections(url, tls)
        self.headers = {"content-type": "application/json", **dict(bearer(token))}
        self.max_attempts = max_attempts
        self.throttle = Throttle()


class HttpCall:
    """One call: a request, until a time on the clock of `time.monotonic`."""

    def __init__(self, door: HttpDoor, request: Request, until: float) -> None:
        self._door = door
        self._request = request
        self._until = until
        self._aborted = threading.Event()
        self._transfer: Transfer | None = None

    def run(self) -> bytes:
        """Give the body of the answer.

        Raises:
            RerankCallError: the server refused or failed, was not reached, or took too long.
        """
        attempt = 1
        while True:
            try:
                return self._attempt()
            except RerankCallError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:  # nor is it of Overloaded
                    raise
                wait_s = backoff_s(attempt)
                again = self._door.throttle.failed() and attempt < self._door.max_attempts
                if not again or wait_s >= self._until - time.monotonic():
                    raise
            self._aborted.wait(wait_s)
            attempt += 1

    def abort(self) -> None:
        """End the call, from another thread than its own."""
        self._aborted.set()
        if self._transfer is not None:
            self._transfer.abort()

    def _attempt(self) -> bytes:
        self._transfer = Transfer(
            self._door.connections, self._request, self._door.headers, self._until
        )
        if self._aborted.is_set():
            code = grpc.StatusCode.CANCELLED
            raise Cancelled(code, None, "the call was ended before its answer")
        answer = self._transfer.run()
        if answer.status != _OK:
            raise read_error(answer.status, answer.retry_after, answer.body)
        self._door.throttle.succeeded()
        return answer.body
