"""What only other clients send: every legal form is answered, every other one told so in JSON."""

import json
import math
import urllib.request
from collections.abc import Iterator

import httpx
import pytest


@pytest.fixture
def client(http_port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60) as each:
        yield each


@pytest.mark.parametrize("path", ["/rerank", "/api/v1/rerank"])
@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (rb'{"query": "red \ud83d", "documents": ["an \ud83c apple", "\udf4e"]}', 2),
        (rb'{"query": "red", "documents": ["\ud83c\udf4e"]}', 1),
        (b'\xef\xbb\xbf{"query": "red", "documents": ["apple"]}', 1),
        ('\r\n\t {"documents":["\U0001f34e","\uffff"],"query":"red"}\n'.encode(), 2),
    ],
)
def test_legal_bodies(client: httpx.Client, path: str, body: bytes, sent: int) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 200
    answer = response.json()
    scores = [each.get("score") for each in answer.get("scores") or answer["results"]]
    values = [each["value"] if isinstance(each, dict) else each for each in scores]
    assert len(values) == sent
    assert all(math.isfinite(value) for value in values)


def test_half_a_character_is_answered_as_the_replacement_character(client: httpx.Client) -> None:
    body = rb'{"query": "red", "documents": ["an \ud83c apple", "an \ufffd apple"]}'
    first, second = client.post("/rerank", content=body).json()["scores"]
    assert first == second
    assert first["document"] == "an \ufffd apple"


@pytest.mark.parametrize("path", ["/rerank", "/api/v1/rerank"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"query=red&documents=apple",
        b'{"query": "red", "documents": ["apple"], "score_threshold": NaN}',
        b'{"query": "red", "documents": ["\xff"]}',
        b'{"query": "red", "documents": ["apple"',
        b'{"query": "red", "documents": [["apple"]]}',
        b'{"query": null, "documents": []}',
        b'{"query": "red", "documents": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
def test_other_bodies(client: httpx.Client, path: str, body: bytes) -> None:
    response = client.post(path, content=body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.json()["error"]
    assert "apple" not in response.text


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "text/plain", "x"]
)
def test_the_content_type_does_not_matter(client: httpx.Client, content_type: str) -> None:
    body = json.dumps({"query": "red", "documents": ["apple"]})
    response = client.post("/rerank", content=body, headers={"Content-Type": content_type})
    assert response.status_code == 200


def test_a_form_by_name_only(http_port: int) -> None:
    url = f"http://127.0.0.1:{http_port}/rerank"
    body = json.dumps({"query": "red", "documents": ["apple"]}).encode()
    with urllib.request.urlopen(url, body) as response:
        assert len(json.load(response)["scores"]) == 1


def test_the_native_form_says_where_its_scores_come_from(client: httpx.Client) -> None:
    documents = ["the sky is blue", "a red apple"]
    body = {"query": "red fruit", "documents": documents, "options": {"return_documents": True}}
    answer = client.post("/api/v1/rerank", json=body).json()
    assert [each["document"]["text"] for each in answer["results"]] == documents[::-1]
    models = client.get("/api/v1/models").json()["models"]
    assert answer["summary"]["model"] in [each["model"] for each in models]
    assert answer["summary"]["usage"]["pairs"] == 2
