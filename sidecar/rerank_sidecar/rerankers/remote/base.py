"""The seam to another server: a question with some documents in, their outcomes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rerank_sidecar.errors import RemoteFailed, RerankError
from rerank_sidecar.rerankers.base import Outcome
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import LongDocumentPolicy, Truncation


@dataclass(frozen=True, slots=True)
class Target:
    """Where a server is and which of its models is meant.

    `url` is `scheme://host[:port][/prefix]` without a slash at its end. `model` is empty where the
    server has only one. `is_default` is true for a provider's public address.
    """

    engine: str
    url: str
    model: str = ""
    is_default: bool = False

    @property
    def is_grpc(self) -> bool:
        """Tell whether the server is spoken to over gRPC."""
        return self.url.startswith(("grpc://", "grpcs://"))


@dataclass(frozen=True, slots=True)
class Access:
    """How a server is reached: the key it wants, whom it is trusted by, how many calls at once.

    `ca_file` is a PEM file of authorities in place of the system's. Neither `repr` nor any error
    tells the key.
    """

    key: str | None = field(default=None, repr=False)
    key_scheme: str = "Bearer"
    verify: bool = True
    ca_file: str | None = None
    max_concurrency: int = 8


@dataclass(frozen=True, slots=True)
class Traits:
    """What a server's scores mean and what it can be asked for.

    `max_documents` is how many one call may carry, `max_characters` how many are read of each: more
    would fail the call, so that they are not sent. `policies` are what it can do with long
    documents; `limits_tokens` tells whether it reads no more of a document than it is told, and
    `cuts_left` whether it can cut the beginning of a text. Without `keep_scores` another model may
    answer the next time.
    """

    score_kind: ScoreKind
    max_documents: int
    version: str
    max_tokens: int | None = None
    comparable_across_requests: bool = True
    policies: frozenset[LongDocumentPolicy] = frozenset({LongDocumentPolicy.TRUNCATE})
    default_policy: LongDocumentPolicy = LongDocumentPolicy.TRUNCATE
    limits_tokens: bool = False
    cuts_left: bool = False
    takes_empty: bool = True
    max_characters: int | None = None
    keep_scores: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """One call: a query and some documents, and how they are to be read.

    `timeout_s` is what is left for this call, which a wire that can tell passes on. Without a
    `policy` long documents are read as the server usually does.
    """

    query: str
    texts: tuple[str, ...]
    timeout_s: float
    truncation: Truncation = field(default_factory=Truncation)
    policy: LongDocumentPolicy | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class StandIn:
    """The model that answered in the place of the one that was asked."""

    name: str
    version: str
    score_kind: ScoreKind


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call brought: an outcome for each document by its place in the question.

    `tokens` is what the server says that it read, 0 if it does not. `stand_in` is set where the
    server says that another model answered.
    """

    outcomes: Sequence[tuple[int, Outcome]]
    tokens: int = 0
    query_truncated: bool = False
    stand_in: StandIn | None = None


class CallFailed(Exception):
    """A call that brought no answer, sorted by what to do about it.

    `is_transient` calls are worth another try, after `retry_after_s` if the server says so.
    `is_fault` tells that the server is not well, which opens the circuit when it goes on.
    """

    def __init__(
        self,
        error: RerankError,
        *,
        is_transient: bool = False,
        is_fault: bool = False,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.is_transient = is_transient
        self.is_fault = is_fault
        self.retry_after_s = retry_after_s

    @property
    def is_refusal(self) -> bool:
        """Tell whether the server will not have what it was sent, and may have a part of it."""
        return isinstance(self.error, RemoteFailed) and self.error.is_refusal


class Garbled(CallFailed):
    """An answer that does not say what its wire promises; `what` never quotes from it."""

    def __init__(self, what: str) -> None:
        message = f"the remote's answer cannot be understood: {what}"
        super().__init__(RemoteFailed(message), is_fault=True)


class Remote(Protocol):
    """Another server, by one of its wires."""

    async def learn(self) -> Traits:
        """Ask the server what it is, as far as it tells; called once, before any question.

        Raises:
            StartupError: it cannot do what is wanted of it, or has to tell and does not.
        """
        ...

    async def ask(self, question: Question) -> Answer:
        """Have documents scored by one call, which ends when it is cancelled.

        Raises:
            CallFailed: there is no answer, or none that can be understood.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
