"""What becomes of one call of `rerank`, step by step; no input or output happens here.

A client performs the steps that a `Call` yields and sends back what came of them, so that all
clients, blocking or not and whatever they speak, repeat, split and pass through alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import grpc

from rerank_adapters.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    LimitExceeded,
    Overloaded,
    RequestError,
    RerankCallError,
)
from rerank_adapters.messages import Document, Model, RerankOptions, RerankResponse
from rerank_adapters.rerank import OnError
from rerank_adapters.transport.merging import Part, merge, passed_through
from rerank_adapters.transport.policy import Policy


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this to the server and give its answer, within so many seconds."""

    query: str
    documents: Sequence[str | Document]
    options: RerankOptions
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ListModels:
    """Ask the server for its models, within so many seconds."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


Step = Ask | ListModels | Wait

Answer = RerankResponse | tuple[Model, ...] | None
"""What a step gives, in the order of the kinds of `Step`; its `RerankCallError` is thrown in."""

Answering = Generator[Step, Answer, RerankResponse]


def advance(steps: Answering, outcome: Answer | RerankCallError) -> Step | RerankResponse:
    """Give the next step after the outcome of the one before, None at first, or the answer.

    Raises:
        RerankCallError: the call has failed.
    """
    try:
        if isinstance(outcome, RerankCallError):
            return steps.throw(outcome)
        return steps.send(outcome)
    except StopIteration as end:
        response: RerankResponse = end.value
        return response


class Call:
    """One call: what is asked, and until when on the clock of `time.monotonic`."""

    def __init__(
        self,
        query: str,
        documents: Sequence[str | Document],
        options: RerankOptions,
        until: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._query = query
        self._documents = documents
        self._options = options
        self._until = until
        self._clock = clock

    def steps(self, policy: Policy, on_error: OnError) -> Answering:
        """Yield what is to be done, take what comes of it, and return the answer.

        Raises:
            RerankCallError: the call failed, and it is the caller's fault or `on_error` is "raise".
        """
        try:
            if len(self._documents) > policy.max_documents_per_call:
                return (yield from self._in_parts(policy, policy.max_documents_per_call))
            return (yield from self._whole(policy))
        except RequestError:
            raise
        except RerankCallError as error:
            if on_error == "raise":
                raise
            return passed_through(self._documents, self._options, error)

    def _whole(self, policy: Policy) -> Answering:
        try:
            return (yield from self._admitted(policy, self._documents))
        except LimitExceeded as refusal:
            half = _half(self._documents, refusal)
        return (yield from self._in_parts(policy, half))

    def _in_parts(self, policy: Policy, limit: int) -> Answering:
        parts: list[Part] = []
        start = 0
        while start < len(self._documents):
            documents = self._documents[start : start + limit]
            try:
                response = yield from self._admitted(policy, documents)
            except LimitExceeded as refusal:
                limit = _half(documents, refusal)
                continue
            if not parts and not (yield from self._is_comparable(response)):
                # Its scores mean nothing beside those of other parts: let the server decide.
                return (yield from self._admitted(policy, self._documents))
            parts.append(Part(start, response))
            start += len(documents)
        return merge(parts, self._options)

    def _admitted(self, policy: Policy, documents: Sequence[str | Document]) -> Answering:
        """Ask until the server is less busy, if it says when and that is soon enough.

        gRPC's own retries do not look at the deadline: they would sleep through it, and then tell
        of that and not of the server's answer.
        """
        attempts = policy.max_attempts
        while True:
            ask = Ask(self._query, documents, self._options, self._left_s())
            try:
                return _response((yield ask))
            except Overloaded as error:
                attempts -= 1
                wait_s = error.retry_after_s
                if not attempts or wait_s is None or wait_s >= self._until - self._clock():
                    raise
            yield Wait(wait_s)

    def _is_comparable(self, response: RerankResponse) -> Generator[Step, Answer, bool]:
        models = yield ListModels(self._left_s())
        if not isinstance(models, tuple):
            raise TypeError("the step was to list the models")
        names = {each.name for each in models if each.comparable_across_requests}
        return response.model in names

    def _left_s(self) -> float:
        left_s = self._until - self._clock()
        if left_s <= 0:
            code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise DeadlineExceeded(code, None, "the deadline passed before the server was asked")
        return left_s


def _response(answer: Answer) -> RerankResponse:
    if not isinstance(answer, RerankResponse):
        raise TypeError("the step was to ask for scores")
    return answer


def _half(documents: Sequence[str | Document], refusal: LimitExceeded) -> int:
    """Give how many documents to try next; raise the refusal if fewer would not help."""
    is_too_many = isinstance(refusal, BodyTooLarge) or refusal.field == "documents"
    if len(documents) == 1 or not is_too_many:
        raise refusal
    return (len(documents) + 1) // 2
