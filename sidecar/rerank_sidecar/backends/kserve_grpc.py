"""One model of a KServe v2 server over gRPC, with raw tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from rerank_sidecar.backends.kserve import InferenceFailed, ModelTensors, Tokens
from rerank_sidecar.third_party import kserve_pb2 as kserve
from rerank_sidecar.third_party.calls import unary_call
from rerank_sidecar.third_party.kserve_tensors import Numbers, numbers_of_message, token_message

_SERVICE = kserve.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_MOST_MESSAGE_BYTES = 67_108_864
_TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


class KserveGrpcClient:
    """Talks with a server at `address`, `host:port`; without credentials, in plain text."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        metadata: tuple[tuple[str, str], ...],
        credentials: grpc.ChannelCredentials | None,
        timeout_s: float,
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
        ]
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options)
        else:
            self._channel = grpc.secure_channel(address, credentials, options)
        self._model = model
        self._metadata = metadata
        self._timeout_s = timeout_s

    def tensors(self) -> ModelTensors:
        """Ask what the model takes and gives, and Triton for how many rows at once.

        Raises:
            InferenceFailed: the server does not answer, or has no such model.
        """
        server = self._asked("ServerMetadata", kserve.ServerMetadataRequest())
        model = self._asked("ModelMetadata", kserve.ModelMetadataRequest(name=self._model))
        try:
            told = self._asked("ModelConfig", kserve.ModelConfigRequest(name=self._model))
            rows = told.config.max_batch_size
        except InferenceFailed:
            rows = 0  # an extension of Triton's
        return ModelTensors(
            server=f"{server.name} {server.version}",
            inputs={each.name: each.datatype for each in model.inputs},
            outputs=tuple(each.name for each in model.outputs),
            max_batch_size=rows if rows > 0 else None,
        )

    def infer(self, inputs: Mapping[str, Tokens], output: str) -> Numbers:
        """Run one batch.

        Raises:
            InferenceFailed: the server refused or failed, or answered what cannot be understood.
        """
        message = kserve.ModelInferRequest(
            model_name=self._model,
            inputs=[token_message(name, tokens) for name, tokens in inputs.items()],
            raw_input_contents=[tokens.astype("<i8").tobytes() for tokens in inputs.values()],
        )
        message.outputs.add(name=output)
        answer = self._asked("ModelInfer", message)
        try:
            return numbers_of_message(answer, output)
        except ValueError as error:
            raise InferenceFailed(f"the answer cannot be understood: {error}") from None

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _asked(self, method: str, message: object) -> Any:  # noqa: ANN401 - a message
        call = unary_call(self._channel, _SERVICE, method)
        try:
            return call(message, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            code = error.code()
            raise InferenceFailed(
                f"the server answered with {code.name}", is_transient=code in _TRANSIENT
            ) from error
