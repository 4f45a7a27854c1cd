"""The doors that load is sent to, each as its own clients speak to it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self, cast

import grpc
import msgspec

from rerank_adapters.errors import call_error
from rerank_sidecar.errors import MissingExtra
from rerank_sidecar.load.requests import LoadRequest
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

if TYPE_CHECKING:
    from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceAsyncStub

WEAVIATE_CHUNK = 32
"""Documents of one call of Weaviate's module, hard coded there."""

_SLACK_S = 1.0
"""What a server gets beyond the deadline to say itself that it has passed."""

_TOO_MANY_REQUESTS = 429


class Door(StrEnum):
    """Who the load generator pretends to be: a client of gRPC, of native JSON, or Weaviate."""

    GRPC = "grpc"
    HTTP = "http"
    WEAVIATE = "weaviate"


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: a score for each of its documents, or the `reason` why not.

    `refused` tells that the server was too busy and said so (429 or RESOURCE_EXHAUSTED).
    """

    reason: str | None = None
    refused: bool = False


ANSWERED = Answer()
_WRONG = Answer("WRONG_ANSWER")
_DOCUMENTS_FAILED = Answer("DOCUMENTS_FAILED")


class Target(ABC):
    """Something that answers requests, from one event loop; to be closed in the end."""

    @abstractmethod
    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        """Send a request with a deadline and wait for what becomes of it; never raises."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def open_target(
    door: Door,
    address: str,
    *,
    model: str | None = None,
    token: str | None = None,
    chunks_at_once: int = 2,
) -> Target:
    """Give the target for a door; must be called on the event loop that will use it.

    `address` is a gRPC target or the URL of the HTTP server. `model` is the name to ask for, which
    Weaviate cannot; `token` is shown to servers that want one; `chunks_at_once` is how many calls
    of one search Weaviate has in flight (as many as its host has cores).

    Raises:
        MissingExtra: the HTTP client is not installed.
    """
    if door is Door.GRPC:
        return _Grpc(address, model, token)
    if door is Door.HTTP:
        return _NativeJson(address, model, token)
    return _Weaviate(address, chunks_at_once, token)


def _credentials(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


class _Grpc(Target):
    """One channel for all, as an application would have."""

    def __init__(self, address: str, model: str | None, token: str | None) -> None:
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.aio.insecure_channel(address, unlimited)
        self._stub = cast("RerankServiceAsyncStub", RerankServiceStub(self._channel))
        self._options = pb.RerankOptions(model=model)
        self._metadata = tuple(_credentials(token).items())

    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        documents = [pb.Document(text=text) for text in request.documents]
        message = pb.RerankRequest(query=request.query, documents=documents, options=self._options)
        try:
            reply = await self._stub.Rerank(message, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            failure = call_error(error)
            refused = failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            return Answer(failure.reason or failure.code.name, refused)
        if len(reply.results) != len(documents):
            return _WRONG
        whole = all(result.HasField("score") for result in reply.results)
        return ANSWERED if whole else _DOCUMENTS_FAILED

    async def close(self) -> None:
        await self._channel.close()


class _Http(Target):
    """Connections are kept, and there are as many as calls in flight."""

    path: ClassVar[str]

    def __init__(self, address: str, token: str | None) -> None:
        try:
            import aiohttp  # per call an eighth of the processor time of httpx
        except ModuleNotFoundError as error:
            raise MissingExtra("bench", "load over HTTP") from error
        self._url = address.rstrip("/") + self.path
        self._timeout = aiohttp.ClientTimeout
        self._failure = aiohttp.ClientError
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), headers=_credentials(token)
        )

    async def close(self) -> None:
        await self._session.close()

    async def _post(self, body: bytes, documents: int, timeout_s: float) -> Answer:
        headers = {
            "Content-Type": "application/json",
            "X-Request-Timeout-Ms": str(max(1, round(timeout_s * 1000))),
        }
        limit = self._timeout(total=timeout_s + _SLACK_S)
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, timeout=limit
            ) as reply:
                return self._judge(reply.status, await reply.read(), documents)
        except TimeoutError:
            return Answer("NO_ANSWER_IN_TIME")
        except (self._failure, OSError) as error:
            return Answer(f"NOT_REACHED ({type(error).__name__})")

    def _judge(self, status: int, body: bytes, documents: int) -> Answer:
        if status != 200:
            return Answer(self._reason(status, body), status == _TOO_MANY_REQUESTS)
        try:
            return self._read(body, documents)
        except msgspec.DecodeError:
            return _WRONG

    @abstractmethod
    def _read(self, body: bytes, documents: int) -> Answer:
        """Judge an answer with status 200."""

    def _reason(self, status: int, body: bytes) -> str:
        return f"HTTP {status}"


class _Failure(msgspec.Struct):
    reason: str


class _NativeRefusal(msgspec.Struct):
    error: _Failure


class _Scored(msgspec.Struct):
    score: msgspec.Raw = msgspec.Raw()


class _NativeReply(msgspec.Struct):
    results: list[_Scored]


class _NativeJson(_Http):
    path = "/api/v1/rerank"

    def __init__(self, address: str, model: str | None, token: str | None) -> None:
        super().__init__(address, token)
        self._options = {"model": model}

    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        message = {
            "query": request.query,
            "documents": request.documents,
            "options": self._options,
        }
        return await self._post(msgspec.json.encode(message), len(request.documents), timeout_s)

    def _read(self, body: bytes, documents: int) -> Answer:
        results = msgspec.json.decode(body, type=_NativeReply).results
        if len(results) != documents:
            return _WRONG
        return ANSWERED if all(bytes(each.score) for each in results) else _DOCUMENTS_FAILED

    def _reason(self, status: int, body: bytes) -> str:
        try:
            return msgspec.json.decode(body, type=_NativeRefusal).error.reason
        except msgspec.DecodeError:
            return super()._reason(status, body)


class _WeaviateScore(msgspec.Struct):
    score: float


class _WeaviateReply(msgspec.Struct):
    scores: list[_WeaviateScore]
    errors: list[msgspec.Raw] = []


class _Weaviate(_Http):
    """Whole searches: chunks of 32, and one that fails fails the search, as in Weaviate's module.

    Like the module, it sends the other chunks nevertheless.
    """

    path = "/rerank"

    def __init__(self, address: str, chunks_at_once: int, token: str | None) -> None:
        super().__init__(address, token)
        self._chunks_at_once = chunks_at_once

    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        clock = asyncio.get_running_loop()
        end = clock.time() + timeout_s
        chunks = iter(_chunks(request.documents))
        failures: list[Answer] = []

        async def call_in_turn() -> None:
            for chunk in chunks:
                body = msgspec.json.encode({"query": request.query, "documents": chunk})
                answer = await self._post(body, len(chunk), max(0.0, end - clock.time()))
                if answer.reason is not None:
                    failures.append(answer)

        await asyncio.gather(*(call_in_turn() for _ in range(self._chunks_at_once)))
        return failures[0] if failures else ANSWERED

    def _read(self, body: bytes, documents: int) -> Answer:
        reply = msgspec.json.decode(body, type=_WeaviateReply)
        if len(reply.scores) != documents:
            return _WRONG
        return _DOCUMENTS_FAILED if reply.errors else ANSWERED


def _chunks(documents: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    for start in range(0, len(documents), WEAVIATE_CHUNK):
        yield documents[start : start + WEAVIATE_CHUNK]
