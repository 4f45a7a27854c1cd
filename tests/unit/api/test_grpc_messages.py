"""What the contract can say and what the engine's values can say are the same."""

from dataclasses import replace
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from rerank_sidecar.api.grpc_messages import (
    read_documents,
    read_options,
    read_request,
    write_event,
    write_ranked,
    write_response,
)
from rerank_sidecar.errors import BackendFailed, InvalidField
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    ModelReference,
    Normalization,
    RankedDocument,
    RerankOptions,
    RerankRequest,
    RerankResult,
    RerankSummary,
    Score,
    StreamSummary,
    Timing,
    Truncation,
    TruncationSide,
    Usage,
    Window,
)
from rerank_sidecar.v1 import rerank_pb2 as pb

SUMMARY = RerankSummary(
    model=ModelReference("name", "version"),
    score_kind=ScoreKind.LEXICAL,
    normalization=Normalization.UNIT,
    query_truncated=True,
    usage=Usage(tokens=1, pairs=2, cache_hits=3),
    timing=Timing(queue_us=4, tokenise_us=5, infer_us=6, total_us=7),
)


@pytest.mark.parametrize(
    ("wire", "prefix", "values"),
    [
        (pb.ScoreKind, "SCORE_KIND", ScoreKind),
        (pb.Normalization, "NORMALIZATION", Normalization),
        (pb.TruncationSide, "TRUNCATION_SIDE", TruncationSide),
        (pb.LongDocumentPolicy, "LONG_DOCUMENT_POLICY", LongDocumentPolicy),
    ],
)
def test_enums_name_the_same_values(
    wire: EnumTypeWrapper, prefix: str, values: type[StrEnum]
) -> None:
    named = {f"{prefix}_{value.name}" for value in values}
    assert set(wire.keys()) == named | {f"{prefix}_UNSPECIFIED"}


def test_an_empty_request_means_the_defaults() -> None:
    assert read_request(pb.RerankRequest(), None) == RerankRequest("", ())
    assert read_options(pb.RerankOptions(), 1.5) == RerankOptions(timeout_s=1.5)


def test_every_option_is_read() -> None:
    message = pb.RerankOptions(
        model="m",
        top_n=0,
        return_documents=True,
        score_threshold=0.0,
        truncation=pb.Truncation(max_tokens_per_document=0, side=pb.TRUNCATION_SIDE_LEFT),
        long_document_policy=pb.LONG_DOCUMENT_POLICY_TRUNCATE,
        priority=-1,
        normalization=pb.NORMALIZATION_UNIT,
    )
    assert len(message.ListFields()) == len(pb.RerankOptions.DESCRIPTOR.fields)
    assert read_options(message, None) == RerankOptions(
        model="m",
        top_n=0,
        return_documents=True,
        score_threshold=0.0,
        truncation=Truncation(0, TruncationSide.LEFT),
        long_document_policy=LongDocumentPolicy.TRUNCATE,
        priority=-1,
        normalization=Normalization.UNIT,
    )


def test_an_empty_model_name_is_the_default_model() -> None:
    assert read_options(pb.RerankOptions(model=""), None).model is None


def test_an_empty_id_is_an_id() -> None:
    messages = [pb.Document(text="a", id=""), pb.Document(text="b")]
    assert read_documents(messages) == (Document("a", ""), Document("b"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"normalization": 99}, "normalization"),
        ({"long_document_policy": -1}, "long_document_policy"),
        ({"truncation": {"side": 9}}, "truncation.side"),
    ],
)
def test_values_from_a_newer_contract_are_refused_by_name(
    options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as caught:
        read_options(pb.RerankOptions(**options), None)
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("policy", LongDocumentPolicy)
@pytest.mark.parametrize("normalization", Normalization)
def test_every_policy_and_scale_is_read_and_written(
    policy: LongDocumentPolicy, normalization: Normalization
) -> None:
    message = pb.RerankOptions(
        long_document_policy=f"LONG_DOCUMENT_POLICY_{policy.name}",
        normalization=f"NORMALIZATION_{normalization.name}",
    )
    read = read_options(message, None)
    assert (read.long_document_policy, read.normalization) == (policy, normalization)
    summary = replace(SUMMARY, normalization=normalization)
    written = write_response(RerankResult((), summary)).summary.normalization
    assert written == message.normalization


def test_every_field_of_a_score_is_written() -> None:
    score = Score(0.5, Window(3, 9), truncated=True, window_count=4)
    ranked = RankedDocument(2, score=score, id="a", document=Document("text", "a"))
    assert write_ranked(ranked) == pb.RerankResult(
        index=2,
        id="a",
        document=pb.Document(text="text", id="a"),
        score=pb.Score(
            value=0.5,
            best_window=pb.Window(start=3, end=9),
            truncated=True,
            window_count=4,
        ),
    )


def test_a_failed_document_has_a_reason_and_no_score() -> None:
    result = write_ranked(RankedDocument(0, error=BackendFailed("the forward pass failed")))
    assert result.WhichOneof("outcome") == "error"
    assert result.error == pb.DocumentError(
        reason="BACKEND_FAILED", message="the forward pass failed"
    )
    assert not result.HasField("id")


def test_every_total_is_written_in_both_forms() -> None:
    written = pb.RerankSummary(
        model=pb.ModelReference(name="name", version="version"),
        score_kind=pb.SCORE_KIND_LEXICAL,
        normalization=pb.NORMALIZATION_UNIT,
        query_truncated=True,
        usage=pb.Usage(tokens=1, pairs=2, cache_hits=3),
        timing=pb.Timing(queue_us=4, tokenise_us=5, infer_us=6, total_us=7),
    )
    assert write_response(RerankResult((), SUMMARY)) == pb.RerankResponse(summary=written)
    assert write_event(StreamSummary((2, 0), SUMMARY)) == pb.RerankStreamResponse(
        summary=pb.RerankStreamSummary(order=[2, 0], summary=written)
    )
