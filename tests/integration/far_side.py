"""What may stand at the sidecar's address: servers that say what they are told, or nothing."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

WAIT_S = 20.0
"""How long a test waits for what must happen; only a failure takes as long."""


class Scripted(ThreadingHTTPServer):
    """Gives one answer to every request, and remembers who came with what headers."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = headers
        self.connections = 0
        self.seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections += 1
        super().process_request(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Scripted

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append({**self.headers, "path": self.path})
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def scripted(
    status: int,
    body: object,
    headers: Mapping[str, str] = MappingProxyType({}),
    tls: ssl.SSLContext | None = None,
) -> Iterator[tuple[str, Scripted]]:
    with Scripted(status, body, headers) as server:
        port = server.server_port
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"{'http' if tls is None else 'https'}://127.0.0.1:{port}", server
        server.shutdown()
        thread.join()


def ranked(*scores: float) -> dict[str, object]:
    """Answer as the native door does for documents with these scores, already best first."""
    results = [{"index": index, "score": {"value": each}} for index, each in enumerate(scores)]
    return {"results": results}


@contextmanager
def mute() -> Iterator[str]:
    """Listen, and take nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def full() -> Iterator[str]:
    """Listen with a full queue: on Linux nobody else gets as far as a connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for each in waiting:
            each.close()


@contextmanager
def talking(*talks: Callable[[socket.socket], object]) -> Iterator[str]:
    """Take a connection for each of them, one after another, and let it talk there."""

    def answer() -> None:
        for talk in talks:
            with listener.accept()[0] as taken:
                taken.settimeout(WAIT_S)
                talk(taken)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def answer_one(taken: socket.socket) -> None:
    """Rank a single document, as if the connection were to stay open."""
    taken.recv(65536)
    content = json.dumps(ranked(1.0)).encode()
    taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content))


def hang_up(taken: socket.socket) -> None:
    """Rank a single document, and close the connection at the next one."""
    answer_one(taken)
    taken.recv(65536)


def drip(taken: socket.socket) -> None:
    """Send a header that never ends, a byte now and then, until nobody listens any more."""
    taken.settimeout(0.02)
    try:
        taken.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(int(WAIT_S / 0.02)):
            try:
                if not taken.recv(65536):
                    return
            except TimeoutError:
                taken.sendall(b"x")
    except ConnectionError:
        return
