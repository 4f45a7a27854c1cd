"""Whether Weaviate and the sidecar are wired together, and what is wrong if they are not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from weaviate import WeaviateAsyncClient, WeaviateClient

from rerank_adapters.transport.channel import bearer
from rerank_adapters.weaviate.checks import Ask, Checks, checks
from rerank_adapters.weaviate.config import Door, clean_address
from rerank_adapters.weaviate.errors import SidecarNotReached


def check_weaviate(  # noqa: PLR0913 - what it takes to reach both
    client: WeaviateClient,
    sidecar_address: str,
    door: Door = "transformers",
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 5.0,
) -> None:
    """Raise unless Weaviate has the door's module and the sidecar answers what that will ask.

    `sidecar_address` is the sidecar's HTTP address as this application reaches it, such as
    `http://localhost:8080`; `token` and `tls` are what it wants to see, `timeout_s` is for each of
    a few requests, in seconds. The last one has a text scored, in the form that Weaviate uses.
    Of the transformers module Weaviate tells which service it asks, so that is compared, too; of
    the others nobody knows before the first query.

    Raises:
        WeaviateSetupError: something is missing; the message says what to do.
        ValueError: the address or the token cannot be used, or there is no such door.
        weaviate.exceptions.WeaviateBaseError: Weaviate itself did not answer.
    """
    options = _options(sidecar_address, token, tls, timeout_s)
    steps = checks(client.get_meta(), sidecar_address, door)
    with _reaching(sidecar_address), httpx.Client(**options) as http:
        ask = next(steps, None)
        while ask is not None:
            ask = _next(steps, http.send(_request(http, ask)))


async def check_weaviate_async(  # noqa: PLR0913 - what it takes to reach both
    client: WeaviateAsyncClient,
    sidecar_address: str,
    door: Door = "transformers",
    *,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 5.0,
) -> None:
    """Raise unless both are ready, as `check_weaviate` does."""
    options = _options(sidecar_address, token, tls, timeout_s)
    steps = checks(await client.get_meta(), sidecar_address, door)
    with _reaching(sidecar_address):
        async with httpx.AsyncClient(**options) as http:
            ask = next(steps, None)
            while ask is not None:
                ask = _next(steps, await http.send(_request(http, ask)))


def _options(
    address: str, token: str | None, tls: ssl.SSLContext | None, timeout_s: float
) -> dict[str, Any]:
    return {
        "base_url": clean_address(address),
        "headers": dict(bearer(token)),
        "verify": True if tls is None else tls,
        "timeout": timeout_s,
        "trust_env": False,  # as the clients: no proxy stands before a sidecar
    }


def _request(http: httpx.Client | httpx.AsyncClient, ask: Ask) -> httpx.Request:
    if ask.body is None:
        return http.build_request("GET", ask.path)
    return http.build_request("POST", ask.path, json=ask.body)


def _next(steps: Checks, reply: httpx.Response) -> Ask | None:
    try:
        return steps.send(reply)
    except StopIteration:
        return None


@contextmanager
def _reaching(address: str) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise SidecarNotReached(
            f"nobody answers at {address} ({type(error).__name__}): start the sidecar, or correct "
            "sidecar_address, which is its HTTP port as this application reaches it"
        ) from error
