"""Cross-encoders on Triton: scores as if the model ran here, whatever the server is like."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from rerank_sidecar.errors import (
    BackendFailed,
    InvalidSetting,
    ModelNotServable,
    ModelUnavailable,
)
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.triton import TritonFamily
from rerank_sidecar.rerankers.base import Reranker
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import read_settings
from rerank_sidecar.types import Score
from tests.unit.backends.kserve_stand_in import SEPARATOR, TritonModel
from tests.unit.rerankers.remote.grpc_stand_in import serving
from tests.unit.rerankers.remote.stand_in import standing_in
from tests.unit.rerankers.toy_models import ToyClassifier, bert_tokenizer, outcomes_of, running

QUERY = "capital of france"
TEXTS = ["paris is the capital", "a river", "", "bread " * 80, "the city of paris is a city"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Only what reading needs: no weights are here."""
    from tokenizers import Tokenizer

    tokenizer: Tokenizer = bert_tokenizer()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(
        '{"architectures": ["BertForSequenceClassification"], "model_type": "bert", '
        '"id2label": {"0": "LABEL_0"}, "max_position_embeddings": 48, "pad_token_id": 0}'
    )
    return tmp_path


@asynccontextmanager
async def opened(source: str, **options: Any) -> AsyncIterator[Reranker]:
    settings = read_settings(model=source, family_options={"max_concurrency": 2} | options)
    with ThreadPoolExecutor(1) as executor:
        async with AsyncExitStack() as stack:
            yield await TritonFamily().load(Loading("far", settings, executor, stack))


@asynccontextmanager
async def served(model: TritonModel, scheme: str) -> AsyncIterator[str]:
    if scheme == "http":
        async with standing_in(model.over_http) as server:
            yield f"triton:{server.url}#m"
    else:
        async with serving(model) as address:
            yield f"triton:grpc://{address}#m"


async def scores_here(folder: Path, activation: Any) -> list[Any]:
    from rerank_sidecar.batching.tokenization import TextTokenizer
    from rerank_sidecar.rerankers.base import RerankerInfo

    tokenizer = TextTokenizer.from_file(folder / "tokenizer.json")
    info = RerankerInfo("here", "1", "cross_encoder", ScoreKind.RAW_LOGIT, "toy", "here")
    async with running(ToyClassifier(SEPARATOR)) as scheduler:
        config = CrossEncoderConfig(WindowLimits(48), activation)
        here = CrossEncoderReranker(info, tokenizer, scheduler, config)
        return await outcomes_of(here, QUERY, TEXTS)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, ScoreKind.PROBABILITY),
        ({"activation": "identity"}, ScoreKind.RAW_LOGIT),
    ],
)
async def test_scores_are_those_of_the_model_here(
    scheme: str, options: dict[str, Any], kind: ScoreKind, folder: Path
) -> None:
    model = TritonModel()
    async with (
        served(model, scheme) as source,
        opened(source, tokenizer=str(folder), **options) as far,
    ):
        model.batches.clear()
        scored: list[Any] = await outcomes_of(far, QUERY, TEXTS)
        info = far.info
    expected = await scores_here(folder, options.get("activation", "sigmoid"))
    assert [each.truncated for each in scored] == [each.truncated for each in expected]
    assert [each.value for each in scored] == pytest.approx([each.value for each in expected])
    assert info.score_kind is kind
    assert info.family == "triton"
    assert info.max_tokens == 48
    assert info.engine == "kserve triton 2.60.0 remote"
    assert all(rows <= 4 and tokens <= 48 for rows, tokens in model.batches)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_only_the_tensors_that_the_model_takes_are_sent(scheme: str, folder: Path) -> None:
    model = TritonModel()
    model.inputs = {"attention_mask": "INT64", "input_ids": "INT64"}
    model.max_batch_size = None
    async with served(model, scheme) as source, opened(source, tokenizer=str(folder)) as far:
        assert len(await outcomes_of(far, QUERY, TEXTS)) == len(TEXTS)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    ("inputs", "outputs", "options", "told"),
    [
        ({"query": "BYTES"}, ["logits"], {}, "must take input_ids .* it takes query"),
        ({"input_ids": "INT32"}, ["logits"], {}, "INT64"),
        ({"input_ids": "INT64"}, ["a", "b"], {}, "outputs a, b"),
        ({"input_ids": "INT64"}, ["a", "b"], {"score_tensor": "c"}, "score_tensor"),
    ],
)
async def test_a_model_of_other_tensors_is_refused(  # noqa: PLR0917
    scheme: str,
    inputs: dict[str, str],
    outputs: list[str],
    options: dict[str, Any],
    told: str,
    folder: Path,
) -> None:
    model = TritonModel()
    model.inputs, model.outputs = inputs, outputs
    async with served(model, scheme) as source:
        with pytest.raises(ModelNotServable, match=told):
            async with opened(source, tokenizer=str(folder), **options):
                pass


async def test_a_server_that_is_not_there_or_has_no_such_model(folder: Path) -> None:
    for source in ("triton:http://127.0.0.1:1#m", "triton:grpc://127.0.0.1:1#m"):
        with pytest.raises(ModelUnavailable, match="does not tell of m"):
            async with opened(source, tokenizer=str(folder), max_tries=1):
                pass
    async with served(TritonModel(), "http") as source:
        with pytest.raises(ModelUnavailable, match="status 404"):
            async with opened(source.replace("#m", "#n"), tokenizer=str(folder)):
                pass


async def test_batches_are_sent_again_when_the_server_failed_in_passing(folder: Path) -> None:
    model = TritonModel()
    async with served(model, "http") as source, opened(source, tokenizer=str(folder)) as far:
        model.failures = [503, 429]
        assert all(isinstance(each, Score) for each in await outcomes_of(far, QUERY, TEXTS[:1]))
        model.failures = [500]
        [failed] = await outcomes_of(far, QUERY, ["a river"])
        assert isinstance(failed, BackendFailed)
        assert "500" in failed.message
        assert "busy" not in failed.message
        model.lose = 1
        [failed] = await outcomes_of(far, QUERY, ["a river"])
        assert isinstance(failed, BackendFailed)


async def test_an_answer_that_trickles_or_cannot_be_unpacked_fails(folder: Path) -> None:
    async def trickles(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    async def no_gzip(_: web.Request) -> web.StreamResponse:
        return web.Response(body=b"{}", headers={"Content-Encoding": "gzip"})

    model = TritonModel()
    async with standing_in(model.over_http) as server:
        source = f"triton:{server.url}#m"
        async with opened(source, tokenizer=str(folder), timeout_s=0.5, max_tries=1) as far:
            for reply, told in ((trickles, "in time"), (no_gzip, "decoded")):
                server.script.append(reply)
                [failed] = await outcomes_of(far, QUERY, ["a river"])
                assert isinstance(failed, BackendFailed)
                assert told in failed.message


async def test_the_key_is_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret-1")
    options = {"tokenizer": str(folder), "api_key_env": "MY_KEY"}
    model = TritonModel()
    async with standing_in(model.over_http) as server, opened(f"triton:{server.url}#m", **options):
        pass
    assert {each.headers["authorization"] for each in server.asked} == {"Bearer secret-1"}
    async with serving(model) as address, opened(f"triton:grpc://{address}#m", **options):
        assert model.metadata[0]["authorization"] == "Bearer secret-1"


@pytest.mark.parametrize(
    ("source", "options", "told"),
    [
        ("triton:http://host:1#m", {}, "tokenizer"),
        ("triton:http://host:1", {"tokenizer": "x"}, "needs a model"),
        ("triton:m", {"tokenizer": "x"}, "needs an address"),
        ("triton:http://host:1#m", {"tokenizer": "x", "activation": "relu"}, "activation"),
    ],
)
async def test_settings_that_are_wrong(source: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidSetting, match=told):
        async with opened(source, **options):
            pass


async def test_without_a_config_the_options_have_to_tell(folder: Path) -> None:
    (folder / "config.json").unlink()
    model = TritonModel()
    async with served(model, "http") as source:
        with pytest.raises(InvalidSetting, match="max_tokens"):
            async with opened(source, tokenizer=str(folder)):
                pass
        async with opened(source, tokenizer=str(folder), max_tokens=48) as far:
            scored = await outcomes_of(far, QUERY, TEXTS)
            assert far.info.score_kind is ScoreKind.RAW_LOGIT
    assert scored == await scores_here(folder, "identity")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelUnavailable, match=r"no tokenizer\.json"):
        async with opened("triton:http://host:1#m", tokenizer=str(folder)):
            pass
