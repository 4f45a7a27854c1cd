"""KServe v2 servers such as Triton whose model takes texts, over gRPC."""

from __future__ import annotations

from rerank_sidecar.rerankers.remote.answers import outcomes
from rerank_sidecar.rerankers.remote.base import Access, Answer, Question, Target, Traits
from rerank_sidecar.rerankers.remote.grpc_channel import GrpcChannel
from rerank_sidecar.rerankers.remote.kserve import CUT, KserveWire, outputs_wanted, tensor_scores
from rerank_sidecar.rerankers.remote.options import KserveOptions
from rerank_sidecar.third_party import kserve_pb2 as kserve
from rerank_sidecar.third_party.calls import unary_call
from rerank_sidecar.third_party.kserve_tensors import numbers_of_message, text_message

_SERVICE = kserve.DESCRIPTOR.services_by_name["GRPCInferenceService"]


class KserveGrpcRemote:
    """`inference.GRPCInferenceService/ModelInfer` with two tensors of strings, [n, 1]."""

    def __init__(self, target: Target, options: KserveOptions, access: Access) -> None:
        self._target = target
        self._options = options
        self._kind = options.score_kind or KserveWire.usual_kind
        self._channel = GrpcChannel(target, access)
        self._infer = unary_call(self._channel.channel, _SERVICE, "ModelInfer")

    @property
    def traits(self) -> Traits:
        """Tell what is known of the server."""
        return Traits(self._kind, KserveWire.max_documents, version=self._target.model)

    async def learn(self) -> Traits:
        """It does not tell what a reranker has to know."""
        return self.traits

    async def ask(self, question: Question) -> Answer:
        """Have documents scored by one call.

        Raises:
            CallFailed: there is no answer, or none that can be understood.
        """
        answer = await self._channel.call(self._infer, self._message(question), question.timeout_s)
        scored = tensor_scores(self._options, lambda name: numbers_of_message(answer, name))
        return Answer(outcomes(scored, len(question.texts), self._kind))

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    def _message(self, question: Question) -> kserve.ModelInferRequest:
        names, texts = self._options, question.texts
        message = kserve.ModelInferRequest(
            model_name=self._target.model,
            inputs=[
                text_message(names.query_tensor, [question.query] * len(texts)),
                text_message(names.document_tensor, texts),
            ],
        )
        for name in outputs_wanted(names):
            message.outputs.add(name=name)
        message.parameters["truncate"].string_param = CUT
        return message
