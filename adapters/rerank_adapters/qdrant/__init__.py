"""Qdrant: its client with `rerank=` on every query, blocking and for asyncio."""

try:
    import qdrant_client as _qdrant_client
except ImportError as error:
    raise ImportError(
        "rerank_adapters.qdrant needs Qdrant's client: pip install 'rerank-sidecar[qdrant]'"
    ) from error

from rerank_adapters.qdrant.async_client import AsyncRerankedQdrantClient
from rerank_adapters.qdrant.client import RerankedQdrantClient
from rerank_adapters.qdrant.results import (
    RerankedGroup,
    RerankedGroupsResult,
    RerankedPoint,
    RerankedQueryResponse,
)

__all__ = [
    "AsyncRerankedQdrantClient",
    "RerankedGroup",
    "RerankedGroupsResult",
    "RerankedPoint",
    "RerankedQdrantClient",
    "RerankedQueryResponse",
]

del _qdrant_client
