"""The far side of the network: as much of the Hugging Face hub as its client asks for a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"

Repositories = dict[str, dict[str, bytes]]


class FakeHub(ThreadingHTTPServer):
    """Serves repositories, given as names to files; `refusal` is its answer for any other."""

    def __init__(self, repositories: Repositories, refusal: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.refusal = refusal

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(hub: FakeHub) -> Iterator[FakeHub]:
    """Serve until the block is left."""
    thread = Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        for name, files in self.server.repositories.items():
            if path.startswith(f"api/models/{name}/tree/"):
                self._send(_tree(files), with_body)
                return
            if path == f"api/models/{name}" or path.startswith(f"api/models/{name}/revision/"):
                self._send(_info(name, files), with_body)
                return
            if path.startswith(f"{name}/resolve/"):
                self._send_file(files, path.split("/", 4)[4], with_body)
                return
        self._refuse(self.server.refusal or "RepoNotFound")

    def _send_file(self, files: dict[str, bytes], file: str, with_body: bool) -> None:
        if file not in files:
            self._refuse("EntryNotFound")
            return
        self._send(files[file], with_body, {"ETag": f'"{_digest(files[file])}"'})

    def _refuse(self, code: str) -> None:
        self.send_response(404 if code.endswith("NotFound") else 403)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, with_body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(200)
        for name, value in {"X-Repo-Commit": COMMIT, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _info(name: str, files: dict[str, bytes]) -> bytes:
    siblings = [{"rfilename": file} for file in files]
    return json.dumps({"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}).encode()


def _tree(files: dict[str, bytes]) -> bytes:
    entries = [
        {"type": "file", "path": file, "size": len(content), "oid": _digest(content)}
        for file, content in files.items()
    ]
    return json.dumps(entries).encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]
