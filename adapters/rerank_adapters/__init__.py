"""What an application needs to use a rerank sidecar: clients, and adapters for its database."""

from rerank_adapters.client import AsyncRerankClient, RerankClient
from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import (
    Document,
    DocumentError,
    Model,
    RerankOptions,
    RerankResponse,
    RerankResult,
    Timing,
    Usage,
    Window,
)

__all__ = [
    "AsyncRerankClient",
    "Document",
    "DocumentError",
    "Model",
    "RerankCallError",
    "RerankClient",
    "RerankOptions",
    "RerankResponse",
    "RerankResult",
    "Timing",
    "Usage",
    "Window",
]
