"""KServe v2 over HTTP, over a toy: tensors in JSON and as bytes, outputs, parameters, errors."""

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from rerank_sidecar import __version__
from rerank_sidecar.api.dialects.kserve import JSON_LENGTH_HEADER
from rerank_sidecar.rerankers.base import ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind, to_unit
from rerank_sidecar.telemetry.metrics import REQUESTS
from rerank_sidecar.types import Document, LongDocumentPolicy, TruncationSide
from tests.unit.api.toy_engine import CRASHES, FAILS, Toy, client_of, engine_with, unready_engine

PATHS = (
    "/v2/models/toy/infer",
    "/v2/models/toy/versions/1/infer",
    "/kserve/v2/models/toy/infer",
    "/kserve/v2/models/default/versions/7/infer",
)


class CountingToy(Toy):
    """Counts a token for each character of the query and the document."""

    def count_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> list[int]:
        return [len(query) + len(document.text) for document in documents]


def tensor(name: str, texts: Sequence[str], *columns: int) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts), *columns], "datatype": "BYTES", "data": [*texts]}


def body(
    query: Sequence[str], passage: Sequence[str], *columns: int, **more: Any
) -> dict[str, Any]:
    inputs = [tensor("query", query, *columns), tensor("passage", passage, *columns)]
    return {"inputs": inputs, **more}


def raw(texts: Sequence[str]) -> bytes:
    elements = [text.encode() for text in texts]
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


async def infer(
    sent: Mapping[str, Any], toy: Toy | None = None, path: str = PATHS[0], **settings: object
) -> Any:
    async with client_of(engine_with(toy or CountingToy(), **settings)) as client:
        response = await client.post(path, json=sent)
    return response.status_code, response.json()


async def infer_raw(content: bytes, json_length: int | str) -> Any:
    async with client_of(engine_with(CountingToy())) as client:
        headers = {JSON_LENGTH_HEADER: str(json_length)}
        return await client.post(PATHS[0], content=content, headers=headers)


def unit(*logits: float) -> list[float]:
    return [to_unit(ScoreKind.RAW_LOGIT, logit, len(logits)) for logit in logits]


@pytest.mark.parametrize("path", PATHS)
async def test_scores_come_in_input_order(path: str) -> None:
    status, answer = await infer(body(["q"] * 3, ["0.5", "3", "-1"], id="42"), path=path)
    assert status == 200
    [output] = answer.pop("outputs")
    assert answer == {"model_name": "toy", "model_version": "1", "id": "42"}
    assert output.pop("data") == pytest.approx(unit(0.5, 3, -1))
    assert output == {"name": "score", "datatype": "FP32", "shape": [3]}


async def test_the_example_of_the_reference() -> None:
    texts = tensor("query", ["red fruit"] * 2, 1), tensor("passage", ["-9.8", "3.2"], 1)
    sent = {"inputs": texts, "outputs": [{"name": "logit"}]}
    _, answer = await infer(sent)
    [output] = answer["outputs"]
    assert output["data"] == pytest.approx([-9.8, 3.2])
    assert {**output, "data": 0} == {
        "name": "logit",
        "datatype": "FP32",
        "shape": [2, 1],
        "data": 0,
    }


@pytest.mark.parametrize("columns", [(), (1,)])
async def test_every_output_has_a_row_for_each_passage(columns: tuple[int, ...]) -> None:
    names = ["token_count", "logit", "index", "score"]
    outputs = [{"name": name} for name in names]
    _, answer = await infer(body(["qq"] * 2, ["1", "-20"], *columns, outputs=outputs))
    told = {each["name"]: each for each in answer["outputs"]}
    assert list(told) == names
    assert told["token_count"]["data"] == [3, 5]
    assert told["token_count"]["shape"] == [2]
    assert told["index"]["data"] == [0, 1]
    assert told["logit"]["data"] == [1, -20]
    assert told["score"]["data"] == pytest.approx(unit(1, -20))
    assert [told[name]["datatype"] for name in names] == ["INT32", "FP32", "INT32", "FP32"]
    assert all(each["shape"] == [2, *columns] for each in told.values() if each["name"] in "score")


@pytest.mark.parametrize("kind", [ScoreKind.MAXSIM, ScoreKind.PROBABILITY, ScoreKind.LEXICAL])
async def test_scores_are_in_0_to_1_beside_logits_too(kind: ScoreKind) -> None:
    outputs = [{"name": "score"}, {"name": "logit"}]
    _, alone = await infer(body(["q"], ["0.25", "0.5"]), Toy(kind))
    _, beside = await infer(body(["q"], ["0.25", "0.5"], outputs=outputs), Toy(kind))
    assert beside["outputs"][0]["data"] == pytest.approx(alone["outputs"][0]["data"])
    expected = [to_unit(kind, each, 2) for each in (0.25, 0.5)]
    assert beside["outputs"][0]["data"] == pytest.approx(expected)


async def test_one_query_stands_for_all_passages() -> None:
    toy = Toy()
    _, answer = await infer(body(["red fruit"], ["1", "2", "3"]), toy)
    assert toy.queries == ["red fruit"]
    assert answer["outputs"][0]["data"] == pytest.approx(unit(1, 2, 3))


async def test_each_passage_may_have_a_query_of_its_own() -> None:
    toy = Toy()
    status, answer = await infer(body(["a", "b", "a"], ["1", "2", "3"]), toy)
    assert (status, sorted(toy.queries), sorted(toy.texts)) == (200, ["a", "b"], ["1", "2", "3"])
    assert answer["outputs"][0]["data"] == pytest.approx(unit(1, 2, 3))


async def test_no_rows_are_no_scores() -> None:
    status, answer = await infer(body([], []))
    assert (status, answer["outputs"][0]["data"], answer["outputs"][0]["shape"]) == (200, [], [0])
    assert (await infer(body(["q"], [])))[0] == 200


async def test_data_may_be_nested_and_unknown_fields_are_ignored() -> None:
    nested = {**tensor("passage", ["1", "2"], 1), "data": [["1"], ["2"]], "extra": 1}
    sent = {"inputs": [nested, tensor("query", ["q"])], "parameters": {"sequence_id": 3}, "x": 0}
    status, answer = await infer(sent)
    assert (status, answer["outputs"][0]["shape"]) == (200, [2, 1])


async def test_texts_may_be_empty() -> None:
    status, answer = await infer(body([""], ["", "1"]))
    assert (status, answer["outputs"][0]["data"]) == (200, pytest.approx(unit(0, 1)))


# The binary tail


def with_tail(texts: Mapping[str, Sequence[str]], **more: Any) -> tuple[bytes, int]:
    tails = {name: raw(each) for name, each in texts.items()}
    inputs = [
        {
            "name": name,
            "shape": [len(each)],
            "datatype": "BYTES",
            "parameters": {"binary_data_size": len(tails[name])},
        }
        for name, each in texts.items()
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(tails.values()), len(head)


TEXTS = {"passage": ["1", "-2.5", "é"], "query": ["red fruit"]}


async def test_tensors_are_read_from_bytes_and_written_as_bytes() -> None:
    response = await infer_raw(*with_tail(TEXTS, parameters={"binary_data_output": True}))
    assert (response.status_code, response.headers["content-type"]) == (
        200,
        "application/octet-stream",
    )
    length = int(response.headers[JSON_LENGTH_HEADER])
    head, tail = json.loads(response.content[:length]), response.content[length:]
    [output] = head["outputs"]
    assert output["parameters"] == {"binary_data_size": len(tail)}
    assert "data" not in output
    assert np.frombuffer(tail, "<f4") == pytest.approx(unit(1, -2.5, 1))


async def test_each_output_chooses_its_form() -> None:
    outputs = [
        {"name": "index", "parameters": {"binary_data": True}},
        {"name": "score", "parameters": {"binary_data": False}},
        {"name": "logit"},
    ]
    parameters = {"binary_data_output": True}
    response = await infer_raw(*with_tail(TEXTS, outputs=outputs, parameters=parameters))
    length = int(response.headers[JSON_LENGTH_HEADER])
    index, score, logit = json.loads(response.content[:length])["outputs"]
    assert score["data"] == pytest.approx(unit(1, -2.5, 1))
    assert (index["parameters"], logit["parameters"]) == ({"binary_data_size": 12},) * 2
    assert np.frombuffer(response.content[length : length + 12], "<i4").tolist() == [0, 1, 2]
    assert np.frombuffer(response.content[length + 12 :], "<f4").tolist() == [1, -2.5, 1]


async def test_bytes_in_and_json_out() -> None:
    response = await infer_raw(*with_tail(TEXTS))
    assert response.json()["outputs"][0]["shape"] == [3]
    assert JSON_LENGTH_HEADER not in response.headers


BROKEN = {"query": ["q"], "passage": ["1"]}


@pytest.mark.parametrize(
    ("content", "json_length", "words"),
    [
        (b"{}", 3, JSON_LENGTH_HEADER),
        (b"{}", "-1", JSON_LENGTH_HEADER),
        (b"{}", "²", JSON_LENGTH_HEADER),
        (b"{}", "0" * 5000 + "2", JSON_LENGTH_HEADER),
        (with_tail(BROKEN)[0][:-1], with_tail(BROKEN)[1], "binary_data_size"),
        (with_tail(BROKEN)[0] + b"x", with_tail(BROKEN)[1], "more bytes"),
        (b"", 0, "not JSON"),
    ],
)
async def test_a_tail_that_does_not_fit_is_refused(
    content: bytes, json_length: int | str, words: str
) -> None:
    async with client_of(engine_with(Toy())) as client:
        headers = [(JSON_LENGTH_HEADER.encode(), str(json_length).encode())]
        response = await client.post(PATHS[0], content=content, headers=headers)
    assert (response.status_code, list(response.json())) == (400, ["error"])
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    "element", [b"\x05\0\0\0abc", b"\x05\0", b"\xff\xff\xff\xffabc", b"\x01\0\0\0\xff"]
)
async def test_broken_elements_are_refused(element: bytes) -> None:
    size = {"binary_data_size": len(element)}
    passage = {"name": "passage", "shape": [1], "datatype": "BYTES", "parameters": size}
    head = json.dumps({"inputs": [tensor("query", ["q"]), passage]}).encode()
    response = await infer_raw(head + element, len(head))
    assert response.status_code == 400
    assert response.json()["error"].startswith("inputs[1]: ")


# Parameters


@pytest.mark.parametrize(
    ("given", "policy", "side"),
    [
        ({}, None, TruncationSide.RIGHT),
        ({"truncate": "END"}, LongDocumentPolicy.TRUNCATE, TruncationSide.RIGHT),
        ({"truncate": "start"}, LongDocumentPolicy.TRUNCATE, TruncationSide.LEFT),
        ({"truncate": "none"}, LongDocumentPolicy.REJECT, TruncationSide.RIGHT),
    ],
)
async def test_truncate_is_obeyed(
    given: Mapping[str, str], policy: LongDocumentPolicy | None, side: TruncationSide
) -> None:
    toy = Toy()
    assert (await infer(body(["q"], ["1"], parameters=given), toy))[0] == 200
    [options] = toy.options
    assert (options.long_document_policy, options.truncation.side) == (policy, side)


@pytest.mark.parametrize(("level", "priority"), [(0, 0), (1, 1), (2, 0), (3, -1)])
async def test_level_1_goes_first_and_0_is_the_default(level: int, priority: int) -> None:
    toy = Toy()
    await infer(body(["q"], ["1"], parameters={"priority": level}), toy)
    assert toy.options[0].priority == priority


async def test_the_timeout_is_in_microseconds() -> None:
    status, answer = await infer(body(["q"], ["waits"], parameters={"timeout": 20_000}))
    assert (status, list(answer)) == (504, ["error"])


async def test_what_is_too_long_fails_the_call_if_nothing_may_be_cut() -> None:
    sent = body(["q"], ["1", "x" * 101], parameters={"truncate": "NONE"})
    status, answer = await infer(sent, max_document_bytes=100)
    assert (status, answer) == (400, {"error": "passage[1]: over 100 bytes"})


# Failures


@pytest.mark.parametrize("kind", [ScoreKind.RAW_LOGIT, ScoreKind.PROBABILITY, ScoreKind.MAXSIM])
async def test_a_passage_that_fails_alone_gets_the_lowest_score(kind: ScoreKind) -> None:
    outputs = [{"name": "score"}, {"name": "logit"}]
    sent = body(["a", "b", "b"], ["0.5", FAILS, "0.25"], outputs=outputs)
    async with client_of(engine_with(Toy(kind))) as client:
        response = await client.post(PATHS[0], json=sent)
    score, logit = (each["data"] for each in response.json()["outputs"])
    assert score[1] == 0
    assert logit[1] <= min(logit)
    assert all(map(math.isfinite, [*score, *logit]))
    assert response.headers["x-rerank-failed-documents"] == "1;reason=BACKEND_FAILED"


async def test_if_all_fail_the_call_fails() -> None:
    status, answer = await infer(body(["a", "b"], [FAILS, FAILS]))
    assert (status, answer) == (500, {"error": "the forward pass failed"})


async def test_scores_fit_into_a_float_of_four_bytes() -> None:
    _, answer = await infer(body(["q"], ["1e300", "-1e300"], outputs=[{"name": "logit"}]))
    assert answer["outputs"][0]["data"] == [float(f"{sign}3.4028234663852886e+38") for sign in "+-"]


INT64 = {"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [[101, 102]]}
TOP_3 = {"name": "score", "parameters": {"classification": 3}}
QUERY, PASSAGE = tensor("query", ["q"]), tensor("passage", ["1"])


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ({}, "inputs: missing"),
        ({"inputs": {}}, "inputs: expected array"),
        ({"inputs": []}, "inputs: must be query and passage"),
        ({"inputs": [PASSAGE]}, "inputs: must be query and passage"),
        ({"inputs": [QUERY, PASSAGE, PASSAGE]}, "inputs[2].name: must be query and passage"),
        ({"inputs": [INT64]}, "inputs[0].datatype: must be BYTES"),
        ({"inputs": [QUERY, {**PASSAGE, "data": [1]}]}, "inputs[1].data: must be strings"),
        ({"inputs": [QUERY, {**PASSAGE, "data": "1"}]}, "inputs[1].data: expected array"),
        ({"inputs": [QUERY, {**PASSAGE, "shape": [2]}]}, "inputs[1].shape: tells of 2 elements"),
        ({"inputs": [QUERY, {**PASSAGE, "shape": [1, 2]}]}, "inputs[1].shape: must be [n]"),
        ({"inputs": [QUERY, {**PASSAGE, "shape": []}]}, "inputs[1].shape: must be [n]"),
        ({"inputs": [QUERY, {**PASSAGE, "shape": [-1]}]}, "inputs[1].shape: must be [n]"),
        ({"inputs": [QUERY, {"name": "passage", "shape": [1], "datatype": "BYTES"}]}, "missing"),
        (body(["a", "b"], ["1", "2", "3"]), "inputs[0].shape: query must have one"),
        (body(["a", "b"], ["1"]), "inputs[0].shape: query must have one"),
        (body(["q"], ["1"], outputs=[{"name": "nope"}]), "outputs[0].name: must be one of score"),
        (body(["q"], ["1"], outputs=[TOP_3]), "outputs[0].parameters.classification: "),
        (body(["q"], ["1"], parameters={"truncate": "MIDDLE"}), "parameters.truncate: must be"),
        (body(["q"], ["1"], parameters={"truncate": ["END"]}), "parameters.truncate: must be"),
        (body(["q"], ["1"], parameters={"priority": -1}), "parameters.priority: must be a whole"),
        (body(["q"], ["1"], parameters={"priority": 2**40}), "parameters.priority: must be within"),
        (body(["q"], ["1"], parameters={"timeout": 1.5}), "parameters.timeout: must be a whole"),
        (body(["q"], ["1"], parameters={"timeout": True}), "parameters.timeout: must be a whole"),
    ],
)
async def test_errors_are_strings_that_name_the_field(sent: Mapping[str, Any], words: str) -> None:
    status, answer = await infer(sent)
    assert (status, list(answer)) == (400, ["error"])
    assert words in answer["error"]


async def test_a_number_beyond_all_numbers_is_refused() -> None:
    # The lone surrogate has the body read by the parser that knows integers of any length.
    sent = json.dumps(body(["\ud800"], ["1"], parameters={"timeout": 10**400}))
    async with client_of(engine_with(Toy())) as client:
        response = await client.post(PATHS[0], content=sent)
    assert response.status_code == 400
    assert response.json()["error"].startswith("parameters.timeout: ")


async def test_rows_are_counted_over_all_queries() -> None:
    status, answer = await infer(body(["a", "b"], ["1", "2"]), max_documents=1)
    assert (status, answer) == (400, {"error": "passage: more than 1"})


async def test_a_model_that_does_not_count_tokens_says_so() -> None:
    sent = body(["q"], ["1"], outputs=[{"name": "token_count"}])
    status, answer = await infer(sent, Toy())
    assert status == 422
    assert "does not count" in answer["error"]


async def test_what_was_not_foreseen_is_not_told() -> None:
    status, answer = await infer(body(["a", "b"], ["1", CRASHES]))
    assert status == 500
    assert CRASHES not in answer["error"]


async def test_calls_are_counted() -> None:
    counted = REQUESTS.labels(door="kserve", outcome="OK")
    before = counted._value.get()
    await infer(body(["a", "b"], ["1", "2"]))
    assert counted._value.get() == before + 1


# What is asked of a server


@pytest.mark.parametrize("mount", ["", "/kserve"])
async def test_a_server_describes_itself_and_its_models(mount: str) -> None:
    async with client_of(engine_with(Toy())) as client:

        async def told(path: str) -> Any:
            response = await client.get(mount + path)
            return response.status_code, response.json() if response.content else None

        status, server = await told("/v2")
        assert (status, server["version"]) == (200, __version__)
        assert "binary_tensor_data" in server["extensions"]
        assert await told("/v2/health/live") == (200, None)
        assert await told("/v2/health/ready") == (200, None)
        for model in ("/v2/models/toy", "/v2/models/default/versions/1"):
            assert await told(f"{model}/ready") == (200, None)
            status, metadata = await told(model)
            assert (status, metadata["name"], metadata["versions"]) == (200, "toy", ["1"])
            assert [each["name"] for each in metadata["inputs"]] == ["query", "passage"]
            status, config = await told(f"{model}/config")
            assert (status, config["name"], config["max_batch_size"]) == (200, "toy", 10_000)
            assert {each["name"] for each in config["output"]} == {
                each["name"] for each in metadata["outputs"]
            }


async def test_statistics_count_what_was_scored() -> None:
    async with client_of(engine_with(Toy())) as client:

        async def stats() -> Any:
            [one] = (await client.get("/v2/models/toy/stats")).json()["model_stats"]
            return one["inference_count"], one["inference_stats"]["success"]["count"]

        documents, requests = await stats()
        await client.post(PATHS[0], json=body(["q"], ["1", "2", "3"]))
        assert await stats() == (documents + 3, requests + 1)


async def test_before_it_is_ready_a_server_is_alive_and_says_so() -> None:
    async with client_of(unready_engine()) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 400
        not_ready = await client.get("/v2/models/toy/ready")
        assert (not_ready.status_code, list(not_ready.json())) == (503, ["error"])
        refused = await client.post(PATHS[0], json=body(["q"], ["1"]))
        assert (refused.status_code, list(refused.json())) == (503, ["error"])
