"""AWS Bedrock: requests as AWS's own client would write and sign them, answers in its form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.validate import ParamValidator

from rerank_sidecar.errors import InvalidField, InvalidSetting, Overloaded, RemoteFailed
from rerank_sidecar.rerankers.remote.base import Question, Target
from rerank_sidecar.rerankers.remote.bedrock import BedrockWire
from rerank_sidecar.rerankers.remote.options import BedrockOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import Score
from tests.unit.rerankers.remote.stand_in import opened, says, standing_in
from tests.unit.rerankers.toy_models import outcomes_of

MODEL = "cohere.rerank-v3-5:0"
ANSWER = {
    "results": [
        {"index": 1, "relevanceScore": 0.97},
        {"index": 0, "relevanceScore": 0.003},
    ]
}


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-1")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/no/such/file")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/no/such/file")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    yield


async def test_a_question_is_one_that_awss_client_would_send() -> None:
    async with (
        standing_in(says(ANSWER)) as server,
        opened(f"bedrock:{server.url}#{MODEL}", region="eu-central-1") as reranker,
    ):
        scored = await outcomes_of(reranker, "red fruit", ["sky", "apple"])
        assert reranker.info.score_kind is ScoreKind.PROBABILITY
    assert scored == [Score(0.003), Score(0.97)]
    [asked] = server.asked
    assert (asked.method, asked.path) == ("POST", "/rerank")
    assert asked.body == _sent_by_awss_client(server.url, asked.body)
    _check_form(asked.body)
    model = asked.body["rerankingConfiguration"]["bedrockRerankingConfiguration"]
    assert model == {
        "numberOfResults": 2,
        "modelConfiguration": {
            "modelArn": f"arn:aws:bedrock:eu-central-1::foundation-model/{MODEL}"
        },
    }
    assert asked.body["queries"] == [{"type": "TEXT", "textQuery": {"text": "red fruit"}}]
    assert [
        each["inlineDocumentSource"]["textDocument"]["text"] for each in asked.body["sources"]
    ] == ["sky", "apple"]


async def test_a_question_is_signed() -> None:
    async with (
        standing_in(says(ANSWER)) as server,
        opened(f"bedrock:{server.url}#{MODEL}", region="eu-central-1") as reranker,
    ):
        await outcomes_of(reranker, "red fruit", ["sky", "apple"])
    headers = server.asked[0].headers
    assert headers["x-amz-security-token"] == "session-1"
    content = json.dumps(server.asked[0].body, ensure_ascii=False, separators=(",", ":"))
    assert headers["authorization"] == _signature(f"{server.url}/rerank", content, headers)
    assert "secret-1" not in str(headers)


async def test_an_arn_is_taken_as_it_is() -> None:
    arn = "arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0"
    async with (
        standing_in(says(ANSWER)) as server,
        opened(f"bedrock:{server.url}#{arn}", region="us-west-2") as reranker,
    ):
        await outcomes_of(reranker, "q", ["a", "b"])
    told = server.asked[0].body["rerankingConfiguration"]["bedrockRerankingConfiguration"]
    assert told["modelConfiguration"]["modelArn"] == arn


async def test_texts_that_aws_would_refuse_the_call_for() -> None:
    async with (
        standing_in(says({"results": [{"index": 0, "relevanceScore": 0.5}]})) as server,
        opened(f"bedrock:{server.url}#{MODEL}", region="us-west-2") as reranker,
    ):
        empty, long = await outcomes_of(reranker, "q" * 40_000, ["", "x" * 40_000])
    assert isinstance(empty, InvalidField)
    assert long == Score(0.5, truncated=True)
    _check_form(server.asked[0].body)


async def test_refusals() -> None:
    async with (
        standing_in(says({"message": "Too many requests"}, 429)) as server,
        opened(f"bedrock:{server.url}#{MODEL}", region="us-west-2", max_tries=1) as reranker,
    ):
        with pytest.raises(Overloaded):
            await outcomes_of(reranker, "q", ["a"])
        server.usual = says({"message": "no"}, 403)
        with pytest.raises(RemoteFailed, match="403"):
            await outcomes_of(reranker, "q", ["a"])


async def test_the_address_is_awss_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSetting, match="region"):
        async with opened(f"bedrock:{MODEL}"):
            pass
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-north-1")
    async with opened(f"bedrock:{MODEL}") as reranker:
        assert reranker.info.engine == "bedrock"
    wire = BedrockWire(Target("bedrock", "", MODEL, is_default=True), BedrockOptions())
    assert wire.target.url == "https://bedrock-agent-runtime.cn-north-1.amazonaws.com.cn"
    assert "arn:aws-cn:bedrock:cn-north-1" in str(wire.body(Question("q", ("a",), 1.0)))


async def test_without_credentials_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with (
        standing_in(says(ANSWER)) as server,
        opened(f"bedrock:{server.url}#{MODEL}", region="us-west-2") as reranker,
    ):
        with pytest.raises(RemoteFailed, match="no AWS credentials"):
            await outcomes_of(reranker, "q", ["a"])
    assert not server.asked


def _sent_by_awss_client(url: str, parameters: dict[str, Any]) -> Any:
    """Give the body that AWS's client makes of the same parameters."""
    config = Config(retries={"total_max_attempts": 1})
    client = botocore.session.Session().create_client(
        "bedrock-agent-runtime", region_name="eu-central-1", endpoint_url=url, config=config
    )
    bodies: list[Any] = []

    def keep(request: AWSRequest, **_: object) -> None:
        assert request.url == f"{url}/rerank"
        bodies.append(json.loads(request.body))
        raise KeyboardInterrupt

    client.meta.events.register("before-send", keep)
    with pytest.raises(KeyboardInterrupt):
        client.rerank(**parameters)
    client.close()
    return bodies[0]


def _check_form(body: dict[str, Any]) -> None:
    model = botocore.session.Session().get_service_model("bedrock-agent-runtime")
    report = ParamValidator().validate(body, model.operation_model("Rerank").input_shape)
    assert not report.has_errors(), report.generate_report()
    texts = [body["queries"][0]["textQuery"]["text"]]
    texts += [each["inlineDocumentSource"]["textDocument"]["text"] for each in body["sources"]]
    assert all(1 <= len(text) <= 32_000 for text in texts)


def _signature(url: str, content: str, headers: dict[str, str]) -> str:
    """Sign the same request at the same moment with AWS's own code."""

    class AtThatMoment(SigV4Auth):  # type: ignore[misc]
        def _modify_request_before_signing(self, request: AWSRequest) -> None:
            super()._modify_request_before_signing(request)
            del request.headers["X-Amz-Date"]
            request.context["timestamp"] = headers["x-amz-date"]
            request.headers["X-Amz-Date"] = headers["x-amz-date"]

    credentials = botocore.session.Session().get_credentials()
    request = AWSRequest(
        method="POST",
        url=url,
        data=content.encode(),
        headers={"Content-Type": headers["content-type"]},
    )
    AtThatMoment(credentials, "bedrock", "eu-central-1").add_auth(request)
    return str(request.headers["Authorization"])
