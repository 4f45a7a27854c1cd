"""What the dialects of other people's servers and services have in common, over the toy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from rerank_sidecar.api.dialects import DIALECTS
from rerank_sidecar.errors import ERROR_TABLE, RequestError, RerankError, ServerFault
from tests.unit.api.dialects.calls import post
from tests.unit.api.every_door import is_error_of
from tests.unit.api.toy_engine import CRASHES, FAILS, client_of, unready_engine

Body = dict[str, Any]


def _documents(texts: Sequence[str]) -> Body:
    return {"query": "q", "documents": [*texts]}


def _texts(texts: Sequence[str]) -> Body:
    return {"query": "q", "texts": [*texts]}


def _passages(texts: Sequence[str]) -> Body:
    return {"query": {"text": "q"}, "passages": [{"text": each} for each in texts]}


def _inputs(texts: Sequence[str]) -> Body:
    return {"query": "q", "input": [*texts]}


def _candidates(texts: Sequence[str]) -> Body:
    return {"query": "q", "candidates": [{"text": each} for each in texts]}


def _pairs(texts: Sequence[str]) -> Body:
    return {"text_1": "q", "text_2": [*texts]}


@dataclass(frozen=True)
class Form:
    """Where the parts of a dialect's messages are."""

    path: str
    ask: Callable[[Sequence[str]], Body]
    results: str
    score: str
    floor: float = 0.0
    in_input_order: bool = False


FORMS = {
    "tei": Form("/tei/rerank", _texts, "", "score"),
    "infinity": Form("/infinity/rerank", _documents, "results", "relevance_score"),
    "vllm": Form("/vllm/rerank", _documents, "results", "relevance_score"),
    "vllm_score": Form("/vllm/score", _pairs, "data", "score", in_input_order=True),
    "xinference": Form("/xinference/v1/rerank", _documents, "results", "relevance_score"),
    "llamacpp": Form("/llamacpp/rerank", _documents, "results", "relevance_score", -1e4),
    "llamacpp as tei": Form("/llamacpp/rerank", _texts, "", "score", -1e4),
    "nvidia": Form("/nvidia/v1/ranking", _passages, "rankings", "logit", -1e4),
    "generic": Form("/v1/rerank", _documents, "results", "relevance_score"),
    "cohere_v1": Form("/cohere/v1/rerank", _documents, "results", "relevance_score"),
    "cohere_v2": Form("/cohere/v2/rerank", _documents, "results", "relevance_score"),
    "jina": Form("/jina/v1/rerank", _documents, "results", "relevance_score"),
    "voyage": Form("/voyage/v1/rerank", _documents, "data", "relevance_score"),
    "mixedbread": Form("/mixedbread/v1/reranking", _inputs, "data", "score"),
    "pinecone": Form("/pinecone/rerank", _documents, "data", "score"),
    "librechat": Form("/librechat/v1/rerank", _candidates, "results", "score"),
}

every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


async def ranks(form: Form, texts: Sequence[str], **more: object) -> list[tuple[int, float]]:
    response = await post(form.path, {**form.ask(texts), **more})
    assert response.status_code == 200, response.text
    answer = response.json()
    results = answer[form.results] if form.results else answer
    return [(each["index"], each[form.score]) for each in results]


def indexes(found: Sequence[tuple[int, float]]) -> list[int]:
    return [index for index, _ in found]


@every_form
async def test_best_first_ties_in_input_order(form: Form) -> None:
    found = await ranks(form, ["1", "3", "1", "3"])
    assert indexes(found) == ([0, 1, 2, 3] if form.in_input_order else [1, 3, 0, 2])


@every_form
async def test_a_document_that_fails_alone_is_last_at_the_floor(form: Form) -> None:
    response = await post(form.path, form.ask(["1", FAILS, "-2"]))
    assert response.headers["X-Rerank-Failed-Documents"] == "1;reason=BACKEND_FAILED"
    found = await ranks(form, ["1", FAILS, "-2"])
    assert indexes(found) == ([0, 1, 2] if form.in_input_order else [0, 2, 1])
    assert dict(found)[1] == form.floor


@every_form
async def test_if_all_fail_the_call_fails_in_the_dialects_form(form: Form) -> None:
    response = await post(form.path, form.ask([FAILS, FAILS]))
    assert response.status_code == (424 if form.path == "/tei/rerank" else 500)
    assert "the forward pass failed" in response.text


@every_form
async def test_unknown_fields_and_empty_texts_are_accepted(form: Form) -> None:
    found = await ranks(form, ["", "1"], a_new_field={"a": [None]}, user="somebody")
    assert sorted(indexes(found)) == [0, 1]


@every_form
async def test_nulls_mean_that_a_field_is_not_set(form: Form) -> None:
    asked = form.ask(["1", "2"])
    fields = type_of(form).__struct_fields__
    optional = {name: None for name in fields if name not in asked and name != "texts"}
    assert optional
    assert await ranks(form, ["1", "2"], **optional) == await ranks(form, ["1", "2"])


@pytest.mark.parametrize("form", [form for name, form in FORMS.items() if name != "librechat"])
async def test_the_model_is_picked_by_name(form: Form) -> None:
    assert await ranks(form, ["1"], model="toy")
    response = await post(form.path, {**form.ask(["1"]), "model": "x"}, unknown_model="error")
    assert 400 <= response.status_code < 500
    assert "served are" in response.text


@every_form
@pytest.mark.parametrize("body", [{}, {"query": "q"}, {"query": 5, "documents": ["a"]}])
async def test_a_wrong_request_is_told_as_one(form: Form, body: Mapping[str, Any]) -> None:
    response = await post(form.path, body)
    assert 400 <= response.status_code < 500
    assert is_error_of(dialect_of(form), response)


@every_form
async def test_too_many_documents_are_refused_in_the_clients_words(form: Form) -> None:
    response = await post(form.path, form.ask(["1", "2", "3"]), max_documents=2)
    assert 400 <= response.status_code < 500
    sent = [name for name, value in form.ask(["1", "2", "3"]).items() if isinstance(value, list)]
    assert any(f"{name}: more than 2" in response.text for name in (*sent, told_field(form)))


@every_form
async def test_what_was_not_foreseen_is_not_told(form: Form) -> None:
    response = await post(form.path, form.ask(["1", CRASHES]))
    assert response.status_code == 500
    assert CRASHES not in response.text


@every_form
async def test_not_ready_is_told_with_a_time_to_come_again(form: Form) -> None:
    async with client_of(unready_engine()) as client:
        response = await client.post(form.path, json=form.ask(["1"]))
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) >= 1


@every_form
def test_every_error_has_a_status_of_its_kind(form: Form) -> None:
    """Only TEI tells a fault of the server with a 4xx, its 424."""
    for kind in ERROR_TABLE:
        if issubclass(kind, RequestError):
            assert 400 <= status_of(form, kind) < 500
        if issubclass(kind, ServerFault):
            status = ERROR_TABLE[kind].http_status
            assert status_of(form, kind) in {status, 424 if form.path == "/tei/rerank" else status}


def status_of(form: Form, kind: type[RerankError]) -> int:
    status: int = dialect_of(form).render_error(kind("told"))[0]
    return status


def dialect_of(form: Form) -> Any:
    (found,) = (
        each
        for each in DIALECTS
        # Generic has bare paths only.
        if form.path in map(each.mount.__add__, each.paths or ["/v1/rerank"])
    )
    return found


def type_of(form: Form) -> Any:
    return dialect_of(form).message_type


def told_field(form: Form) -> str:
    return str(dialect_of(form).field_names.get("documents", "documents"))
