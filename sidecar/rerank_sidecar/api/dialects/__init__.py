"""Wire dialects over HTTP and JSON, one small file each.

To add one: write a module beside weaviate.py with its messages (msgspec.Struct) and a subclass of
`Dialect`, then add it to `DIALECTS`. Routes, limits, errors, metrics and API documentation follow.
"""

from typing import Any

from rerank_sidecar.api.dialects.base import Dialect
from rerank_sidecar.api.dialects.native import NativeDialect
from rerank_sidecar.api.dialects.weaviate import WeaviateDialect

DIALECTS: tuple[Dialect[Any], ...] = (NativeDialect(), WeaviateDialect())
"""Every dialect that is served, in the order of the API documentation; paths do not overlap."""

__all__ = ["DIALECTS", "Dialect"]
