"""The clients of a framework's component: those that it is given, or of the address it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self, Unpack

from rerank_adapters.candidates import AsyncSidecar, Sidecar
from rerank_adapters.client import AsyncRerankClient, RerankClient
from rerank_adapters.http_client import AsyncHttpRerankClient, HttpRerankClient
from rerank_adapters.messages import Document, RerankOptions, RerankResponse
from rerank_adapters.rerank import OnError
from rerank_adapters.transport.base import AsyncClient, BlockingClient
from rerank_adapters.transport.channel import Target


@dataclass(frozen=True, slots=True)
class Address:
    """Where a sidecar is, what it is shown, and how many seconds a call may take.

    `target` is one of gRPC's, a list of those, or the URL of the HTTP door.
    """

    target: Target
    token: str | None = field(repr=False)
    timeout_s: float

    @classmethod
    def of(cls, target: Target | None, token: str | None, timeout_s: float) -> Address | None:
        """Make one that can be a key; None where there is no target."""
        if target is None:
            return None
        return cls(target if isinstance(target, str) else tuple(target), token, timeout_s)

    def client(self) -> BlockingClient:
        """Make a client that blocks; it connects at its first call.

        Raises:
            ValueError: it cannot be used; the message says why.
        """
        if (url := self._url()) is not None:
            return HttpRerankClient(url, self.timeout_s, token=self.token)
        return RerankClient(self.target, self.timeout_s, token=self.token)

    def async_client(self) -> AsyncClient:
        """Make a client for asyncio; raises what `client` raises."""
        if (url := self._url()) is not None:
            return AsyncHttpRerankClient(url, self.timeout_s, token=self.token)
        return AsyncRerankClient(self.target, self.timeout_s, token=self.token)

    def _url(self) -> str | None:
        is_url = isinstance(self.target, str) and self.target.startswith(("http://", "https://"))
        return str(self.target) if is_url else None


class InThread:
    """Asks a sidecar that blocks from asyncio, in a thread that a cancelled call does not end."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first."""
        ask = self._sidecar.rerank
        return await asyncio.to_thread(ask, query, documents, on_error=on_error, **options)


class Connection:
    """Gives the sidecars that a component was given; else opens clients, one for each address.

    They are opened late and kept, and threads and event loops share them. Copies have clients of
    their own; a pickled one opens others where it is loaded.
    """

    def __init__(
        self, sidecar: Sidecar | None = None, async_sidecar: AsyncSidecar | None = None
    ) -> None:
        self._sidecar = sidecar
        self._async_sidecar = async_sidecar
        self._lock = threading.Lock()
        self._clients: dict[Address, BlockingClient] = {}
        self._async_clients: dict[Address, AsyncClient] = {}

    @property
    def is_given(self) -> bool:
        """Say whether there is a given sidecar; then no address is asked."""
        return self._sidecar is not None or self._async_sidecar is not None

    def check(self, target: Target | None, token: object | None) -> None:
        """Refuse a target or token beside a given sidecar, and neither sidecar nor target.

        Raises:
            ValueError: it is so.
        """
        for name, value in (("target", target), ("token", token)):
            if self.is_given and value is not None:
                raise ValueError(f"{name}: a given sidecar has its own, so leave it out")
        if not self.is_given and target is None:
            raise ValueError("target: needed where no sidecar is given")

    def blocking(self, address: Address | None) -> Sidecar:
        """Give what a call that blocks asks.

        Raises:
            TypeError: only an asynchronous sidecar was given.
            ValueError: the address cannot be used.
        """
        if self._sidecar is not None:
            return self._sidecar
        if self.is_given or address is None:
            raise TypeError("sidecar: only async_sidecar was given, and it cannot block")
        with self._lock:
            if address not in self._clients:
                self._clients[address] = address.client()
            return self._clients[address]

    def asynchronous(self, address: Address | None) -> AsyncSidecar:
        """Give what an asynchronous call asks: a blocking sidecar in a thread if that is all.

        Raises:
            ValueError: the address cannot be used.
        """
        if self._async_sidecar is not None:
            return self._async_sidecar
        if self._sidecar is not None or address is None:
            return InThread(self.blocking(address))
        with self._lock:
            if address not in self._async_clients:
                self._async_clients[address] = address.async_client()
            return self._async_clients[address]

    def close(self) -> None:
        """Close the blocking clients that were opened here; the next call opens new ones."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    async def close_async(self) -> None:
        """Close all clients that were opened here; the next call opens new ones."""
        self.close()
        with self._lock:
            clients, self._async_clients = self._async_clients, {}
        for client in clients.values():
            await client.close()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Connection):
            return NotImplemented
        mine, others = self._given(), other._given()
        return all(one is another for one, another in zip(mine, others, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of all that is compared by what it holds

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return type(self)(*self._given())

    def __reduce__(self) -> tuple[type[Self], tuple[Sidecar | None, AsyncSidecar | None]]:
        return type(self), self._given()

    def _given(self) -> tuple[Sidecar | None, AsyncSidecar | None]:
        return self._sidecar, self._async_sidecar
