"""How Weaviate's searches look with our `rerank`, and what becomes of the rest of a collection."""

# ruff: noqa: ANN401 - what is Weaviate's goes through as it is

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Protocol, overload

from weaviate.classes.query import GroupBy
from weaviate.classes.query import Rerank as WeaviateRerank
from weaviate.outputs.query import GroupByReturn, QueryReturn

from rerank_adapters.rerank import Rerank
from rerank_adapters.weaviate.results import RerankedGroupByReturn, RerankedQueryReturn


class SearchMethod(Protocol):
    """One of Weaviate's searches: its own arguments, and a `rerank` that may be ours."""

    @overload
    def __call__(
        self, *positional: Any, rerank: Rerank, group_by: None = None, **arguments: Any
    ) -> RerankedQueryReturn[Any, Any]: ...
    @overload
    def __call__(
        self, *positional: Any, rerank: Rerank, group_by: GroupBy, **arguments: Any
    ) -> RerankedGroupByReturn[Any, Any]: ...
    @overload
    def __call__(
        self,
        *positional: Any,
        rerank: WeaviateRerank | None = None,
        group_by: None = None,
        **arguments: Any,
    ) -> QueryReturn[Any, Any]: ...
    @overload
    def __call__(
        self,
        *positional: Any,
        rerank: WeaviateRerank | None = None,
        group_by: GroupBy,
        **arguments: Any,
    ) -> GroupByReturn[Any, Any]: ...


class AsyncSearchMethod(Protocol):
    """The same for asyncio."""

    @overload
    def __call__(
        self, *positional: Any, rerank: Rerank, group_by: None = None, **arguments: Any
    ) -> Coroutine[Any, Any, RerankedQueryReturn[Any, Any]]: ...
    @overload
    def __call__(
        self, *positional: Any, rerank: Rerank, group_by: GroupBy, **arguments: Any
    ) -> Coroutine[Any, Any, RerankedGroupByReturn[Any, Any]]: ...
    @overload
    def __call__(
        self,
        *positional: Any,
        rerank: WeaviateRerank | None = None,
        group_by: None = None,
        **arguments: Any,
    ) -> Coroutine[Any, Any, QueryReturn[Any, Any]]: ...
    @overload
    def __call__(
        self,
        *positional: Any,
        rerank: WeaviateRerank | None = None,
        group_by: GroupBy,
        **arguments: Any,
    ) -> Coroutine[Any, Any, GroupByReturn[Any, Any]]: ...


class Generate:
    """`collection.generate` as it is; our `rerank` is refused.

    Weaviate would generate for every candidate, which costs a language model's call each, and not
    for the few that come back.
    """

    def __init__(self, generate: Any) -> None:
        self._generate = generate

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._generate, name)
        return _refusing(method) if callable(method) else method


def _refusing(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def called(*positional: Any, **arguments: Any) -> Any:
        if isinstance(arguments.get("rerank"), Rerank):
            raise TypeError(
                "rerank: generate takes weaviate.classes.query.Rerank; search with query and our "
                "Rerank first, and generate from what that returns"
            )
        return method(*positional, **arguments)

    return called
