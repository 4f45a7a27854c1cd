"""gRPC servers that answer as they are told and keep what they were asked."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from rerank_sidecar.third_party import kserve_pb2 as kserve
from rerank_sidecar.third_party import tei_pb2 as tei
from rerank_sidecar.third_party.handlers import handler_of

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass
class Refusal:
    """A status to end a call with, and when it may be repeated."""

    code: grpc.StatusCode
    retry_after_s: float | None = None


@dataclass
class Asked:
    """What a server was asked, with the metadata and the time it had."""

    calls: list[Any] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    left_s: list[float | None] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    async def take(self, message: Any, context: Context) -> None:
        self.calls.append(message)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.left_s.append(context.time_remaining())
        if self.refusals:
            await _refuse(context, self.refusals.pop(0))


async def _refuse(context: Context, refusal: Refusal) -> None:
    if refusal.retry_after_s is None:
        await context.abort(refusal.code, "REQUEST TEXT")
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(refusal.retry_after_s * 1000))
    packed = AnyMessage()
    packed.Pack(info)
    status = status_pb2.Status(code=refusal.code.value[0], message="no", details=[packed])
    await context.abort_with_status(rpc_status.to_status(status))


class TeiServer(Asked):
    """TEI: `answer` makes a score of each text."""

    def __init__(self, answer: Callable[[str], float] = float, model_type: int = 2) -> None:
        super().__init__()
        self.answer = answer
        self.model_type = tei.ModelType.Name(model_type)
        self.drop = 0

    async def Info(self, request: Any, context: Context) -> Any:
        return tei.InfoResponse(
            version="1.9.0",
            model_id="BAAI/bge",
            model_sha="abc",
            model_type=self.model_type,
            max_input_length=512,
            max_client_batch_size=2,
        )

    async def Rerank(self, request: Any, context: Context) -> Any:
        await self.take(request, context)
        ranks = [tei.Rank(index=i, score=self.answer(text)) for i, text in enumerate(request.texts)]
        ranks.sort(key=lambda rank: rank.score, reverse=True)
        kept = ranks[: len(ranks) - self.drop]
        return tei.RerankResponse(ranks=kept, metadata=tei.Metadata(compute_tokens=7))

    async def RerankStream(self, requests: Any, context: Context) -> Any:
        raise NotImplementedError


class TritonServer(Asked):
    """Triton: scores texts by what they spell, in raw tensors."""

    def __init__(self, datatype: str = "FP32") -> None:
        super().__init__()
        self.datatype = datatype
        self.raw = True
        self.rows: int | None = None

    async def ModelInfer(self, request: Any, context: Context) -> Any:
        await self.take(request, context)
        texts = [text.decode() for text in request.inputs[1].contents.bytes_contents]
        scores = [float(text) for text in texts][: self.rows]
        answer = kserve.ModelInferResponse(model_name=request.model_name)
        output = answer.outputs.add(name="logit", datatype=self.datatype, shape=[len(texts), 1])
        if self.raw:
            letter = {"FP32": "f", "FP64": "d", "FP16": "e", "INT32": "i"}.get(self.datatype, "f")
            answer.raw_output_contents.append(struct.pack(f"<{len(scores)}{letter}", *scores))
        else:
            output.contents.fp32_contents.extend(scores)
        return answer


@asynccontextmanager
async def serving(
    servicer: object, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[str]:
    """Serve what a servicer has methods for, on a free port; give `host:port`."""
    server = grpc.aio.server()
    for file in (tei.DESCRIPTOR, kserve.DESCRIPTOR):
        for service in file.services_by_name.values():
            methods = {
                each.name: getattr(servicer, each.name, _missing) for each in service.methods
            }
            if set(methods.values()) != {_missing}:
                handlers = handler_of(service, SimpleNamespace(**methods))
                server.add_generic_rpc_handlers((handlers,))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def _missing(_message: Any, context: Context) -> Any:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
