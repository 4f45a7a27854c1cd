"""The ways into the sidecar, each brought to one form so that one suite can test them all."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from rerank_adapters import Document as ClientDocument
from rerank_adapters import RerankCallError, RerankClient
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.errors import RequestError, RerankError, error_row
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    Normalization,
    RerankOptions,
    RerankRequest,
    Truncation,
    TruncationSide,
)


@dataclass(frozen=True)
class Item:
    """One result: a score or the reason of an error."""

    index: int
    id: str | None
    score: float | None
    reason: str | None = None
    text: str | None = None
    best_window: tuple[int, int] | None = None
    truncated: bool = False
    window_count: int = 0


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    items: tuple[Item, ...]
    model: str
    score_kind: str
    query_truncated: bool
    tokens: int
    pairs: int

    @property
    def order(self) -> list[int]:
        """The indexes in the order in which they came."""
        return [item.index for item in self.items]


class Refused(Exception):
    """The whole request was refused; `reason` and `field` as the error table has them."""

    def __init__(self, reason: str, field: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


Texts = Sequence[str | tuple[str, str]]
"""Texts, or pairs of id and text."""


class Entry(Protocol):
    """A way in. Options are named as in the contract, `truncation` flattened."""

    def rerank(self, query: str, texts: Texts, **options: Any) -> Answer:
        """Rerank, or raise Refused."""
        ...


class InProcess:
    """The engine itself."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop

    def rerank(self, query: str, texts: Texts, **options: Any) -> Answer:
        documents = tuple(
            Document(each) if isinstance(each, str) else Document(each[1], each[0])
            for each in texts
        )
        request = RerankRequest(query, documents, _options(**options))
        try:
            result = asyncio.run_coroutine_threadsafe(
                self._engine.rerank(request), self._loop
            ).result()
        except RerankError as error:
            field = error.field if isinstance(error, RequestError) else None
            raise Refused(error_row(error).reason, field) from error
        items = tuple(
            Item(
                index=each.index,
                id=each.id,
                score=each.score.value if each.score else None,
                reason=error_row(each.error).reason if each.error else None,
                text=each.document.text if each.document else None,
                best_window=(each.score.best_window.start, each.score.best_window.end)
                if each.score and each.score.best_window
                else None,
                truncated=each.score.truncated if each.score else False,
                window_count=each.score.window_count if each.score else 0,
            )
            for each in result.results
        )
        summary = result.summary
        usage = summary.usage
        return Answer(
            items,
            summary.model.name,
            summary.score_kind,
            summary.query_truncated,
            usage.tokens,
            usage.pairs,
        )


class Grpc:
    """The gRPC door, through our own client."""

    def __init__(self, port: int) -> None:
        self._client = RerankClient(f"127.0.0.1:{port}", timeout_s=60)

    def rerank(self, query: str, texts: Texts, **options: Any) -> Answer:
        documents = [
            each if isinstance(each, str) else ClientDocument(each[1], each[0]) for each in texts
        ]
        try:
            response = self._client.rerank(query, documents, **options)
        except RerankCallError as error:
            field = error.field.removeprefix("options.") if error.field else None
            raise Refused(error.reason or "", field) from error
        items = tuple(
            Item(
                index=each.index,
                id=each.id,
                score=each.score,
                reason=each.error.reason if each.error else None,
                text=each.document.text if each.document else None,
                best_window=(each.best_window.start, each.best_window.end)
                if each.best_window
                else None,
                truncated=each.truncated,
                window_count=each.window_count,
            )
            for each in response.results
        )
        usage = response.usage
        return Answer(
            items,
            response.model,
            response.score_kind,
            response.query_truncated,
            usage.tokens,
            usage.pairs,
        )


class NativeHttp:
    """The native form over HTTP."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/rerank"

    def rerank(self, query: str, texts: Texts, **options: Any) -> Answer:
        truncation = {
            name: options.pop(given)
            for given, name in (
                ("max_tokens_per_document", "max_tokens_per_document"),
                ("truncation_side", "side"),
            )
            if given in options
        }
        if truncation:
            options["truncation"] = truncation
        documents = [
            each if isinstance(each, str) else {"id": each[0], "text": each[1]} for each in texts
        ]
        body = {"query": query, "documents": documents, "options": options}
        reply = httpx.post(self._url, json=body, timeout=60).json()
        if "error" in reply:
            field = reply["error"].get("field")
            raise Refused(reply["error"]["reason"], field and field.removeprefix("options."))
        summary = reply["summary"]
        return Answer(
            tuple(map(_item, reply["results"])),
            summary["model"]["name"],
            summary["score_kind"],
            summary["query_truncated"],
            summary["usage"]["tokens"],
            summary["usage"]["pairs"],
        )


def _item(result: dict[str, Any]) -> Item:
    score = result.get("score") or {}
    window = score.get("best_window")
    return Item(
        index=result["index"],
        id=result.get("id"),
        score=score.get("value"),
        reason=(result.get("error") or {}).get("reason"),
        text=(result.get("document") or {}).get("text"),
        best_window=(window["start"], window["end"]) if window else None,
        truncated=score.get("truncated", False),
        window_count=score.get("window_count", 0),
    )


def _options(
    *,
    max_tokens_per_document: int | None = None,
    truncation_side: str = "right",
    long_document_policy: str | None = None,
    normalization: str = "none",
    **options: Any,
) -> RerankOptions:
    return RerankOptions(
        truncation=Truncation(max_tokens_per_document, TruncationSide(truncation_side)),
        long_document_policy=LongDocumentPolicy(long_document_policy)
        if long_document_policy
        else None,
        normalization=Normalization(normalization),
        **options,
    )
