"""What servers tell of themselves, what they are shown and told, and what is not sent them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rerank_sidecar.errors import InvalidField, NotSupportedByModel
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import LongDocumentPolicy, Score, Truncation, TruncationSide
from tests.unit.rerankers.remote.stand_in import opened, results, says, standing_in
from tests.unit.rerankers.toy_models import outcomes_of

TEXTS = ["sky", "apple"]

TEI_INFO = {
    "model_id": "BAAI/bge-reranker-base",
    "model_sha": "2cfc18c",
    "model_dtype": "float16",
    "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
    "max_concurrent_requests": 512,
    "max_input_length": 512,
    "max_client_batch_size": 2,
    "version": "1.9.0",
    "auto_truncate": True,
}


@pytest.mark.parametrize(
    ("options", "raw", "kind"),
    [
        ({}, True, ScoreKind.RAW_LOGIT),
        ({"score_kind": "PROBABILITY"}, False, ScoreKind.PROBABILITY),
    ],
)
async def test_tei_tells_its_limits(options: dict[str, Any], raw: bool, kind: ScoreKind) -> None:
    ranks = [{"index": 1, "score": 0.97}, {"index": 0, "score": 0.003}]
    async with (
        standing_in(says(ranks), says(TEI_INFO)) as server,
        opened(f"tei:{server.url}", **options) as reranker,
    ):
        left = ScoreOptions(truncation=Truncation(side=TruncationSide.LEFT))
        await outcomes_of(reranker, "red fruit", [*TEXTS, *TEXTS], options=left)
        scored = await outcomes_of(reranker, "red fruit", TEXTS)
    assert scored == [Score(0.003), Score(0.97)]
    assert server.asked[0].path == "/info"
    assert [len(each.body["texts"]) for each in server.posts] == [2, 2, 2]
    directions = [each.body.get("truncation_direction") for each in server.posts]
    assert directions == ["Left", "Left", None]
    assert server.posts[2].path == "/rerank"
    assert server.posts[2].body == {
        "query": "red fruit",
        "texts": TEXTS,
        "raw_scores": raw,
        "truncate": True,
    }
    info = reranker.info
    assert info.score_kind is kind
    assert info.max_tokens == 512
    assert info.version.startswith("BAAI/bge-reranker-base@2cfc18c-")


async def test_tei_that_does_not_tell_its_limits_gets_its_usual_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ranks = [{"index": i, "score": 0.0} for i in range(32)]
    async with (
        standing_in(says(ranks), says("not here", 404)) as server,
        opened(f"tei:{server.url}") as reranker,
    ):
        await outcomes_of(reranker, "red fruit", ["a"] * 64)
    assert [len(each.body["texts"]) for each in server.posts] == [32, 32]
    assert "does not tell about itself" in caplog.text


@pytest.mark.parametrize(
    ("engine", "key_env", "header"),
    [
        ("vllm", "VLLM_API_KEY", "authorization"),
        ("infinity", "INFINITY_API_KEY", "authorization"),
        ("xinference", "XINFERENCE_API_KEY", "authorization"),
        ("llamacpp", "LLAMA_API_KEY", "authorization"),
    ],
)
async def test_a_servers_own_key_comes_from_its_usual_variable(
    engine: str, key_env: str, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(key_env, "secret-1")
    async with (
        standing_in(says(results("results", "relevance_score"))) as server,
        opened(f"{engine}:{server.url}#m", score_kind="PROBABILITY") as reranker,
    ):
        await outcomes_of(reranker, "red fruit", TEXTS)
    assert server.asked[0].headers[header] == "Bearer secret-1"


async def test_pinecone_takes_its_key_and_version_in_headers_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    async with (
        standing_in(says(results("data", "score"))) as server,
        opened(f"pinecone:{server.url}#m", api_key_env="MY_KEY") as reranker,
    ):
        await outcomes_of(reranker, "red fruit", TEXTS)
    headers = server.asked[0].headers
    assert headers["api-key"] == "secret-1"
    assert headers["x-pinecone-api-version"] == "2025-10"
    assert "authorization" not in headers


async def test_the_scheme_of_a_key_can_be_another() -> None:
    async with standing_in(says([{"index": 0, "score": 1.0}]), says(TEI_INFO)) as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BASETEN_API_KEY", "secret-1")
            source = f"tei:{server.url}/environments/production/sync"
            options = {"api_key_env": "BASETEN_API_KEY", "api_key_scheme": "Api-Key"}
            async with opened(source, **options) as reranker:
                await outcomes_of(reranker, "q", ["a"])
    assert server.posts[0].path == "/environments/production/sync/rerank"
    assert server.posts[0].headers["authorization"] == "Api-Key secret-1"


async def test_jinas_listwise_model_gives_cosines_of_a_call_of_its_own() -> None:
    answer = {"results": [{"index": i, "relevance_score": -0.1 * i} for i in range(5)]}
    async with standing_in(says(answer)) as server:
        source = f"jina:{server.url}#jina-reranker-v3"
        async with opened(source, max_documents_per_call=2) as reranker:
            scored = await outcomes_of(reranker, "red fruit", ["a"] * 5)
            info = reranker.info
    assert scored == [Score(-0.1 * i) for i in range(5)]
    assert len(server.asked) == 1
    assert info.score_kind is ScoreKind.COSINE
    assert (info.comparable_across_requests, info.keep_scores) == (False, False)


async def test_cohere_is_told_how_much_to_read() -> None:
    async with (
        standing_in(says(results("results", "relevance_score"))) as server,
        opened(f"cohere:{server.url}#m") as reranker,
    ):
        limited = ScoreOptions(truncation=Truncation(max_tokens_per_document=64))
        await outcomes_of(reranker, "red fruit", TEXTS, options=limited)
    assert server.asked[0].body["max_tokens_per_doc"] == 64


@pytest.mark.parametrize(
    "options",
    [
        ScoreOptions(long_document_policy=LongDocumentPolicy.CHUNK),
        ScoreOptions(long_document_policy=LongDocumentPolicy.REJECT),
        ScoreOptions(truncation=Truncation(max_tokens_per_document=64)),
        ScoreOptions(truncation=Truncation(side=TruncationSide.LEFT)),
    ],
)
async def test_what_a_server_cannot_be_told_is_refused(options: ScoreOptions) -> None:
    async with (
        standing_in(says(results("results", "relevance_score"))) as server,
        opened(f"jina:{server.url}#m") as reranker,
    ):
        with pytest.raises(NotSupportedByModel):
            await outcomes_of(reranker, "red fruit", TEXTS, options=options)
    assert not server.asked


async def test_documents_that_would_fail_a_whole_call_fail_alone() -> None:
    answer = {"rankings": [{"index": 0, "logit": 3.2}]}
    async with (
        standing_in(says(answer)) as server,
        opened(f"nvidia:{server.url}#m") as reranker,
    ):
        scored = await outcomes_of(reranker, "red fruit", ["", "apple", " \n"])
    assert [type(each) for each in scored] == [InvalidField, Score, InvalidField]
    assert server.posts[0].body["passages"] == [{"text": "apple"}]


async def test_a_text_is_cut_where_more_would_fail_the_call() -> None:
    answer = {"results": [{"index": i, "relevance_score": 0.5} for i in range(2)]}
    whole, cut = Meter(), Meter()
    async with (
        standing_in(says(answer)) as server,
        opened(f"infinity:{server.url}") as reranker,
    ):
        texts, how = ["short", "x" * 122_881], ScoreOptions(meter=whole)
        scored = await outcomes_of(reranker, "q" * 122_880, texts, options=how)
        await outcomes_of(reranker, "q" * 122_881, texts, options=ScoreOptions(meter=cut))
    assert [len(text) for text in server.posts[0].body["documents"]] == [5, 122_880]
    assert {len(each.body["query"]) for each in server.posts} == {122_880}
    assert (whole.query_truncated, cut.query_truncated) == (False, True)
    assert scored == [Score(0.5), Score(0.5, truncated=True)]


async def test_half_a_surrogate_pair_does_not_fail_the_call() -> None:
    async with (
        standing_in(says(results("results", "relevance_score"))) as server,
        opened(f"jina:{server.url}#m") as reranker,
    ):
        await outcomes_of(reranker, "q\ud83d", ["a\ud83d", "b"])
    assert server.asked[0].body["query"] == "q\ufffd"
    assert server.asked[0].body["documents"] == ["a\ufffd", "b"]


async def test_the_version_tells_how_and_whom_is_asked() -> None:
    versions = set()
    for source, options in [
        ("vllm:http://a:1#m", {}),
        ("vllm:http://b:1#m", {}),
        ("vllm:http://a:1#n", {}),
        ("vllm:http://a:1#m", {"score_kind": "RAW_LOGIT"}),
        ("vllm:http://a:1#m", {"version": "2"}),
    ]:
        async with opened(source, **options) as reranker:
            versions.add(reranker.info.version)
            assert math.isinf(reranker.tokens_per_s)
    assert len(versions) == 5
