"""A server that reranks the candidates of a vector database with a better model."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rerank-sidecar")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
