"""What is asked to find out whether Weaviate can use the sidecar, and what the replies mean.

No input or output happens here; `check` performs the steps.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from rerank_adapters.weaviate.config import DEFAULT_MODEL, Door, module_of, mount_of
from rerank_adapters.weaviate.errors import (
    ModuleNotEnabled,
    ModuleTooOld,
    NotASidecar,
    OtherSidecar,
    ScoresNotComparable,
    SidecarNotReached,
    SidecarNotReady,
    SidecarRefused,
)

_TEXT = "ready"
"""Query and document of the call that tries the door."""

_COHERE_SINCE = (1, 35)
"""The first minor version after weaviate/weaviate#9969, which gave the cohere module a baseURL."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What the sidecar is asked: a GET, or a POST if there is a body."""

    path: str
    body: Mapping[str, object] | None = None


Checks = Generator[Ask, httpx.Response, None]


def checks(weaviate_meta: Mapping[str, Any], address: str, door: Door) -> Checks:
    """Yield what the sidecar is asked, and take its replies.

    Raises:
        WeaviateSetupError: what was learnt shows that something is missing.
    """
    seen = _seen_by_weaviate(weaviate_meta, module_of(door))
    if door == "cohere":
        _expect_base_url(weaviate_meta)
    if not (yield Ask("/.well-known/live")).is_success:
        raise _no_sidecar(address)
    if not (yield Ask("/.well-known/ready")).is_success:
        raise SidecarNotReady(
            f"the sidecar at {address} is warming up or shutting down: wait until "
            "/.well-known/ready answers 204"
        )
    about = _about((yield Ask("/meta")), address, door)
    if door == "transformers":
        _expect_same(seen, about, address)
        _expect_comparable(about)
    reply = yield _trial(door)
    if not reply.is_success:
        raise _refused(reply, door)


def _seen_by_weaviate(weaviate_meta: Mapping[str, Any], module: str) -> Any:  # noqa: ANN401
    modules = weaviate_meta.get("modules") or {}
    if module not in modules:
        raise ModuleNotEnabled(
            f"Weaviate runs without {module}: add it to ENABLE_MODULES in its environment and "
            f"restart it. It has: {', '.join(sorted(modules)) or 'no modules'}"
        )
    return modules[module]


def _expect_base_url(weaviate_meta: Mapping[str, Any]) -> None:
    version = str(weaviate_meta.get("version"))
    minor = re.match(r"(\d+)\.(\d+)", version)
    if minor is None or tuple(map(int, minor.groups())) < _COHERE_SINCE:
        since = ".".join(map(str, _COHERE_SINCE))
        raise ModuleTooOld(
            f"the cohere module of Weaviate {version} ignores the sidecar's address and sends the "
            f'documents to Cohere: choose the door "nvidia", or a Weaviate from {since} on'
        )


def _about(reply: httpx.Response, address: str, door: Door) -> Mapping[str, Any]:
    if reply.status_code == httpx.codes.UNAUTHORIZED:
        raise _refused(reply, door)
    about = _object(reply)
    if not _is_sidecar(about):
        raise _no_sidecar(address)
    return about


def _expect_same(seen: Any, about: Mapping[str, Any], address: str) -> None:  # noqa: ANN401
    """Compare what Weaviate got of its reranker's /meta with the sidecar's own."""
    if isinstance(seen, dict) and "error" in seen:
        raise SidecarNotReached(
            f"Weaviate does not get through to its reranker: {seen['error']}. Correct "
            "RERANKER_INFERENCE_API in Weaviate's environment: scheme, host and port as Weaviate "
            "reaches the sidecar, without a slash at the end"
        )
    if not _is_sidecar(seen):
        raise NotASidecar(
            "Weaviate's reranker-transformers asks some other service: set RERANKER_INFERENCE_API "
            "in its environment to the sidecar, and restart it"
        )
    if _identity(seen) != _identity(about):
        raise OtherSidecar(
            f"Weaviate asks a sidecar with {_told(seen)}, but the one at {address} has "
            f"{_told(about)}: correct RERANKER_INFERENCE_API in Weaviate's environment, or "
            "sidecar_address"
        )


def _expect_comparable(about: Mapping[str, Any]) -> None:
    model = about.get("model") or {}
    if not model.get("comparable_across_requests", False):
        raise ScoresNotComparable(
            f"the sidecar's default model {model.get('name')!r} ranks whole lists, but this module "
            "sends a search in requests of 32 documents: make another model the default, or use "
            'the door "cohere" or "nvidia"'
        )


def _trial(door: Door) -> Ask:
    if door == "transformers":
        return Ask("/rerank", {"query": _TEXT, "documents": [_TEXT], "property": ""})
    if door == "cohere":
        body = {"model": DEFAULT_MODEL, "query": _TEXT, "documents": [_TEXT]}
        return Ask(mount_of(door) + "/v2/rerank", body)
    texts = {"query": {"text": _TEXT}, "passages": [{"text": _TEXT}]}
    return Ask(mount_of(door) + "/v1/retrieval/nvidia/reranking", {"model": DEFAULT_MODEL, **texts})


def _refused(reply: httpx.Response, door: Door) -> SidecarRefused:
    if reply.status_code != httpx.codes.UNAUTHORIZED:
        return SidecarRefused(
            f"the sidecar answers {reply.status_code} to what {module_of(door)} sends: look into "
            f"its log, and whether disabled_doors has this door"
        )
    if door == "transformers":
        return SidecarRefused(
            "the sidecar wants a token, and reranker-transformers cannot send one: give Weaviate a "
            "listener of its own (weaviate_port, docs/security.md), and check that one"
        )
    return SidecarRefused(
        "the sidecar wants another token: pass it here as token, and give it to Weaviate as "
        f"{door.upper()}_APIKEY"
    )


def _no_sidecar(address: str) -> NotASidecar:
    return NotASidecar(
        f"what answers at {address} is no rerank sidecar: correct sidecar_address, which is the "
        "sidecar's HTTP port (8080 unless it was told otherwise), not its gRPC port"
    )


def _is_sidecar(about: Any) -> bool:  # noqa: ANN401
    return isinstance(about, dict) and about.get("name") == "rerank-sidecar"


def _identity(about: Mapping[str, Any]) -> tuple[object, list[object]]:
    return about.get("version"), [each.get("name") for each in about.get("models") or []]


def _told(about: Mapping[str, Any]) -> str:
    version, models = _identity(about)
    return f"version {version} and models {', '.join(map(str, models)) or 'none'}"


def _object(reply: httpx.Response) -> Mapping[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
