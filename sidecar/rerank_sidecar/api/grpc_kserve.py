"""The Open Inference Protocol (KServe v2) over gRPC, as Triton's clients speak it (2.73)."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from rerank_sidecar.api.dialects.kserve_about import model_config, model_metadata, server_metadata
from rerank_sidecar.api.dialects.kserve_inference import FIELD_NAMES, Inference, WantedOutput
from rerank_sidecar.api.grpc_errors import Wording, answering
from rerank_sidecar.api.http_answer import failed_documents
from rerank_sidecar.api.tensors import (
    BYTES,
    FP32,
    NumberTensor,
    TextTensor,
    check_text_tensor,
    read_raw_texts,
    read_texts,
)
from rerank_sidecar.api.threads import are_large, in_thread_if, is_large
from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.pairs import rerank_pairs
from rerank_sidecar.errors import (
    InvalidField,
    ModelNotFound,
    RerankError,
    Unavailable,
    error_row,
)
from rerank_sidecar.telemetry import metrics
from rerank_sidecar.telemetry.crashes import log_crash
from rerank_sidecar.third_party import kserve_pb2 as kserve
from rerank_sidecar.types import PairRequest, RerankResult

Context = grpc.aio.ServicerContext[Any, Any]

FAILED_PARAMETER = "failed_documents"
"""Names in an answer the passages that failed alone, as the HTTP header does: `3;reason=...`."""

_WORDING = Wording("grpc_kserve", FIELD_NAMES)
_STREAM = Wording("grpc_kserve_stream", FIELD_NAMES)
"""A stream is counted apart from the requests in it."""

_LOG = logging.getLogger(__name__)


class KserveService:
    """Answers numbers in input order; any version of a model is the one that is served."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ServerLive(
        self, request: kserve.ServerLiveRequest, context: Context
    ) -> kserve.ServerLiveResponse:
        """Tell that the process answers."""
        async with answering(context, _WORDING):
            return kserve.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: kserve.ServerReadyRequest, context: Context
    ) -> kserve.ServerReadyResponse:
        """Tell whether requests are answered now."""
        async with answering(context, _WORDING):
            return kserve.ServerReadyResponse(ready=self._engine.is_ready)

    async def ModelReady(
        self, request: kserve.ModelReadyRequest, context: Context
    ) -> kserve.ModelReadyResponse:
        """Tell whether requests for a model are answered now."""
        async with answering(context, _WORDING):
            try:
                self._engine.describe(request.name or None)
            except (ModelNotFound, Unavailable):
                return kserve.ModelReadyResponse(ready=False)
            return kserve.ModelReadyResponse(ready=True)

    async def ServerMetadata(
        self, request: kserve.ServerMetadataRequest, context: Context
    ) -> kserve.ServerMetadataResponse:
        """Name the server and what it can do besides the protocol."""
        async with answering(context, _WORDING):
            return ParseDict(server_metadata(), kserve.ServerMetadataResponse())

    async def ModelMetadata(
        self, request: kserve.ModelMetadataRequest, context: Context
    ) -> kserve.ModelMetadataResponse:
        """Describe a model's tensors."""
        async with answering(context, _WORDING):
            about = model_metadata(self._engine.describe(request.name or None))
            return ParseDict(about, kserve.ModelMetadataResponse())

    async def ModelConfig(
        self, request: kserve.ModelConfigRequest, context: Context
    ) -> kserve.ModelConfigResponse:
        """Describe a model as Triton's configuration does."""
        async with answering(context, _WORDING):
            name = request.name or None
            model, settings = self._engine.describe(name), self._engine.settings_of(name)
            about = {"config": model_config(model, settings)}
            return ParseDict(about, kserve.ModelConfigResponse())

    async def ModelInfer(
        self, request: kserve.ModelInferRequest, context: Context
    ) -> kserve.ModelInferResponse:
        """Score the rows of one message."""
        async with answering(context, _WORDING):
            return await self._infer(request, context.time_remaining())

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[kserve.ModelInferRequest], context: Context
    ) -> AsyncIterator[kserve.ModelStreamInferResponse]:
        """Score message after message; one that cannot be answered does not end the stream."""
        async with answering(context, _STREAM):
            async for request in request_iterator:
                yield await self._infer_or_tell(request, context.time_remaining())

    async def _infer_or_tell(
        self, request: kserve.ModelInferRequest, left_s: float | None
    ) -> kserve.ModelStreamInferResponse:
        outcome, response = "OK", kserve.ModelStreamInferResponse()
        try:
            response.infer_response.CopyFrom(await self._infer(request, left_s))
        except Exception as error:  # noqa: BLE001 - the stream goes on
            told = _WORDING.told(error)
            if not isinstance(error, RerankError):
                log_crash(_LOG, "a request of a stream over gRPC", error)
            outcome, response.error_message = error_row(told).reason, told.message
            response.infer_response.id = request.id
        metrics.REQUESTS.labels(door=_WORDING.door, outcome=outcome).inc()
        return response

    async def _infer(
        self, request: kserve.ModelInferRequest, left_s: float | None
    ) -> kserve.ModelInferResponse:
        large = is_large(0, request.ByteSize())
        inference, asked = await in_thread_if(large, _read, request)
        result = await rerank_pairs(self._engine, self._within(left_s, asked))
        large = are_large(asked.documents)
        return await in_thread_if(large, _write, request, inference, result)

    def _within(self, left_s: float | None, asked: PairRequest) -> PairRequest:
        own_s = asked.options.timeout_s
        limit_s = self._engine.settings.request_timeout_s if left_s is None else left_s
        timeout_s = limit_s if own_s is None else min(limit_s, own_s)
        return replace(asked, options=replace(asked.options, timeout_s=timeout_s))


def _read(request: kserve.ModelInferRequest) -> tuple[Inference, PairRequest]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidField(
            "raw_input_contents: must be one for each input; shared memory is not read",
            "raw_input_contents",
        )
    inference = Inference.of(
        [_text_tensor(request, at) for at in range(len(request.inputs))],
        [WantedOutput(each.name, _parameters(each.parameters)) for each in request.outputs],
        _parameters(request.parameters),
    )
    return inference, inference.request(request.model_name)


def _text_tensor(request: kserve.ModelInferRequest, at: int) -> TextTensor:
    given, field, texts = request.inputs[at], f"inputs[{at}]", list[str]()
    if given.datatype == BYTES and request.raw_input_contents:
        texts = read_raw_texts(request.raw_input_contents[at], field)
    elif given.datatype == BYTES:
        texts = read_texts(given.contents.bytes_contents, field)
    check_text_tensor(given.datatype, given.shape, len(texts), field)
    return TextTensor(given.name, tuple(given.shape), texts, field)


def _parameters(given: Mapping[str, kserve.InferParameter]) -> dict[str, Any]:
    chosen = ((name, each, each.WhichOneof("parameter_choice")) for name, each in given.items())
    return {name: getattr(each, kind) for name, each, kind in chosen if kind is not None}


def _write(
    request: kserve.ModelInferRequest, inference: Inference, result: RerankResult
) -> kserve.ModelInferResponse:
    model = result.summary.model
    response = kserve.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request.id
    )
    for failed in failed_documents(result).values():
        response.parameters[FAILED_PARAMETER].string_param = failed
    for tensor in inference.answer(result):
        _add(tensor, response, is_raw=bool(request.raw_input_contents))
    return response


def _add(tensor: NumberTensor, response: kserve.ModelInferResponse, is_raw: bool) -> None:
    output = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    if is_raw:  # as it was sent, and Triton's client reads numbers in this form only
        response.raw_output_contents.append(tensor.raw)
    elif tensor.datatype == FP32:
        output.contents.fp32_contents.extend(tensor.values.tolist())
    else:
        output.contents.int_contents.extend(tensor.values.tolist())
