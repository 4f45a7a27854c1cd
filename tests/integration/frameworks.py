"""The three frameworks' components behind one face, so that the same tests run over all of them."""

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # before it is imported

import haystack
import pytest
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle, TextNode

from rerank_adapters import haystack as for_haystack
from rerank_adapters import langchain as for_langchain
from rerank_adapters import llama_index as for_llama_index

QUERY = "red fruit"
NOBODY = "127.0.0.1:1"
"""A port that nobody listens on."""

NUMBERS = ("1", "3", "2", "3")
"""Texts that the toy server scores by what they spell."""

TEXTS = ("the sky is blue", "an apple", "a green vegetable", "a ripe strawberry is red")


@dataclass(frozen=True)
class Framework:
    """How a framework's component is made and asked, and what is read of its rows.

    `make` takes the options by the names that LangChain and LlamaIndex have for them, `rows` makes
    rows of texts that a store gave the scores 0.9, 0.8 and so on.
    """

    name: str
    package: str
    make: Callable[..., Any]
    rows: Callable[[Sequence[str]], list[Any]]
    run: Callable[[Any, Sequence[Any], str], Sequence[Any]]
    arun: Callable[..., Any]
    text: Callable[[Any], str]
    score: Callable[[Any], float | None]
    error: Callable[[Any], str | None]

    def texts(self, rows: Sequence[Any]) -> list[str]:
        return [self.text(row) for row in rows]

    async def ask(self, is_async: bool, component: Any, rows: Sequence[Any]) -> list[Any]:
        """Ask without blocking the loop, on which a test's own server may run."""
        if is_async:
            return list(await self.arun(component, rows, QUERY))
        return list(await asyncio.to_thread(self.run, component, rows, QUERY))


def store_score(index: int) -> float:
    return max(0.0, 0.9 - index / 10)


def _langchain(**options: Any) -> Any:
    if not isinstance(options.get("fuse", "none"), str):
        options["store_score_key"] = "store_score"
    return for_langchain.SidecarRerank(**options)


def _langchain_rows(texts: Sequence[str]) -> list[Any]:
    return [
        LangChainDocument(text, id=str(index), metadata={"store_score": store_score(index)})
        for index, text in enumerate(texts)
    ]


async def _langchain_ask(component: Any, rows: Sequence[Any], query: str) -> Any:
    return await component.acompress_documents(rows, query)


def _nodes(texts: Sequence[str]) -> list[Any]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=str(index)), score=store_score(index))
        for index, text in enumerate(texts)
    ]


async def _llama_index_ask(component: Any, rows: Sequence[Any], query: str) -> Any:
    return await component.apostprocess_nodes(list(rows), query_str=query)


def _haystack(**options: Any) -> Any:
    names = {"top_n": "top_k"}
    chosen = {names.get(name, name): value for name, value in options.items()}
    if (on_error := chosen.pop("on_error", None)) is not None:
        chosen["raise_on_failure"] = on_error == "raise"
    return for_haystack.SidecarRanker(**chosen)


def _haystack_rows(texts: Sequence[str]) -> list[Any]:
    return [
        haystack.Document(id=str(index), content=text, score=store_score(index))
        for index, text in enumerate(texts)
    ]


async def _haystack_ask(component: Any, rows: Sequence[Any], query: str) -> Any:
    return (await component.run_async(query, list(rows)))["documents"]


LANGCHAIN = Framework(
    "langchain",
    "langchain_core",
    _langchain,
    _langchain_rows,
    lambda component, rows, query: component.compress_documents(rows, query),
    _langchain_ask,
    lambda row: row.page_content,
    lambda row: row.metadata.get("relevance_score"),
    lambda row: row.metadata.get("rerank_error"),
)
LLAMA_INDEX = Framework(
    "llama_index",
    "llama_index",
    for_llama_index.SidecarRerank,
    _nodes,
    lambda component, rows, query: component.postprocess_nodes(list(rows), QueryBundle(query)),
    _llama_index_ask,
    lambda row: row.node.get_content(MetadataMode.NONE),
    lambda row: row.score,
    lambda row: row.node.metadata.get("rerank_error"),
)
HAYSTACK = Framework(
    "haystack",
    "haystack",
    _haystack,
    _haystack_rows,
    lambda component, rows, query: component.run(query, list(rows))["documents"],
    _haystack_ask,
    lambda row: row.content,
    lambda row: row.score,
    lambda row: row.meta.get("rerank_error"),
)

every_framework = pytest.mark.parametrize(
    "framework", [LANGCHAIN, LLAMA_INDEX, HAYSTACK], ids=lambda each: each.name
)
both_ways = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])


def assert_same(
    framework: Framework, found: Sequence[Any], expected: Sequence[tuple[str, float]]
) -> None:
    """Compare rows with texts and scores.

    Which texts run beside one in a batch moves its score in the last digits.
    """
    assert framework.texts(found) == [text for text, _ in expected]
    scores = [score for _, score in expected]
    assert [framework.score(row) for row in found] == pytest.approx(scores, abs=1e-3)


async def closed(component: Any) -> None:
    """Close both kinds of clients; their channels belong to a server that ends."""
    await (component.aclose if hasattr(component, "aclose") else component.close_async)()
