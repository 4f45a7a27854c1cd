"""Weaviate: its reranker modules pointed at the sidecar, and `rerank=` with everything it can do.

Weaviate asks the sidecar itself, through one of its modules. `reranker_config` tells a collection
which, `check_weaviate` tells what is wrong when that does not work, and `RerankedCollection` makes
the module rerank more objects than come back. Without a module, `RerankedCollection` with a sidecar
and `rerank_query_return` rerank what Weaviate has found.
"""

try:
    import weaviate as _weaviate
except ImportError as error:
    raise ImportError(
        "rerank_adapters.weaviate needs Weaviate's client: pip install 'rerank-sidecar[weaviate]'"
    ) from error

from rerank_adapters.weaviate.async_collection import AsyncRerankedCollection, AsyncRerankedQuery
from rerank_adapters.weaviate.check import check_weaviate, check_weaviate_async
from rerank_adapters.weaviate.collection import RerankedCollection, RerankedQuery
from rerank_adapters.weaviate.config import Door, reranker_config
from rerank_adapters.weaviate.errors import (
    ModuleNotEnabled,
    ModuleTooOld,
    NotASidecar,
    OtherSidecar,
    ScoresNotComparable,
    SidecarNotReached,
    SidecarNotReady,
    SidecarRefused,
    WeaviateSetupError,
)
from rerank_adapters.weaviate.results import (
    RerankedGroupByMetadata,
    RerankedGroupByReturn,
    RerankedQueryReturn,
)
from rerank_adapters.weaviate.returned import rerank_query_return, rerank_query_return_async

__all__ = [
    "AsyncRerankedCollection",
    "AsyncRerankedQuery",
    "Door",
    "ModuleNotEnabled",
    "ModuleTooOld",
    "NotASidecar",
    "OtherSidecar",
    "RerankedCollection",
    "RerankedGroupByMetadata",
    "RerankedGroupByReturn",
    "RerankedQuery",
    "RerankedQueryReturn",
    "ScoresNotComparable",
    "SidecarNotReached",
    "SidecarNotReady",
    "SidecarRefused",
    "WeaviateSetupError",
    "check_weaviate",
    "check_weaviate_async",
    "rerank_query_return",
    "rerank_query_return_async",
    "reranker_config",
]

del _weaviate
