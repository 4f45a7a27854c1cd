"""JSON to and from one server over HTTP, and what a status says about a call."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rerank_sidecar.errors import (
    InvalidSetting,
    MissingExtra,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.deadlines import cancelled_once
from rerank_sidecar.rerankers.remote.base import Access, CallFailed, Garbled
from rerank_sidecar.rerankers.retry_after import read_retry_after

if TYPE_CHECKING:
    import httpx

Sign = Callable[[str, bytes], Awaitable[Mapping[str, str]]]
"""Gives the headers that depend on the address and on what is sent."""

IsRefusal = Callable[[int, bytes], bool]
"""Tells by status and body that the server will not have what it was sent, and is well itself."""

_MOST_ANSWER_BYTES = 67_108_864
_CONNECT_S = 5.0
_GET_S = 5.0
_IDLE_S = 30.0
"""Shorter than the keep-alive of most servers, so that few calls meet a connection just closed."""

_TRANSIENT = frozenset({429, 502, 503, 504})
REFUSALS = frozenset({400, 413, 422})
"""What may be meant for a part of what was sent: another question may be answered."""

_MEANINGS = {
    401: "it wants another API key",
    403: "the API key may not do this",
    404: "it has no such path or model",
}


class HttpClient:
    """Talks JSON with one server over pooled HTTP/1.1 connections.

    Proxies come from the environment, as usual. Redirects are not followed: a key would go with
    them.

    Raises:
        InvalidSetting: the environment names a proxy that cannot be used.
        MissingExtra: httpx is not installed.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str], access: Access, is_refusal: IsRefusal
    ) -> None:
        try:
            import httpx
        except ImportError as error:
            raise MissingExtra("remote", "asking other servers") from error
        self._url = url
        self._is_refusal = is_refusal
        with by_the_proxy_of_the_environment():
            self._client = httpx.AsyncClient(
                headers={"User-Agent": "rerank-sidecar", "Accept": "application/json", **headers},
                verify=trust(access),
                timeout=httpx.Timeout(None, connect=_CONNECT_S),
                limits=httpx.Limits(
                    max_connections=access.max_concurrency,
                    max_keepalive_connections=access.max_concurrency,
                    keepalive_expiry=_IDLE_S,
                ),
            )

    async def get(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Get what is at a path, within a few seconds.

        Raises:
            CallFailed: there is no answer, or it is not JSON.
        """
        try:
            async with asyncio.timeout(_GET_S):
                return await cancelled_once(self._send("GET", path, None, {}))
        except TimeoutError:
            slow = f"the remote did not answer within {_GET_S:g} s"
            raise CallFailed(RemoteUnavailable(slow)) from None

    async def post(self, path: str, body: object, sign: Sign) -> Any:  # noqa: ANN401 - JSON
        """Post JSON to a path.

        Raises:
            CallFailed: there is no answer, or it is not JSON.
        """
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json"}
        headers.update(await sign(f"{self._url}{path}", content))
        return await self._send("POST", path, content, headers)

    async def close(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    async def _send(
        self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]
    ) -> Any:  # noqa: ANN401 - JSON
        import httpx

        request = self._client.build_request(
            method, f"{self._url}{path}", content=content, headers=headers
        )
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = await _read(response)
            finally:
                await response.aclose()
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _broken(error) from error
        if not response.is_success:
            is_refusal = self._is_refusal(response.status_code, body)
            raise refused(response.status_code, response.headers, is_refusal=is_refusal)
        return _parsed(body)


@contextmanager
def by_the_proxy_of_the_environment() -> Iterator[None]:
    """Say, while a client is made, what is wrong with HTTP_PROXY, NO_PROXY and their like.

    Raises:
        InvalidSetting: what they name is no address, or needs a package that is not installed.
    """
    import httpx

    try:
        yield
    except ImportError as error:
        raise InvalidSetting(
            "the environment names a SOCKS proxy (ALL_PROXY or the like), which needs: "
            "pip install 'httpx[socks]'"
        ) from error
    except (httpx.InvalidURL, ValueError):
        # What they say may hold a password.
        raise InvalidSetting(
            "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY or NO_PROXY of the environment holds what is no "
            "address of a proxy or no host"
        ) from None


def trust(access: Access) -> ssl.SSLContext:
    """Say which certificates are trusted.

    Raises:
        OSError: the file of authorities cannot be read.
    """
    context = ssl.create_default_context(cafile=access.ca_file)
    if not access.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def refused(status: int, headers: Mapping[str, str], *, is_refusal: bool) -> CallFailed:
    """Sort an answer by a status that is none of success."""
    retry_after_s = read_retry_after(headers.get("retry-after"))
    return CallFailed(
        _error_of(status, retry_after_s, is_refusal=is_refusal),
        is_transient=status in _TRANSIENT,
        is_fault=status >= 500 and not is_refusal,
        retry_after_s=retry_after_s,
    )


def _error_of(status: int, retry_after_s: float | None, *, is_refusal: bool) -> RerankError:
    after_s = 1.0 if retry_after_s is None else retry_after_s
    if status == 429:
        return Overloaded("the remote has too much to do (status 429)", after_s)
    if status == 503:
        return RemoteUnavailable("the remote cannot answer now (status 503)", after_s)
    meaning = f": {_MEANINGS[status]}" if status in _MEANINGS else ""
    message = f"the remote answered with status {status}{meaning}"
    return RemoteFailed(message, is_refusal=is_refusal)


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > _MOST_ANSWER_BYTES:
            raise Garbled("it does not end")
    return bytes(body)


def _parsed(body: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Garbled("it is not JSON") from None


def _broken(error: Exception) -> CallFailed:
    """Sort a connection that was not made, or broke before the answer had come."""
    import httpx

    unreadable = (httpx.DecodingError, httpx.LocalProtocolError, httpx.UnsupportedProtocol)
    if isinstance(error, unreadable):
        return Garbled(f"it cannot be read ({type(error).__name__})")
    unreachable = RemoteUnavailable(f"the remote cannot be reached ({type(error).__name__})")
    return CallFailed(unreachable, is_transient=True, is_fault=True)
