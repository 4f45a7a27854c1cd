"""Bi-encoders score as sentence-transformers does: the cosine of its vectors, within rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import EngineChoice, Quantization, Settings, read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult
from tests.models.tiny_encoders import save_bi_encoder
from tests.models.tiny_models import WORDS

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
        {"pooling": "lasttoken"},
        {"pooling": "weightedmean", "prompts": PROMPTS},
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
