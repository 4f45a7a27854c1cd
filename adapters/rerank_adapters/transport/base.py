"""What all clients have in common, whatever they speak: one base that blocks and one for asyncio.

A client of its own kind says how to ask for scores and for models, once and in how many seconds;
retries by waiting, splitting and passing through are done here.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Self, Unpack

from rerank_adapters.errors import RerankCallError
from rerank_adapters.messages import Document, Model, RerankOptions, RerankResponse
from rerank_adapters.rerank import OnError
from rerank_adapters.transport.calls import Answer, Ask, Call, ListModels, Step, advance
from rerank_adapters.transport.policy import Policy
from rerank_adapters.transport.wire import check_documents

_LOG = logging.getLogger("rerank_adapters")


class Client:
    """What the bases share: the policy, and the count of calls that were passed through."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._passthrough_count = 0
        self._count_lock = threading.Lock()

    @property
    def passthrough_count(self) -> int:
        """Give how many calls of this client came back in their own order, for an error."""
        return self._passthrough_count

    def _call(
        self,
        query: str,
        documents: Iterable[str | Document],
        options: RerankOptions,
        timeout_s: float | None,
    ) -> Call:
        return Call(query, check_documents(documents), options, self._policy.until(timeout_s))

    def _on_error(self, of_call: OnError | None) -> OnError:
        if of_call not in {None, "raise", "passthrough"}:
            raise ValueError('on_error: must be "raise" or "passthrough"')
        return of_call or self._policy.on_error

    def _announced(self, response: RerankResponse) -> RerankResponse:
        error = response.passed_through
        if error is not None:
            with self._count_lock:
                self._passthrough_count += 1
            _LOG.warning("not reranked: %s", error.reason or error.code.name)
            if self._policy.on_passthrough is not None:
                self._policy.on_passthrough(error)
        return response


class BlockingClient(Client, ABC):
    """A client that blocks until it has the answer; it may be shared by threads."""

    def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        timeout_s: float | None = None,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first; `RerankOptions` lists the options.

        `timeout_s` is the deadline of the whole call in seconds, with all that is tried again.
        `timeout_s` and `on_error` go before those of the client.

        Raises:
            RerankCallError: the server refused or failed, was not reached, or took too long; with
                `on_error` "passthrough" only if it is a `RequestError`.
            TypeError: an argument is unknown or of the wrong type.
            ValueError: an option has a value that the contract does not know.
        """
        call = self._call(query, documents, options, timeout_s)
        steps = call.steps(self._policy, self._on_error(on_error))
        outcome: Answer | RerankCallError = None
        while not isinstance(step := advance(steps, outcome), RerankResponse):
            try:
                outcome = self._perform(step)
            except RerankCallError as error:
                outcome = error
        return self._announced(step)

    def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """List the models that the server can answer with, the default first.

        Raises:
            RerankCallError: the server is not ready, was not reached, or took too long.
        """
        return self._list(self._policy.until(timeout_s) - time.monotonic())

    def _perform(self, step: Step) -> Answer:
        if isinstance(step, Ask):
            return self._ask(step)
        if isinstance(step, ListModels):
            return self._list(step.timeout_s)
        time.sleep(step.seconds)
        return None

    @abstractmethod
    def _ask(self, ask: Ask) -> RerankResponse:
        """Ask for scores, trying again only what the server cannot have begun."""

    @abstractmethod
    def _list(self, timeout_s: float) -> tuple[Model, ...]:
        """Ask for the models."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open and end the calls that still run; the client is of no use after."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(Client, ABC):
    """A client for asyncio; cancelling a call ends it on the server, too."""

    async def rerank(
        self,
        query: str,
        documents: Iterable[str | Document],
        *,
        timeout_s: float | None = None,
        on_error: OnError | None = None,
        **options: Unpack[RerankOptions],
    ) -> RerankResponse:
        """Score documents against a query, best first; as the clients that block do."""
        call = self._call(query, documents, options, timeout_s)
        steps = call.steps(self._policy, self._on_error(on_error))
        outcome: Answer | RerankCallError = None
        while not isinstance(step := advance(steps, outcome), RerankResponse):
            try:
                outcome = await self._perform(step)
            except RerankCallError as error:
                outcome = error
        return self._announced(step)

    async def models(self, *, timeout_s: float | None = None) -> tuple[Model, ...]:
        """List the models that the server can answer with, as the clients that block do."""
        return await self._list(self._policy.until(timeout_s) - time.monotonic())

    async def _perform(self, step: Step) -> Answer:
        if isinstance(step, Ask):
            return await self._ask(step)
        if isinstance(step, ListModels):
            return await self._list(step.timeout_s)
        await asyncio.sleep(step.seconds)
        return None

    @abstractmethod
    async def _ask(self, ask: Ask) -> RerankResponse:
        """Ask for scores, trying again only what the server cannot have begun."""

    @abstractmethod
    async def _list(self, timeout_s: float) -> tuple[Model, ...]:
        """Ask for the models."""

    @abstractmethod
    async def close(self) -> None:
        """Close what is open and end the calls that still run; the client is of no use after."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
