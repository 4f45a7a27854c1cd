"""Another sidecar, over its own gRPC contract."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence

from rerank_sidecar.errors import (
    InvalidSetting,
    LimitExceeded,
    ModelUnavailable,
    NonFiniteScore,
    RemoteFailed,
    RerankError,
)
from rerank_sidecar.rerankers.base import Outcome
from rerank_sidecar.rerankers.remote.answers import outcomes, plausible
from rerank_sidecar.rerankers.remote.base import (
    Access,
    Answer,
    CallFailed,
    Garbled,
    Question,
    StandIn,
    Target,
    Traits,
)
from rerank_sidecar.rerankers.remote.grpc_channel import GrpcChannel
from rerank_sidecar.rerankers.remote.options import RemoteOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import LongDocumentPolicy, Score, TruncationSide, Window
from rerank_sidecar.v1 import rerank_pb2 as pb
from rerank_sidecar.v1.rerank_pb2_grpc import RerankServiceStub

_MAX_DOCUMENTS = 1000
_LIST_S = 5.0
_OTHERS_MAY_ANSWER = frozenset({"fallback", "shadow", "remote"})
"""Families whose scores may be another model's the next time, and are not to meet kept ones."""

_REASON = re.compile("[A-Z_]{1,64}")


class SidecarRemote:
    """`rerank_sidecar.v1.RerankService/Rerank`: scores on the model's own scale, with all they say.

    Every way of reading documents that the model offers is passed on.

    Raises:
        InvalidSetting: the options say what scores mean, which only the sidecar can.
    """

    def __init__(self, target: Target, options: RemoteOptions, access: Access) -> None:
        if options.score_kind is not None:
            raise InvalidSetting("family_options.score_kind: a sidecar tells it itself")
        self._target = target
        self._timeout_s = options.timeout_s
        self._kind: ScoreKind | None = None
        self._channel = GrpcChannel(target, access)
        self._stub = RerankServiceStub(self._channel.channel)

    async def learn(self) -> Traits:
        """Ask which model answers and what it says of its scores; one not in memory is loaded.

        Raises:
            ModelUnavailable: the server does not answer, or has no such model.
        """
        try:
            model = await self._model()
            if not model.is_loaded:
                probe = Question("", ("",), self._timeout_s)
                await self._channel.call(self._stub.Rerank, self._message(probe), self._timeout_s)
                model = await self._model()
        except CallFailed as failure:
            raise ModelUnavailable(
                f"the sidecar at {self._target.url} does not tell which model answers: "
                f"{failure.error.message}"
            ) from failure
        self._kind = _kind_of(model.score_kind)
        if self._kind is None:
            raise ModelUnavailable(f"the sidecar at {self._target.url} has a score kind of its own")
        return _traits(model, self._kind)

    async def ask(self, question: Question) -> Answer:
        """Have documents scored by one call.

        Raises:
            CallFailed: there is no answer, or none that can be understood.
        """
        message = self._message(question)
        answer: pb.RerankResponse = await self._channel.call(
            self._stub.Rerank, message, question.timeout_s
        )
        summary, kind = answer.summary, _kind_of(answer.summary.score_kind)
        if kind is None or (kind is not self._kind and not summary.fallback_for):
            changed = "the remote answers by a model with scores of another kind; load it again"
            raise CallFailed(RemoteFailed(changed))
        return Answer(
            _outcomes(answer.results, len(question.texts), kind),
            plausible(summary.usage.tokens),
            summary.query_truncated,
            _stand_in(summary, kind),
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _model(self) -> pb.Model:
        listed: pb.ListModelsResponse = await self._channel.call(
            self._stub.ListModels, pb.ListModelsRequest(), _LIST_S
        )
        for model in listed.models:
            if _is_called(model, self._target.model):
                return model
        raise CallFailed(RemoteFailed("it serves no model of that name"))

    def _message(self, question: Question) -> pb.RerankRequest:
        truncation = question.truncation
        left = truncation.side is TruncationSide.LEFT
        options = pb.RerankOptions(
            model=self._target.model,
            normalization=pb.NORMALIZATION_NONE,
            priority=question.priority,
            long_document_policy=_policy(question.policy),
            truncation=pb.Truncation(
                max_tokens_per_document=truncation.max_tokens_per_document,
                side=pb.TRUNCATION_SIDE_LEFT if left else pb.TRUNCATION_SIDE_RIGHT,
            ),
        )
        documents = [pb.Document(text=text) for text in question.texts]
        return pb.RerankRequest(query=question.query, documents=documents, options=options)


def _is_called(model: pb.Model, name: str) -> bool:
    if name in ("", "default"):
        return model.is_default
    names = (model.model.name, *model.aliases)
    return any(fnmatch.fnmatchcase(name, each) for each in names)


def _traits(model: pb.Model, kind: ScoreKind) -> Traits:
    policy = pb.LongDocumentPolicy.Name(model.default_long_document_policy)
    name = policy.removeprefix("LONG_DOCUMENT_POLICY_")
    return Traits(
        score_kind=kind,
        max_documents=_MAX_DOCUMENTS,
        version=f"{model.model.name}@{model.model.version}",
        max_tokens=model.max_tokens if model.HasField("max_tokens") else None,
        comparable_across_requests=model.comparable_across_requests,
        policies=frozenset(LongDocumentPolicy),
        default_policy=LongDocumentPolicy[name],
        limits_tokens=True,
        cuts_left=True,
        keep_scores=model.family not in _OTHERS_MAY_ANSWER,
    )


def _policy(wanted: LongDocumentPolicy | None) -> str:
    return f"LONG_DOCUMENT_POLICY_{'UNSPECIFIED' if wanted is None else wanted.name}"


def _kind_of(told: pb.ScoreKind) -> ScoreKind | None:
    return next(
        (each for each in ScoreKind if told == pb.ScoreKind.Value(f"SCORE_KIND_{each}")), None
    )


def _stand_in(summary: pb.RerankSummary, kind: ScoreKind) -> StandIn | None:
    if not summary.fallback_for:
        return None
    return StandIn(summary.model.name, summary.model.version, kind)


def _outcomes(
    results: Sequence[pb.RerankResult], count: int, kind: ScoreKind
) -> list[tuple[int, Outcome]]:
    if len({result.index for result in results}) != len(results):
        raise Garbled("two results have the same index")
    scored = ((each.index, each.score.value) for each in results if each.HasField("score"))
    found = dict(outcomes(scored, count, kind))
    for result in results:
        outcome = found.get(result.index)
        if result.HasField("error"):
            found[result.index] = _error(result.error.reason)
        elif isinstance(outcome, Score):
            found[result.index] = _with_details(outcome, result.score)
    return list(found.items())


def _with_details(score: Score, told: pb.Score) -> Score:
    window = None
    if told.HasField("best_window"):
        window = Window(told.best_window.start, told.best_window.end)
    return Score(score.value, window, told.truncated, max(1, told.window_count))


def _error(reason: str) -> RerankError:
    if reason == "LIMIT_EXCEEDED":
        return LimitExceeded("the document is longer than the remote takes")
    if reason == "NON_FINITE_SCORE":
        return NonFiniteScore("the remote's model gave no finite score")
    told = reason if _REASON.fullmatch(reason) else "without a reason"
    return RemoteFailed(f"the remote could not score the document ({told})")
