"""Servers that take JSON over HTTP: what their dialects have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rerank_sidecar.rerankers.remote.answers import outcomes, whole_number
from rerank_sidecar.rerankers.remote.base import Access, Answer, Question, Target, Traits
from rerank_sidecar.rerankers.remote.http_client import REFUSALS, HttpClient
from rerank_sidecar.rerankers.remote.options import HttpOptions
from rerank_sidecar.score_kinds import ScoreKind


class HttpWire(ABC):
    """One dialect: how a question is written, and where the scores stand in its answer.

    `usual_kind` is what the scores mean unless the options say otherwise, `max_documents` how many
    one call carries unless they do.
    """

    default_path: ClassVar[str]
    usual_kind: ClassVar[ScoreKind]
    max_documents: ClassVar[int]

    def __init__(self, target: Target, options: HttpOptions) -> None:
        self.target = target
        self.options = options
        self.score_kind = options.score_kind or self.usual_kind

    @property
    def path(self) -> str:
        """Give where questions go, below the address."""
        return self.options.path or self.default_path

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        version = self.target.model or self.target.engine
        return Traits(self.score_kind, self.max_documents, version)

    async def learn(self, client: HttpClient) -> Traits:
        """Ask the server what it is, where the dialect has a way to."""
        return self.traits

    def headers(self, access: Access) -> dict[str, str]:
        """Show the key, if there is one."""
        if access.key is None:
            return {}
        return {"Authorization": f"{access.key_scheme} {access.key}"}

    async def sign(self, url: str, content: bytes) -> Mapping[str, str]:
        """Give the headers that depend on the address and on what is sent."""
        return {}

    def is_refusal(self, status: int, body: bytes) -> bool:
        """Tell whether an error is about what was sent, so that a part of it may be taken."""
        return status in REFUSALS

    @abstractmethod
    def body(self, question: Question) -> dict[str, Any]:
        """Write a question."""

    @abstractmethod
    def scores(self, answer: object) -> Iterable[tuple[object, object]]:
        """Find index and score of each result, whatever they are.

        Raises:
            Garbled: the answer is of another form.
        """

    def tokens(self, answer: object) -> int:
        """Find how many tokens the server says that it read, where OpenAI's dialect has it."""
        return whole_number(answer, "usage", "total_tokens")


class HttpRemote:
    """A server by one of the HTTP dialects.

    Raises:
        MissingExtra: httpx is not installed.
    """

    def __init__(self, wire: HttpWire, access: Access) -> None:
        self._wire = wire
        self._client = HttpClient(wire.target.url, wire.headers(access), access, wire.is_refusal)

    async def learn(self) -> Traits:
        """Ask the server what it is, as far as the dialect can.

        Raises:
            ModelNotServable: it does not rerank.
        """
        return await self._wire.learn(self._client)

    async def ask(self, question: Question) -> Answer:
        """Have documents scored by one POST.

        Raises:
            CallFailed: there is no answer, or none that can be understood.
        """
        wire = self._wire
        found = await self._client.post(wire.path, wire.body(question), wire.sign)
        told = outcomes(wire.scores(found), len(question.texts), wire.score_kind)
        return Answer(told, wire.tokens(found))

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._client.close()
