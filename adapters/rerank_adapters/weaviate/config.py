"""How a collection's reranker is configured for each of the doors that Weaviate can use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from weaviate.classes.config import Configure

if TYPE_CHECKING:
    from weaviate.collections.classes.config import _RerankerProvider

Door = Literal["transformers", "cohere", "nvidia"]
"""Which of Weaviate's modules asks the sidecar: `reranker-transformers` and so on."""

DEFAULT_MODEL = "default"
"""The name that every sidecar answers to with its default model."""

_ADDRESS = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")


def reranker_config(
    door: Door = "transformers", address: str | None = None, model: str | None = None
) -> _RerankerProvider:
    """Make the `reranker_config` of `collections.create` or `config.update` for a door.

    `address` is where Weaviate finds the sidecar, such as `http://rerank-sidecar:8080`; `model`
    is one of the sidecar's models, None its default. The transformers module has neither for each
    collection: its address is in Weaviate's environment, as RERANKER_INFERENCE_API, and it is
    answered by the sidecar's default model.

    An older Weaviate ignores the address of `cohere`, and sends the documents to Cohere instead;
    `check_weaviate` tells.

    Raises:
        ValueError: an argument is missing, cannot be used, or is not for this door.
    """
    if door == "transformers":
        if address is not None:
            raise ValueError(
                "address: the transformers module has one for all collections; set "
                "RERANKER_INFERENCE_API in Weaviate's environment"
            )
        if model is not None:
            raise ValueError(
                "model: the transformers module asks for no model; choose the door cohere or "
                "nvidia, or make it the sidecar's default"
            )
        return Configure.Reranker.transformers()
    if address is None:
        raise ValueError(f"address: the {module_of(door).removeprefix('reranker-')} door needs one")
    settings = {"baseURL": clean_address(address) + mount_of(door), "model": model or DEFAULT_MODEL}
    return Configure.Reranker.custom(module_of(door), settings)


def module_of(door: Door) -> str:
    """Give the name of the door's module.

    Raises:
        ValueError: there is no such door.
    """
    if door not in {"transformers", "cohere", "nvidia"}:
        raise ValueError('door: must be "transformers", "cohere" or "nvidia"')
    return f"reranker-{door}"


def mount_of(door: Door) -> str:
    """Give the sidecar's path below which everything is the door's; none for transformers."""
    return "" if door == "transformers" else f"/{door}"


def clean_address(address: str) -> str:
    """Give an address in the form to which paths are appended.

    Raises:
        ValueError: it is not the address of an HTTP server.
    """
    if not _ADDRESS.fullmatch(address) or not _has_host_and_port(address):
        raise ValueError("address: must be http://host:port or https://host:port")
    return address.rstrip("/")


def _has_host_and_port(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.hostname is not None and parts.port != 0
    except ValueError:  # the brackets of IPv6 are open, or the port is no number up to 65535
        return False
