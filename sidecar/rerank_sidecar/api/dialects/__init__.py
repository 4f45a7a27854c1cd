"""Wire dialects over HTTP and JSON, one small file each.

To add one: write a module beside weaviate.py with its messages (msgspec.Struct) and a subclass of
`Dialect`, then add it to `DIALECTS`. Routes, limits, errors, metrics and API documentation follow;
paths without its mount are a matter of api/routing.py. docs/doors.md has a row for each.
"""

from typing import Any

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.cohere_v1 import CohereV1Dialect
from rerank_sidecar.api.dialects.cohere_v2 import CohereV2Dialect
from rerank_sidecar.api.dialects.generic import GenericDialect
from rerank_sidecar.api.dialects.infinity import InfinityDialect
from rerank_sidecar.api.dialects.jina import JinaDialect
from rerank_sidecar.api.dialects.kserve import KserveDialect
from rerank_sidecar.api.dialects.librechat import LibreChatDialect
from rerank_sidecar.api.dialects.llamacpp import LlamaCppDialect
from rerank_sidecar.api.dialects.mixedbread import MixedbreadDialect
from rerank_sidecar.api.dialects.native import NativeDialect
from rerank_sidecar.api.dialects.nvidia import NvidiaDialect
from rerank_sidecar.api.dialects.pinecone import PineconeDialect
from rerank_sidecar.api.dialects.tei import TeiDialect
from rerank_sidecar.api.dialects.vllm import VllmDialect
from rerank_sidecar.api.dialects.vllm_score import VllmScoreDialect
from rerank_sidecar.api.dialects.voyage import VoyageDialect
from rerank_sidecar.api.dialects.weaviate import WeaviateDialect
from rerank_sidecar.api.dialects.xinference import XinferenceDialect

DIALECTS: tuple[Dialect[Any], ...] = (
    NativeDialect(),
    WeaviateDialect(),
    CohereV1Dialect(),
    CohereV2Dialect(),
    GenericDialect(),
    InfinityDialect(),
    JinaDialect(),
    KserveDialect(),
    LibreChatDialect(),
    LlamaCppDialect(),
    MixedbreadDialect(),
    NvidiaDialect(),
    PineconeDialect(),
    TeiDialect(),
    VllmDialect(),
    VllmScoreDialect(),
    VoyageDialect(),
    XinferenceDialect(),
)
"""Every dialect that is served, in the order of the API documentation; paths do not overlap."""

__all__ = ["DIALECTS", "Dialect"]
