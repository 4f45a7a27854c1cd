"""Servers over gRPC: what they are asked, what their answers and refusals become."""

from __future__ import annotations

import time

import grpc
import pytest
import trustme

from rerank_sidecar.errors import (
    DeadlineExceeded,
    InvalidSetting,
    ModelNotServable,
    NonFiniteScore,
    Overloaded,
    RemoteFailed,
    RemoteUnavailable,
    RerankError,
)
from rerank_sidecar.rerankers.base import Meter, ScoreOptions
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.third_party import tei_pb2 as tei
from rerank_sidecar.types import Score, Truncation, TruncationSide
from tests.unit.rerankers.remote.grpc_stand_in import Refusal, TeiServer, TritonServer, serving
from tests.unit.rerankers.remote.stand_in import opened
from tests.unit.rerankers.toy_models import outcomes_of

TEXTS = ["-9.5", "3.25"]


async def test_tei(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEI_API_KEY", "secret-1")
    server, meter = TeiServer(), Meter()
    how = ScoreOptions(meter=meter, truncation=Truncation(side=TruncationSide.LEFT))
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        scored = await outcomes_of(reranker, "red fruit", [*TEXTS, "0.5"], options=how)
        assert reranker.info.score_kind is ScoreKind.RAW_LOGIT
        assert reranker.info.max_tokens == 512
        assert reranker.info.version.startswith("BAAI/bge@abc-")
    assert scored == [Score(-9.5), Score(3.25), Score(0.5)]
    assert sorted(len(each.texts) for each in server.calls) == [1, 2]
    assert max(server.calls, key=lambda each: len(each.texts)) == tei.RerankRequest(
        query="red fruit",
        texts=TEXTS if len(server.calls[0].texts) == 2 else [TEXTS[1], "0.5"],
        truncate=True,
        raw_scores=True,
        truncation_direction=tei.TRUNCATION_DIRECTION_LEFT,
    )
    assert server.metadata[0]["authorization"] == "Bearer secret-1"
    assert (meter.remote_calls, meter.pairs, meter.tokens) == (2, 3, 14)


async def test_tei_gives_probabilities_if_they_are_wanted() -> None:
    server = TeiServer()
    async with (
        serving(server) as address,
        opened(f"tei:grpc://{address}", score_kind="PROBABILITY") as reranker,
    ):
        assert await outcomes_of(reranker, "q", ["0.5"]) == [Score(0.5)]
    assert server.calls[0].raw_scores is False


async def test_tei_that_runs_no_reranker_is_refused() -> None:
    async with serving(TeiServer(model_type=tei.MODEL_TYPE_EMBEDDING)) as address:
        with pytest.raises(ModelNotServable, match="runs no reranker"):
            async with opened(f"tei:grpc://{address}"):
                pass


@pytest.mark.parametrize(
    ("datatype", "raw"), [("FP32", True), ("FP32", False), ("FP64", True), ("FP16", True)]
)
async def test_kserve(datatype: str, raw: bool) -> None:
    server = TritonServer(datatype)
    server.raw = raw
    async with (
        serving(server) as address,
        opened(f"kserve:grpc://{address}#nvidia_rerank") as reranker,
    ):
        scored = await outcomes_of(reranker, "red fruit", TEXTS)
    assert scored == [Score(-9.5), Score(3.25)]
    [call] = server.calls
    assert call.model_name == "nvidia_rerank"
    assert [each.name for each in call.outputs] == ["logit"]
    assert call.parameters["truncate"].string_param == "END"
    tensors = [
        (each.name, each.datatype, list(each.shape), list(each.contents.bytes_contents))
        for each in call.inputs
    ]
    assert tensors == [
        ("query", "BYTES", [2, 1], [b"red fruit"] * 2),
        ("passage", "BYTES", [2, 1], [b"-9.5", b"3.25"]),
    ]


@pytest.mark.parametrize(
    ("datatype", "rows", "name", "told"),
    [
        ("FP32", 1, "logit", "as many numbers as its shape says"),
        ("BYTES", None, "logit", "not of a type of numbers"),
        ("FP32", None, "other", "no output `other`"),
    ],
)
async def test_tensors_that_are_not_what_they_say(
    datatype: str, rows: int | None, name: str, told: str
) -> None:
    server = TritonServer(datatype)
    server.rows = rows
    async with (
        serving(server) as address,
        opened(f"kserve:grpc://{address}#m", score_tensor=name) as reranker,
    ):
        with pytest.raises(RemoteFailed, match=told):
            await outcomes_of(reranker, "q", TEXTS)


@pytest.mark.parametrize(
    ("code", "error", "tries"),
    [
        (grpc.StatusCode.UNAVAILABLE, RemoteUnavailable, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded, 3),
        (grpc.StatusCode.INVALID_ARGUMENT, RemoteFailed, 2),
        (grpc.StatusCode.OUT_OF_RANGE, RemoteFailed, 2),
        (grpc.StatusCode.UNAUTHENTICATED, RemoteFailed, 1),
        (grpc.StatusCode.INTERNAL, RemoteFailed, 1),
        (grpc.StatusCode.FAILED_PRECONDITION, RemoteFailed, 1),
    ],
)
async def test_refusals(code: grpc.StatusCode, error: type[RerankError], tries: int) -> None:
    server = TeiServer()
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        server.refusals = [Refusal(code)] * 5
        with pytest.raises(error, match=code.name) as raised:
            await outcomes_of(reranker, "q", ["1"])
    assert len(server.calls) == tries
    assert "REQUEST TEXT" not in raised.value.message


async def test_a_message_over_a_servers_limit_is_no_overload() -> None:
    long = "0.5" + "0" * 5_000_000  # gRPC's limit is 4 MiB unless a server sets another
    server = TeiServer()
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        scored = await outcomes_of(reranker, "q", ["1", long, "2"])
    assert [type(each) for each in scored] == [Score, RemoteFailed, Score]


async def test_a_retry_hint_is_obeyed_or_passed_on() -> None:
    server = TeiServer()
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        server.refusals = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5)]
        began = time.monotonic()
        assert await outcomes_of(reranker, "q", ["1"]) == [Score(1.0)]
        assert time.monotonic() - began >= 0.5
        server.refusals = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 90.0)]
        with pytest.raises(Overloaded) as raised:
            await outcomes_of(reranker, "q", ["1"])
    assert raised.value.retry_after_s == 90
    assert len(server.calls) == 3


async def test_the_deadline_is_passed_on() -> None:
    server = TeiServer()
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        how = ScoreOptions(deadline=time.monotonic() + 5)
        await outcomes_of(reranker, "q", ["1"], options=how)
        [left_s] = server.left_s
        assert left_s is not None
        assert left_s < 10
        with pytest.raises(DeadlineExceeded):
            await outcomes_of(reranker, "q", ["1"], options=ScoreOptions(deadline=0.0))


async def test_half_the_results_and_none_that_is_finite() -> None:
    server = TeiServer()
    async with serving(server) as address, opened(f"tei:grpc://{address}") as reranker:
        server.drop = 1
        first, second = await outcomes_of(reranker, "q", ["1", "2"])
        assert isinstance(first, RemoteFailed)
        assert second == Score(2.0)
        server.drop = 0
        first, second = await outcomes_of(reranker, "q", ["nan", "2"])
        assert isinstance(first, NonFiniteScore)
        assert second == Score(2.0)


async def test_tls_by_an_authority_of_ones_own() -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())]
    )
    server = TeiServer()
    async with serving(server, credentials=credentials) as address:
        with authority.cert_pem.tempfile() as ca_file:
            async with opened(f"tei:grpcs://{address}", ca_file=ca_file) as reranker:
                assert await outcomes_of(reranker, "q", ["1"]) == [Score(1.0)]
        async with opened(f"tei:grpcs://{address}", max_tries=1) as reranker:
            with pytest.raises(RemoteUnavailable):
                await outcomes_of(reranker, "q", ["1"])
        with pytest.raises(InvalidSetting, match="always checks certificates"):
            async with opened(f"tei:grpcs://{address}", verify=False):
                pass
    assert len(server.calls) == 1
