"""Keeping the event loop free of work that grows with the size of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from rerank_sidecar.types import Document

P = ParamSpec("P")
T = TypeVar("T")

# Translating a document takes about a microsecond, a hop to a thread about a hundred: what a
# search usually carries is translated sooner where it is.
_FEW_DOCUMENTS = 256
_SMALL_BYTES = 131_072


def is_large(count: int, size: int) -> bool:
    """Tell whether so many documents, of so many bytes in all, should not hold up other callers."""
    return count > _FEW_DOCUMENTS or size > _SMALL_BYTES


def are_large(documents: Sequence[Document]) -> bool:
    """Tell whether an answer that may repeat these documents should not hold up other callers."""
    return is_large(len(documents), sum(len(document.text) for document in documents))


async def in_thread_if(
    large: bool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function, in a thread when its work is large and at once when it is not."""
    if large:
        return await asyncio.to_thread(function, *args, **kwargs)
    return function(*args, **kwargs)
