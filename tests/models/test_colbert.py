"""ColBERT checkpoints of every form score as sentence-transformers scores them, within rounding.

Our score is the mean over the query's vectors where the library's is their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.encoder import EncoderKind, encoder_kind
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import EngineChoice, Quantization
from rerank_sidecar.types import Document, RerankOptions, RerankRequest
from tests.models.test_encoders import DOCUMENTS, QUERY, scores_of, served, settings_for
from tests.models.tiny_encoders import (
    PUNCTUATION,
    edit_json,
    save_bi_encoder,
    save_multi_vector,
    save_pylate,
    save_stanford,
)
from tests.models.tiny_models import save_tiny_backbone

TOLERANCE = 0.01
"""What is lost by keeping a document's vectors in 8 bits."""

LONG_QUERY = "how many people live in the city of the orange zebra, where is the window? " * 3
MARKERS = {"query": "what is: ", "document": "the city of "}


def library(folder: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)


def expected_scores(folder: Path, query: str) -> npt.NDArray[np.float64]:
    from sentence_transformers.util.similarity import maxsim

    model = library(folder)
    [of_query], of_documents = (
        model.encode_query([query], normalize_embeddings=True),
        model.encode_document(list(DOCUMENTS), normalize_embeddings=True),
    )
    sums: npt.NDArray[np.float64] = maxsim([of_query], of_documents)[0].numpy()
    return sums / len(of_query)


FIXED = {"strategy": "fixed", "length": 14}
FORMS: dict[str, Callable[[Path], Path]] = {
    "sentence-transformers": save_multi_vector,
    "not normalised": lambda folder: save_multi_vector(folder, normalized=False),
    "text prompts": lambda folder: save_multi_vector(folder, prompts=MARKERS, lengths=(20, 30)),
    "fixed": lambda folder: save_multi_vector(folder, expansion=FIXED, skiplist=PUNCTUATION),
    "attended": lambda folder: save_multi_vector(
        folder, expansion={**FIXED, "attend": True}, prompts=MARKERS
    ),
    "at least": lambda folder: save_multi_vector(
        folder, expansion={"strategy": "min", "length": 14, "token": "castle"}, lengths=(25, None)
    ),
    "unigram": lambda folder: save_multi_vector(
        folder, "xlm-roberta", expansion=FIXED, prompts=MARKERS
    ),
    "two projections": lambda folder: save_multi_vector(folder, two_projections=True),
    "left padding": lambda folder: save_multi_vector(folder, "qwen3", padding_side="left"),
    "byte level": lambda folder: save_multi_vector(
        folder, "modernbert", expansion={**FIXED, "attend": True}, prompts=MARKERS
    ),
    "pylate": lambda folder: save_pylate(folder, model_type="ColBERT"),
    "older pylate": save_pylate,
    "pylate attended": lambda folder: save_pylate(folder, attend_to_expansion_tokens=True),
    "pylate without expansion": lambda folder: save_pylate(folder, do_query_expansion=False),
    "pylate modernbert": lambda folder: save_pylate(
        folder, "modernbert", skiplist_words=["."], query_length=8
    ),
    "stanford": save_stanford,
    "stanford attended": lambda folder: save_stanford(
        folder, attend_to_mask_tokens=True, mask_punctuation=False
    ),
}


@pytest.mark.parametrize("form", FORMS)
async def test_scores_equal_sentence_transformers(tmp_path: Path, form: str) -> None:
    folder = FORMS[form](tmp_path / "model")
    for query in (QUERY, LONG_QUERY, ""):
        result = await served(settings_for(folder), query)
        expected = expected_scores(folder, query)
        np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)
        assert np.ptp(expected) > 0.05, "all pairs score alike: the comparison would prove nothing"
        assert result.summary.score_kind is ScoreKind.MAXSIM


async def test_int8_scores_stay_close(tmp_path: Path) -> None:
    folder = save_stanford(tmp_path / "model")
    exact = expected_scores(folder, QUERY)
    scores = scores_of(await served(settings_for(folder, Quantization.INT8)))
    assert np.corrcoef(scores, exact)[0, 1] > 0.9  # random weights are the worst case
    assert np.abs(scores - exact).max() > 1e-4


@pytest.mark.parametrize(
    "form", ["fixed", "attended", "two projections", "pylate modernbert", "stanford"]
)
async def test_torch_runs_it_too(tmp_path: Path, form: str) -> None:
    folder = FORMS[form](tmp_path / "model")
    result = await served(settings_for(folder, engine=EngineChoice.TORCH_FLOAT32))
    expected = expected_scores(folder, QUERY)
    np.testing.assert_allclose(scores_of(result), expected, atol=TOLERANCE, rtol=0)


async def test_vectors_of_the_library_score_as_texts(tmp_path: Path) -> None:
    folder = save_pylate(tmp_path / "model")
    model = library(folder)
    [of_query] = model.encode_query([QUERY], convert_to_numpy=True)
    vectors = model.encode_document(list(DOCUMENTS), convert_to_numpy=True)
    given = tuple(Document("", vectors=each) for each in vectors)
    texts = tuple(map(Document, DOCUMENTS))
    async with build_engine(settings_for(folder)) as engine:
        [description] = [each for each in engine.models() if each.is_default]
        assert description.vector_dimension == vectors[0].shape[1]
        expected = scores_of(await engine.rerank(RerankRequest(QUERY, texts)))
        options = RerankOptions(query_vectors=of_query)
        asked = {
            "documents": RerankRequest(QUERY, given),
            "query": RerankRequest("", texts, options),
            "both": RerankRequest("", given, options),
            "mixed": RerankRequest(QUERY, (*given[::2], *texts[1::2])),
        }
        results = {name: await engine.rerank(request) for name, request in asked.items()}
    mixed = [*expected[::2], *expected[1::2]]
    for name, result in results.items():
        wanted = mixed if name == "mixed" else expected
        np.testing.assert_allclose(scores_of(result), wanted, atol=TOLERANCE, rtol=0)
    assert results["both"].summary.usage.tokens == 0


async def test_what_is_kept_scores_the_same_to_the_last_bit(tmp_path: Path) -> None:
    folder = save_stanford(tmp_path / "model")
    kept = settings_for(folder, score_cache_bytes=0, token_matrix_cache_dir=tmp_path / "kept")
    once = [await served(kept, query) for query in (QUERY, LONG_QUERY)]
    again = await served(kept)
    assert np.array_equal(scores_of(again), scores_of(once[0]))
    assert again.summary.usage.tokens == 12  # the query, filled up
    assert np.array_equal(scores_of(await served(settings_for(folder))), scores_of(once[0]))


@pytest.mark.parametrize("engine", [EngineChoice.AUTO, EngineChoice.TORCH_FLOAT32])
async def test_a_document_without_tokens_that_count_is_near_to_nothing(
    tmp_path: Path, engine: EngineChoice
) -> None:
    skipped = [*PUNCTUATION, "[CLS]", "[SEP]"]
    folder = save_multi_vector(tmp_path / "model", skiplist=skipped)
    expected = expected_scores(folder, QUERY)
    assert expected[DOCUMENTS.index("")] < -1  # the library has the same of all that it pads
    settings = settings_for(folder, engine=engine, score_cache_bytes=0)
    request = RerankRequest(QUERY, tuple(map(Document, (*DOCUMENTS, "?"))), RerankOptions())
    async with build_engine(settings) as served_by:
        once, kept = [scores_of(await served_by.rerank(request)) for _ in range(2)]
    np.testing.assert_allclose(
        once[:-1], np.where(expected < -1, 0, expected), atol=TOLERANCE, rtol=0
    )
    assert once[-1] == 0
    assert np.array_equal(once, kept)


async def refused(folder: Path, **settings: Any) -> str:
    with pytest.raises(ModelNotServable) as raised:
        await served(settings_for(folder, **settings))
    return raised.value.message


async def test_expansion_that_no_token_can_see_is_refused(tmp_path: Path) -> None:
    # Of 30 tokens the last see, through ModernBERT's window, none that is attended to.
    folder = save_pylate(tmp_path / "model", "modernbert", query_length=30)
    assert "does not give the vectors" in await refused(folder)


async def test_a_skip_list_for_queries_is_refused(tmp_path: Path) -> None:
    folder = save_multi_vector(
        tmp_path / "model", skiplist=PUNCTUATION, skiplist_tasks=["query", "document"]
    )
    assert "leaves out tokens of queries" in await refused(folder)


async def test_a_model_without_a_projection_of_its_own_is_refused(tmp_path: Path) -> None:
    for folder in (
        save_tiny_backbone(tmp_path / "backbone", "bert"),
        save_bi_encoder(tmp_path / "sentences"),
    ):
        assert "no model with a vector for each token" in await refused(
            folder, family="late_interaction"
        )


def test_forms_are_told_apart_by_their_files(tmp_path: Path) -> None:
    for name, form in FORMS.items():
        assert encoder_kind(form(tmp_path / name)) is EncoderKind.MULTI_VECTOR
    pooled = save_bi_encoder(tmp_path / "pooled")
    assert encoder_kind(pooled) is EncoderKind.BI_ENCODER
    edit_json(pooled / "config_sentence_transformers.json", model_type="SparseEncoder")
    assert encoder_kind(pooled) is None
    (pooled / "modules.json").write_text("[1]")
    assert encoder_kind(pooled) is None
    assert encoder_kind(save_tiny_backbone(tmp_path / "plain", "bert")) is None
    assert encoder_kind(tmp_path / "missing") is None
