"""A running sidecar as the tests of client libraries see it, and what they expect of it.

Imports nothing but the standard library: the environment of tests/clients/apart has no sidecar.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection

QUERY = "red fruit"

TEXTS = ["a boat at sea", "an apple", "Der Himmel ist blau 🌍", "an apple", "ripe red strawberries"]
"""Ties, because the two apples have to stay in their order, and more than ASCII."""

KEY, WRONG_KEY = "the-right-key", "another-key"
"""What the guarded sidecar takes and what it refuses."""

Ranking = list[tuple[int, float]]
"""Indexes and scores in the order in which they came."""


@dataclass(frozen=True)
class RunningDoor:
    """A sidecar's ports, and the scores that its native form gives to TEXTS, by their index.

    `unit` are in [0, 1], `logit` on the scale of a logit, `own` on the model's.
    """

    http_port: int
    grpc_port: int
    unit: list[float]
    logit: list[float]
    own: list[float]

    @classmethod
    def ask(cls, http_port: int, grpc_port: int) -> RunningDoor:
        """Ask the native form once for each scale."""
        scales = [_scores(http_port, scale) for scale in ("unit", "logit", "none")]
        return cls(http_port, grpc_port, *scales)

    @property
    def url(self) -> str:
        """Where it listens for HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def order(self) -> list[int]:
        """The indexes of TEXTS, best first, ties in input order."""
        return sorted(range(len(TEXTS)), key=lambda index: -self.own[index])

    def expects(self, answer: Ranking, scale: str = "unit", top_n: int = len(TEXTS)) -> None:
        """Require an answer to be what the native form says, to the precision of a float32."""
        scores: list[float] = getattr(self, scale)
        expected = [(index, scores[index]) for index in self.order[:top_n]]
        told = f"{answer}, not {expected}"
        assert [index for index, _ in answer] == self.order[:top_n], told
        assert all(abs(score - scores[index]) <= 1e-6 for index, score in answer), told

    @contextmanager
    def hears(self, *doors: str, outcome: str = "OK") -> Iterator[None]:
        """Require exactly these calls inside: no retry, no other door, no other outcome."""
        before = _calls(self.http_port)
        yield
        heard = _calls(self.http_port) - before
        assert heard == Counter((door, outcome) for door in doors), heard


def _scores(http_port: int, scale: str) -> list[float]:
    body = {"query": QUERY, "documents": TEXTS, "options": {"normalization": scale}}
    results = json.loads(_ask(http_port, "POST", "/api/v1/rerank", json.dumps(body)))["results"]
    return [each["score"]["value"] for each in sorted(results, key=lambda each: each["index"])]


def _calls(http_port: int) -> Counter[tuple[str, str]]:
    line = r'^rerank_sidecar_requests_total{door="(.+)",outcome="(.+)"} (.+)$'
    found = re.findall(line, _ask(http_port, "GET", "/metrics"), re.MULTILINE)
    return Counter({(door, outcome): int(float(count)) for door, outcome, count in found})


def _ask(port: int, method: str, path: str, body: str | None = None) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, path, body, {"Authorization": f"Bearer {KEY}"})
        return connection.getresponse().read().decode()
