"""Hugging Face's text-embeddings-inference (TEI) over gRPC."""

from __future__ import annotations

from dataclasses import replace

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.rerankers.remote.answers import outcomes
from rerank_sidecar.rerankers.remote.base import (
    Access,
    Answer,
    CallFailed,
    Question,
    Target,
    Traits,
)
from rerank_sidecar.rerankers.remote.grpc_channel import GrpcChannel
from rerank_sidecar.rerankers.remote.options import RemoteOptions
from rerank_sidecar.rerankers.remote.tei import usual
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.third_party import tei_pb2 as tei
from rerank_sidecar.third_party.calls import unary_call
from rerank_sidecar.types import TruncationSide

_SERVICES = tei.DESCRIPTOR.services_by_name
_MAX_DOCUMENTS = 32
_INFO_S = 5.0


class TeiGrpcRemote:
    """`tei.v1.Rerank/Rerank`; logits, or probabilities if the options want them."""

    def __init__(self, target: Target, options: RemoteOptions, access: Access) -> None:
        self._target = target
        self._kind = options.score_kind or ScoreKind.RAW_LOGIT
        self._channel = GrpcChannel(target, access)
        self._info = unary_call(self._channel.channel, _SERVICES["Info"], "Info")
        self._rerank = unary_call(self._channel.channel, _SERVICES["Rerank"], "Rerank")

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server without asking it."""
        return Traits(self._kind, _MAX_DOCUMENTS, version=self._target.engine, cuts_left=True)

    async def learn(self) -> Traits:
        """Read its limits and which model it runs, if it tells.

        Raises:
            ModelNotServable: it runs no reranker.
        """
        try:
            info = await self._channel.call(self._info, tei.InfoRequest(), _INFO_S)
        except CallFailed as failure:
            return usual(self.traits, failure, self._target)
        if info.model_type != tei.MODEL_TYPE_RERANKER:
            raise ModelNotServable(f"the server at {self._target.url} runs no reranker")
        return replace(
            self.traits,
            max_documents=info.max_client_batch_size or _MAX_DOCUMENTS,
            max_tokens=info.max_input_length or None,
            version="@".join(filter(None, (info.model_id, info.model_sha))) or self._target.engine,
        )

    async def ask(self, question: Question) -> Answer:
        """Have documents scored by one call; unlike over HTTP, nothing is cut unless told.

        Raises:
            CallFailed: there is no answer, or none that can be understood.
        """
        left = question.truncation.side is TruncationSide.LEFT
        message = tei.RerankRequest(
            query=question.query,
            texts=question.texts,
            truncate=True,
            raw_scores=self._kind is ScoreKind.RAW_LOGIT,
            truncation_direction=(
                tei.TRUNCATION_DIRECTION_LEFT if left else tei.TRUNCATION_DIRECTION_RIGHT
            ),
        )
        answer = await self._channel.call(self._rerank, message, question.timeout_s)
        scored = ((rank.index, rank.score) for rank in answer.ranks)
        told = outcomes(scored, len(question.texts), self._kind)
        return Answer(told, answer.metadata.compute_tokens)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()
