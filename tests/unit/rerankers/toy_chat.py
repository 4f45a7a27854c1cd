"""A listwise reranker over a real connection to a stand-in for a chat model."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rerank_sidecar.rerankers.base import Outcome, RerankerInfo
from rerank_sidecar.rerankers.listwise.call_queue import CallQueue
from rerank_sidecar.rerankers.listwise.chat_endpoint import ChatConfig, ChatEndpoint
from rerank_sidecar.rerankers.llm_listwise import ListwiseConfig, ListwiseReranker
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Score,
)
from tests.unit.rerankers.chat_server import (
    ChatServer,
    Reply,
    chat_client,
    chat_server,
)

INFO = RerankerInfo(
    name="chat",
    version="1",
    family="llm_listwise",
    score_kind=ScoreKind.RANK,
    engine="chat",
    source="listwise:chat",
    comparable_across_requests=False,
    keep_scores=False,
)
USUAL = ChatConfig("a-model", timeout_s=5.0, pause_s=0.001)


@asynccontextmanager
async def listwise(
    *replies: Reply,
    config: ListwiseConfig | None = None,
    chat: ChatConfig = USUAL,
    at_once: int = 8,
) -> AsyncIterator[tuple[ListwiseReranker, ChatServer]]:
    async with chat_server(*replies) as server, chat_client(server) as client:
        endpoint = ChatEndpoint("chat", client, chat)
        yield (
            ListwiseReranker(INFO, endpoint, CallQueue(at_once), config or ListwiseConfig()),
            server,
        )


def places(outcomes: list[Outcome]) -> list[float]:
    return [outcome.value for outcome in outcomes if isinstance(outcome, Score)]
