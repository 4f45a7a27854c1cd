"""What combinations of rerankers have in common: asking a member, and putting its scores in order.

Members score on scales of their own, so that combinations compare places, never scores.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from hashlib import blake2b

from rerank_sidecar.errors import (
    InternalError,
    ModelNotServable,
    NonFiniteScore,
    NotSupportedByModel,
    RerankError,
)
from rerank_sidecar.rerankers.arrivals import closing
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Meter,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Document, Score, Vectors

_SUMMED = frozenset(each.name for each in fields(Meter)) - {"query_truncated", "answered_by"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a member made of some documents: an outcome for each index, and by which model."""

    outcomes: Mapping[int, Outcome]
    info: RerankerInfo

    def best_first(self) -> list[int]:
        """Give the indexes of the scored documents, best first, equals in the order asked."""
        goodness = self.goodness()
        return sorted(goodness, key=lambda index: -goodness[index])

    def goodness(self) -> dict[int, float]:
        """Give the values of the scored documents, turned so that more is better."""
        sign = -1.0 if self.info.score_kind is ScoreKind.RANK else 1.0
        return {index: sign * each.value for index, each in self.scores().items()}

    def scores(self) -> dict[int, Score]:
        """Give the scores of the documents that have one."""
        return {index: each for index, each in self.outcomes.items() if isinstance(each, Score)}


async def gathered(documents: AsyncIterator[IndexedDocuments]) -> list[tuple[int, Document]]:
    """Wait for all documents of a request, for a reranker that has to see them all."""
    async with closing(documents):
        return [indexed async for group in documents for indexed in group]


async def ask(
    member: Reranker, query: str, documents: IndexedDocuments, options: ScoreOptions
) -> Answer:
    """Have a member score documents; what it costs is added to the meter, however it ends.

    The answer's outcomes are in the order of the documents. Raises whatever the member raises.
    """
    meter = Meter()
    found: dict[int, Outcome] = {}
    readable = [
        (index, read)
        for index, document in documents
        if (read := _readable(member.info, document)) is not None
    ]
    how = replace(options, meter=meter, query_vectors=_vectors(member.info, query, options))
    scoring = member.score(query, _at_once(readable), how)
    try:
        async with aclosing(scoring) as outcomes:
            async for index, outcome in outcomes:
                found[index] = _with_a_place(outcome)
    finally:
        add_cost(options.meter, meter)
    outcomes_in_order = {
        index: found.get(index) or _unscored(member.info, document) for index, document in documents
    }
    return Answer(outcomes_in_order, meter.answered_by or member.info)


def _with_a_place(outcome: Outcome) -> Outcome:
    """Give an outcome, a score that no order has a place for being an error."""
    if isinstance(outcome, Score) and not math.isfinite(outcome.value):
        return NonFiniteScore("the model gave no finite score")
    return outcome


def _readable(info: RerankerInfo, document: Document) -> Document | None:
    """Give a document as a member reads it: without vectors that are another member's."""
    if document.vectors is None or document.vectors.shape[1] == info.vector_dimension:
        return document
    return replace(document, vectors=None) if document.text else None


def _vectors(info: RerankerInfo, query: str, options: ScoreOptions) -> Vectors | None:
    vectors = options.query_vectors
    if vectors is None or vectors.shape[1] == info.vector_dimension:
        return vectors
    if not query:
        raise NotSupportedByModel(f"{info.name} reads no such vectors, and the query has no text")
    return None


def _unscored(info: RerankerInfo, document: Document) -> RerankError:
    if _readable(info, document) is not None:
        return InternalError("the document was not scored")
    return NotSupportedByModel(f"{info.name} reads no such vectors, and the document has no text")


def with_places(
    outcomes: Mapping[int, Outcome], order: Sequence[int]
) -> Iterator[tuple[int, Outcome]]:
    """Give each scored document its place in an order of them all, and leave errors as they are."""
    places = {index: float(place) for place, index in enumerate(order, 1)}
    for index, outcome in outcomes.items():
        if isinstance(outcome, Score):
            yield index, replace(outcome, value=places[index])
        else:
            yield index, outcome


def add_cost(meter: Meter, cost: Meter) -> None:
    """Add what a member cost to what the whole request has cost; who answered is left alone."""
    for name in _SUMMED:
        setattr(meter, name, getattr(meter, name) + getattr(cost, name))
    meter.query_truncated |= cost.query_truncated


def slowest_rate(members: Sequence[Reranker]) -> float:
    """Give the tokens per second of the slowest member; infinity if none has forward passes."""
    return min(member.tokens_per_s for member in members)


def tokens_at(rate: float, member: Reranker, tokens: float) -> float:
    """Tell how many tokens are read at a rate in the time in which a member reads its own."""
    return 0.0 if math.isinf(member.tokens_per_s) else tokens * rate / member.tokens_per_s


def joint_info(
    name: str, family: str, members: Sequence[Reranker], *options: Hashable
) -> RerankerInfo:
    """Describe a combination whose scores are places; its version changes with any part of it.

    Raises:
        ModelNotServable: the members read no script in common.
    """
    infos = [member.info for member in members]
    policies = {info.default_long_document_policy for info in infos}
    dimensions = {info.vector_dimension for info in infos} - {None}
    return RerankerInfo(
        name=name,
        version=joint_version(infos, *options),
        family=family,
        score_kind=ScoreKind.RANK,
        engine=", ".join(dict.fromkeys(info.engine for info in infos)),
        source=joint_source(family, infos),
        max_tokens=min((info.max_tokens for info in infos if info.max_tokens), default=None),
        comparable_across_requests=False,
        default_long_document_policy=(
            infos[-1].default_long_document_policy if len(policies) > 1 else policies.pop()
        ),
        scripts=_common_scripts(infos),
        max_windows=max((info.max_windows for info in infos if info.max_windows), default=None),
        keep_scores=False,
        vector_dimension=dimensions.pop() if len(dimensions) == 1 else None,
    )


def joint_version(infos: Sequence[RerankerInfo], *options: Hashable) -> str:
    """Give a version that changes whenever a member or an option does."""
    return version_of(*((info.name, info.version) for info in infos), *options)


def version_of(*parts: Hashable) -> str:
    """Give a version that changes whenever a part does, told by their `repr`."""
    return blake2b(repr(parts).encode(), digest_size=6).hexdigest()


def joint_source(family: str, infos: Sequence[RerankerInfo]) -> str:
    """Name what a combination is made of."""
    return f"{family} of {', '.join(info.name for info in infos)}"


def _common_scripts(infos: Sequence[RerankerInfo]) -> frozenset[str] | None:
    limited = [info.scripts for info in infos if info.scripts is not None]
    if not limited:
        return None
    common = frozenset.intersection(*limited)
    if not common:
        names = ", ".join(info.name for info in infos)
        raise ModelNotServable(f"the models {names} read no script in common")
    return common


async def _at_once(documents: IndexedDocuments) -> AsyncIterator[IndexedDocuments]:
    if documents:
        yield documents
