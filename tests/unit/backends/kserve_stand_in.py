"""A Triton that runs a toy classifier on token ids, over HTTP and over gRPC."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.third_party import kserve_pb2 as kserve
from tests.unit.rerankers.toy_models import ToyClassifier

INPUTS = {"input_ids": "INT64", "attention_mask": "INT64", "token_type_ids": "INT64"}
SEPARATOR = 3


class TritonModel:
    """One model, whose facts a test may change; `batches` are the shapes that it ran."""

    def __init__(self) -> None:
        self.toy = ToyClassifier(SEPARATOR)
        self.inputs: dict[str, str] = dict(INPUTS)
        self.outputs = ["logits"]
        self.max_batch_size: int | None = 4
        self.batches: list[tuple[int, int]] = []
        self.failures: list[int] = []
        self.lose = 0
        self.metadata: list[dict[str, Any]] = []

    def run(self, tensors: Mapping[str, np.ndarray[Any, Any]]) -> list[float]:
        assert set(tensors) == set(self.inputs)
        ids = tensors["input_ids"]
        mask = tensors.get("attention_mask", np.ones_like(ids))
        types = tensors.get("token_type_ids", np.zeros_like(ids))
        assert not types[mask == 0].any()
        self.batches.append((ids.shape[0], ids.shape[1]))
        rows = [
            TokenSequence(ids[row][: mask[row].sum()], types[row][: mask[row].sum()])
            for row in range(len(ids))
        ]
        logits = [float(self.toy.compute(each)[0]) for each in rows]
        return logits[: len(logits) - self.lose]

    async def over_http(self, request: web.Request) -> web.StreamResponse:
        if self.failures:
            return web.Response(status=self.failures.pop(0), text="busy")
        answers = {
            "/v2": {"name": "triton", "version": "2.60.0", "extensions": []},
            "/v2/models/m": {"name": "m", "inputs": self._described(), "outputs": self._outputs()},
            "/v2/models/m/config": {"name": "m", "max_batch_size": self.max_batch_size},
        }
        if request.method == "GET":
            known = request.path in answers and not (
                request.path.endswith("/config") and self.max_batch_size is None
            )
            status = 200 if known else 404
            return web.json_response(answers.get(request.path), status=status)
        assert request.path == "/v2/models/m/infer"
        body = json.loads(await request.read())
        tensors = {
            each["name"]: np.array(each["data"], np.int64).reshape(each["shape"])
            for each in body["inputs"]
        }
        assert [each["datatype"] for each in body["inputs"]] == ["INT64"] * len(self.inputs)
        logits = self.run(tensors)
        [output] = body["outputs"]
        tensor = {"name": output["name"], "datatype": "FP32", "shape": [len(logits), 1]}
        return web.json_response({"model_name": "m", "outputs": [{**tensor, "data": logits}]})

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        self.metadata.append(dict(context.invocation_metadata()))
        return kserve.ServerMetadataResponse(name="triton", version="2.60.0")

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        tensor = kserve.ModelMetadataResponse.TensorMetadata
        return kserve.ModelMetadataResponse(
            name=request.name,
            inputs=[tensor(name=name, datatype=kind) for name, kind in self.inputs.items()],
            outputs=[tensor(name=name, datatype="FP32") for name in self.outputs],
        )

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        config = kserve.ModelConfig(name="m", max_batch_size=self.max_batch_size or 0)
        return kserve.ModelConfigResponse(config=config)

    async def ModelInfer(self, request: Any, context: Any) -> Any:
        assert request.model_name == "m"
        raw = zip(request.inputs, request.raw_input_contents, strict=True)
        logits = self.run(
            {each.name: np.frombuffer(content, "<i8").reshape(each.shape) for each, content in raw}
        )
        answer = kserve.ModelInferResponse(model_name="m")
        answer.outputs.add(name=request.outputs[0].name, datatype="FP32", shape=[len(logits), 1])
        answer.raw_output_contents.append(np.array(logits, "<f4").tobytes())
        return answer

    def _described(self) -> Sequence[dict[str, Any]]:
        return [
            {"name": name, "datatype": kind, "shape": [-1, -1]}
            for name, kind in self.inputs.items()
        ]

    def _outputs(self) -> Sequence[dict[str, Any]]:
        return [{"name": name, "datatype": "FP32", "shape": [-1, 1]} for name in self.outputs]
