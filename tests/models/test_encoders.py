"""Bi-encoders score as sentence-transformers does: the cosine of its vectors, within rounding."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.errors import InvalidField, InvalidSetting, ModelNotServable
from rerank_sidecar.loading.families import family_name
from rerank_sidecar.loading.pull import pull_model
from rerank_sidecar.models.listing import ModelState, list_models
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import EngineChoice, Quantization, Settings, read_settings
from rerank_sidecar.types import (
    Document,
    LongDocumentPolicy,
    RerankOptions,
    RerankRequest,
    RerankResult,
)
from tests.models.tiny_encoders import edit_json, save_bi_encoder
from tests.models.tiny_models import WORDS, save_tiny_backbone

TOLERANCE = 5e-3
"""What is lost by keeping a document's vector in 8 bits."""

QUERY = "where is the castle"
DOCUMENTS = (
    "the castle is in the valley of the river",
    "stone",
    "",
    "how many people live in the city",
    "Zebra, quarter & umbrella: 42 naïve 城 🏰",
    " ".join(WORDS * 2),
    " leading space",
    *(" ".join(WORDS[first : first + 1 + first % 6]) for first in range(len(WORDS))),
)
PROMPTS = {"query": "what is: ", "document": "the city of "}


def settings_for(folder: Path, quantize: Quantization = Quantization.NONE, **more: Any) -> Settings:
    # Which engine `auto` finds fastest for such tiny models is chance.
    engine = EngineChoice.OPENVINO_INT8 if quantize is Quantization.INT8 else EngineChoice.AUTO
    cache = folder.with_name(f"{folder.name}-cache")
    given = {"quantize": quantize, "engine": engine, "cache_dir": cache, "workers": 2}
    return read_settings(model=str(folder), **{**given, **more})


async def served(settings: Settings, query: str = QUERY) -> RerankResult:
    request = RerankRequest(query, tuple(map(Document, DOCUMENTS)), RerankOptions())
    async with build_engine(settings) as engine:
        return await engine.rerank(request)


def scores_of(result: RerankResult) -> npt.NDArray[np.float64]:
    by_index = {each.index: each.score.value for each in result.results if each.score is not None}
    return np.array([by_index[index] for index in range(len(by_index))])


def library(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def expected_scores(folder: Path, query: str = QUERY) -> npt.NDArray[np.float64]:
    from sentence_transformers.util import cos_sim

    model = library(folder)
    vectors = model.encode_query([query]), model.encode_document(list(DOCUMENTS))
    cosines: npt.NDArray[np.float64] = cos_sim(*vectors)[0].numpy()
    return cosines


@pytest.mark.parametrize(
    "made",
    [
        {},
        {"pooling": "cls", "normalized": False},
        {"pooling": "max", "dense": True},
        {"pooling": ("mean", "cls"), "normalized": False},
        {
            "architecture": "qwen3",
            "pooling": "lasttoken",
            "padding_side": "left",
            "prompts": {"query": "Find:\nQuery:"},
        },
        {"architecture": "qwen3", "pooling": "lasttoken", "prompts": PROMPTS},
        {"pooling": "weightedmean", "prompts": PROMPTS},
        {"truncate_dim": 16, "prompts": PROMPTS},
        {"prompts": {"query": "query", "document": "passage:"}},
        {"architecture": "xlm-roberta", "prompts": PROMPTS},
        {"architecture": "modernbert", "prompts": PROMPTS, "pooling": "cls"},
    ],
    ids=str,
)
async def test_scores_equal_sentence_transformers(tmp_path: Path, made: dict[str, Any]) -> None:
    folder = save_bi_encoder(tmp_path / "model", **made)
    expected = expected_scores(folder)
    result = await served(settings_for(folder))
    np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)
    assert np.ptp(expected) > 0.05, "all pairs score alike: the comparison would prove nothing"
    assert result.summary.score_kind is ScoreKind.COSINE


async def test_prompts_may_be_given(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "plain")
    prompted = Path(shutil.copytree(folder, tmp_path / "prompted"))
    edit_json(prompted / "config_sentence_transformers.json", prompts=PROMPTS)
    options = {f"{name}_prompt": prompt for name, prompt in PROMPTS.items()}
    plain = await served(settings_for(folder))
    given = await served(settings_for(folder, family_options=options))
    expected = expected_scores(prompted)
    np.testing.assert_allclose(scores_of(given), expected, atol=TOLERANCE, rtol=0)
    assert plain.summary.model.version != given.summary.model.version
    assert "family_options.prompt" in await refused(folder, family_options={"prompt": "x"})


async def test_a_model_that_is_saved_in_lower_case_reads_so(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model", "xlm-roberta", lower_case=True)
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    query = "WHERE is the Castle"
    result = await served(settings_for(folder), query)
    expected = expected_scores(folder, query)
    np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(expected, expected_scores(folder, query.lower()), atol=1e-6)


async def test_int8_scores_stay_close(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model")
    exact = expected_scores(folder)
    scores = scores_of(await served(settings_for(folder, Quantization.INT8)))
    assert np.corrcoef(scores, exact)[0, 1] > 0.9  # random weights are the worst case
    assert np.abs(scores - exact).max() > 1e-3


@pytest.mark.parametrize("truncate_dim", [None, 16])
async def test_vectors_of_the_library_score_as_texts(
    tmp_path: Path, truncate_dim: int | None
) -> None:
    folder = save_bi_encoder(
        tmp_path / "model", prompts=PROMPTS, normalized=False, truncate_dim=truncate_dim
    )
    model = library(folder)
    of_query, vectors = model.encode_query([QUERY]), model.encode_document(list(DOCUMENTS))
    given = tuple(Document("", vectors=each[np.newaxis]) for each in vectors)
    texts = tuple(map(Document, DOCUMENTS))
    async with build_engine(settings_for(folder)) as engine:
        [description] = [each for each in engine.models() if each.is_default]
        assert description.vector_dimension == vectors.shape[1]
        expected = scores_of(await engine.rerank(RerankRequest(QUERY, texts)))
        options = RerankOptions(query_vectors=of_query)
        both = await engine.rerank(RerankRequest("", given, options))
        only_documents = await engine.rerank(RerankRequest(QUERY, given))
        best = await engine.rerank(
            RerankRequest(QUERY, (Document("", vectors=vectors), *given[1:3]))
        )
        with pytest.raises(InvalidField, match="must be one vector"):
            await engine.rerank(RerankRequest("", texts, RerankOptions(query_vectors=vectors)))
    for result in (both, only_documents):
        np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)
    assert both.summary.usage.tokens == 0
    assert scores_of(best)[0] == pytest.approx(expected.max(), abs=TOLERANCE)


async def test_of_long_documents_the_best_window_counts(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model")
    texts = ("castle " * 100, f"{'stone ' * 90} where is the castle")
    request = RerankRequest(
        QUERY,
        tuple(map(Document, texts)),
        RerankOptions(long_document_policy=LongDocumentPolicy.CHUNK),
    )
    async with build_engine(settings_for(folder)) as engine:
        chunked = await engine.rerank(request)
        cut = await engine.rerank(replace(request, options=RerankOptions()))
    of_end = next(each.score for each in chunked.results if each.index == 1)
    assert of_end is not None
    assert of_end.window_count > 1
    assert of_end.value > scores_of(cut)[1]


async def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises((ModelNotServable, InvalidSetting)) as raised:
        await served(settings_for(folder, **settings))
    return raised.value.message


async def test_a_prompt_that_is_left_out_of_pooling_is_refused(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model", include_prompt=False)
    assert "leaves its prompt out of pooling" in await refused(folder)


async def test_an_engine_that_does_not_run_encoders_is_refused(tmp_path: Path) -> None:
    folder = save_bi_encoder(tmp_path / "model")
    assert "`onnxruntime-float32` runs cross-encoders only" in await refused(
        folder, engine=EngineChoice.ONNXRUNTIME_FLOAT32
    )


@pytest.mark.parametrize(
    "made",
    [
        {"dense": True, "truncate_dim": 10},
        {"architecture": "modernbert", "dense": True},
        {"architecture": "qwen3", "pooling": "lasttoken", "padding_side": "left"},
    ],
    ids=str,
)
async def test_torch_runs_it_too(tmp_path: Path, made: dict[str, Any]) -> None:
    folder = save_bi_encoder(tmp_path / "model", prompts=PROMPTS, **made)
    settings = settings_for(folder, engine=EngineChoice.TORCH_FLOAT32)
    scores = scores_of(await served(settings))
    np.testing.assert_allclose(scores, expected_scores(folder), atol=TOLERANCE, rtol=0)
    assert not (settings.cache_dir / "models").exists()


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.TORCH_FLOAT32])
async def test_a_model_whose_vectors_depend_on_padding_is_refused(
    tmp_path: Path, engine: EngineChoice
) -> None:
    # BERT counts positions from the padding on.
    folder = save_bi_encoder(tmp_path / "model", padding_side="left")
    assert "does not give the vectors" in await refused(folder, engine=engine)


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.TORCH_FLOAT32])
async def test_no_more_is_read_than_there_are_positions_for(
    tmp_path: Path, engine: EngineChoice
) -> None:
    # 66 positions of which RoBERTa's kind uses 64; the library fails on texts that are longer.
    folder = save_bi_encoder(tmp_path / "model", "xlm-roberta")
    edit_json(folder / "tokenizer_config.json", model_max_length=64)
    expected = expected_scores(folder)
    edit_json(folder / "tokenizer_config.json", model_max_length=66)
    result = await served(settings_for(folder, engine=engine))
    np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)


async def test_a_plain_transformer_is_averaged_where_the_family_is_named(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model", "bert")
    assert "is of no family" in await refused(folder)
    result = await served(settings_for(folder, family="bi_encoder"))
    np.testing.assert_allclose(scores_of(result), expected_scores(folder), atol=TOLERANCE, rtol=0)


async def test_a_folder_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_for(save_bi_encoder(tmp_path / "model"))
    pull_model(settings)
    for package in ("nncf", "torch", "transformers", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    assert len((await served(settings)).results) == len(DOCUMENTS)
    (listed,) = (
        each for each in list_models(settings, family_name) if each.state is ModelState.CONVERTED
    )
    assert (listed.id, listed.family) == (settings.model, "bi_encoder")


async def test_texts_that_would_be_read_otherwise_are_not_scored(tmp_path: Path) -> None:
    settings = settings_for(save_bi_encoder(tmp_path / "model"))
    pull_model(settings)
    [facts] = settings.cache_dir.glob("models/*/model.json")
    sample, other = '"bread"', '"stone"'
    text = facts.read_text(encoding="utf-8")
    assert sample in text
    facts.write_text(text.replace(sample, other), encoding="utf-8")
    with pytest.raises(ModelNotServable, match="reads texts otherwise"):
        await served(settings)


async def test_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_backbone(tmp_path / "model", "qwen3")
    template = "{% for each in messages %}{{ each.content }}{% endfor %}"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert "chat template" in await refused(folder, family="bi_encoder")
