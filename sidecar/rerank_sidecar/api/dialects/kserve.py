"""The Open Inference Protocol (KServe v2) over HTTP, as Triton's clients speak it (2.73).

A body is JSON, or JSON and the bytes of tensors behind it. Triton's client sends tensors that way
unless told otherwise, and wants them back so unless it names outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import msgspec
from msgspec import UNSET

from rerank_sidecar.api.dialects.base import Dialect, Headers, Info, ServerState
from rerank_sidecar.api.dialects.kserve_about import (
    Json,
    model_config,
    model_metadata,
    model_statistics,
    server_metadata,
)
from rerank_sidecar.api.dialects.kserve_inference import FIELD_NAMES, Inference, WantedOutput
from rerank_sidecar.api.dialects.kserve_messages import (
    KserveAnswer,
    KserveError,
    KserveInput,
    KserveOutput,
    KserveRequest,
)
from rerank_sidecar.api.json_body import parse_json
from rerank_sidecar.api.tensors import NumberTensor, TextTensor, check_text_tensor, read_raw_texts
from rerank_sidecar.errors import InvalidField, MalformedBody, RerankError, error_row
from rerank_sidecar.types import ModelDescription, PairRequest, RerankResult

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""How many bytes of a body are JSON; the rest are tensors."""


class KserveDialect(Dialect[KserveRequest]):
    """Answers numbers in input order; the path names the model."""

    name: ClassVar[str] = "kserve"
    summary: ClassVar[str] = "Score tensors of queries and passages as KServe v2 does"
    mount: ClassVar[str] = "/kserve"
    paths: ClassVar[tuple[str, ...]] = (
        "/v2/models/{model:path}/versions/{version}/infer",
        "/v2/models/{model:path}/infer",
    )
    field_names: ClassVar[Mapping[str, str]] = FIELD_NAMES
    message_type = KserveRequest
    answer_type: ClassVar[type] = KserveAnswer
    error_type: ClassVar[type] = KserveError
    example: ClassVar[Mapping[str, Any]] = {
        "inputs": [
            {"name": "query", "shape": [1], "datatype": "BYTES", "data": ["red fruit"]},
            {"name": "passage", "shape": [2], "datatype": "BYTES", "data": ["sky", "apple"]},
        ],
        "outputs": [{"name": "score"}],
    }

    def decode(self, body: bytes, headers: Headers) -> KserveRequest:
        """Read the JSON, and into its inputs the tensors behind it.

        Raises:
            RequestError: it is not JSON, or the tail does not have what the JSON says.
        """
        length = _json_length(body, headers)
        message = parse_json(body[:length], KserveRequest)
        return msgspec.structs.replace(message, inputs=_with_tail(message.inputs, body[length:]))

    def parse(self, message: KserveRequest) -> PairRequest:
        """Put the rows together."""
        return _inference(message).request(model=None)

    def render(self, message: KserveRequest, result: RerankResult) -> KserveAnswer:
        """Give the outputs that were asked for, in input order."""
        model = result.summary.model
        return KserveAnswer(
            model.name,
            model.version,
            [_output(each) for each in _inference(message).answer(result)],
            message.id or UNSET,
        )

    def encode(self, message: KserveRequest, answer: Any) -> tuple[bytes, Headers]:  # noqa: ANN401
        """Write JSON, and behind it the outputs that are wanted as bytes."""
        binary = [_is_binary(message, each.name) for each in answer.outputs]
        if not any(binary):
            return super().encode(message, answer)
        tails = [
            _tensor(each).raw if wanted else None
            for each, wanted in zip(answer.outputs, binary, strict=True)
        ]
        outputs = [_without_data(*each) for each in zip(answer.outputs, tails, strict=True)]
        json = msgspec.json.encode(msgspec.structs.replace(answer, outputs=outputs))
        content = b"".join((json, *(each for each in tails if each is not None)))
        return content, {
            "Content-Type": "application/octet-stream",
            JSON_LENGTH_HEADER: str(len(json)),
        }

    def render_error(self, error: RerankError) -> tuple[int, KserveError]:
        """Give the message as a string; the client shows it."""
        return error_row(error).http_status, KserveError(error.message)

    def info(self) -> Mapping[str, Info]:
        """Tell health, and describe the server and its models; any version is the one served."""
        about: dict[str, Info] = {
            "/v2": lambda _state, _model: (200, server_metadata()),
            "/v2/health/live": lambda _state, _model: (200, None),
            # "True with 200, false with a 4xx", says the protocol; Triton takes this one.
            "/v2/health/ready": lambda state, _model: (200 if state.is_ready else 400, None),
        }
        for model in ("/v2/models/{model:path}/versions/{version}", "/v2/models/{model:path}"):
            about[f"{model}/ready"] = _tell_ready
            about[f"{model}/config"] = _config
            about[f"{model}/stats"] = _about(model_statistics)
            about[model] = _about(model_metadata)
        return about


def _inference(message: KserveRequest) -> Inference:
    inputs = [_text_tensor(each, f"inputs[{at}]") for at, each in enumerate(message.inputs)]
    outputs = [WantedOutput(each.name, each.parameters) for each in message.outputs]
    return Inference.of(inputs, outputs, message.parameters)


def _text_tensor(given: KserveInput, field: str) -> TextTensor:
    texts = list(_texts(given.data or [], field)) if given.datatype == "BYTES" else []
    check_text_tensor(given.datatype, given.shape, len(texts), field)
    return TextTensor(given.name, tuple(given.shape), texts, field)


def _texts(data: list[Any], field: str) -> Iterator[str]:
    """Give the elements of data that may be flat or have a list for each row."""
    for row in data:
        for each in row if isinstance(row, list) else [row]:
            if not isinstance(each, str):
                raise InvalidField(f"{field}.data: must be strings", f"{field}.data")
            yield each


def _json_length(body: bytes, headers: Headers) -> int:
    given = headers.get(JSON_LENGTH_HEADER)
    if given is None:
        return len(body)
    if not (re.fullmatch("[0-9]{1,18}", given) and int(given) <= len(body)):
        raise MalformedBody(f"{JSON_LENGTH_HEADER}: must be a number of bytes of the body")
    return int(given)


def _with_tail(inputs: list[KserveInput], tail: bytes) -> list[KserveInput]:
    filled, place = [], 0
    for at, each in enumerate(inputs):
        size, field = each.parameters.get("binary_data_size"), f"inputs[{at}]"
        if size is None:
            filled.append(_with_data(each, field))
            continue
        if not isinstance(size, int) or not 0 <= size <= len(tail) - place:
            field = f"{field}.parameters.binary_data_size"
            raise InvalidField(f"{field}: must be bytes that follow the JSON", field)
        texts = read_raw_texts(tail[place : place + size], field)
        filled.append(msgspec.structs.replace(each, data=texts))
        place += size
    if place != len(tail):
        raise MalformedBody("body: has more bytes behind the JSON than its inputs account for")
    return filled


def _with_data(given: KserveInput, field: str) -> KserveInput:
    if given.data is UNSET:
        missing = "missing, and so is binary_data_size; shared memory is not read"
        raise InvalidField(f"{field}.data: {missing}", f"{field}.data")
    return given


def _output(tensor: NumberTensor) -> KserveOutput:
    return KserveOutput(
        tensor.name, tensor.datatype, list(tensor.shape), data=tensor.values.tolist()
    )


def _tensor(output: KserveOutput) -> NumberTensor:
    return NumberTensor.of(output.name, output.datatype, output.shape, output.data or [])


def _without_data(output: KserveOutput, raw: bytes | None) -> KserveOutput:
    if raw is None:
        return output
    return msgspec.structs.replace(output, data=UNSET, parameters={"binary_data_size": len(raw)})


def _is_binary(message: KserveRequest, output: str) -> bool:
    wanted = [each.parameters for each in message.outputs if each.name == output]
    usual = message.parameters.get("binary_data_output", False)
    return bool(wanted[0].get("binary_data", usual) if wanted else usual)


def _tell_ready(state: ServerState, model: str | None) -> tuple[int, None]:
    state.describe(model)
    return 200, None


def _config(state: ServerState, model: str | None) -> tuple[int, Json]:
    return 200, model_config(state.describe(model), state.settings_of(model))


def _about(tell: Callable[[ModelDescription], Json]) -> Info:
    def answer(state: ServerState, model: str | None) -> tuple[int, Json]:
        return 200, tell(state.describe(model))

    return answer
