"""What we serve scores as sentence-transformers scores: same weights, same pairs, within 1e-4."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.app import build_engine
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import EngineChoice, Quantization, Settings, read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, RerankResult
from tests.models.tiny_models import MAX_TOKENS, WORDS, save_onnx, save_tiny_model

SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"
ARCHITECTURES = ("bert", "electra", "xlm-roberta", "modernbert")

SHORT_QUERY = "where is the castle"
LONG_QUERY = " ".join(WORDS[:30])
DOCUMENTS = (
    "the castle is in the valley of the river",
    "stone",
    "",
    "how many people live in the city",
    "Zebra, quarter & umbrella: 42 naïve 城 🏰",
    " ".join(WORDS * 2),
    " ".join(reversed(WORDS * 2)),
    " ".join(WORDS[: MAX_TOKENS // 3]),
    *(" ".join(WORDS[first : first + 1 + first % 6]) for first in range(len(WORDS))),
)


def settings_for(folder: Path, cache: Path, quantize: Quantization) -> Settings:
    # Which engine `auto` finds fastest for such tiny models is chance.
    engine = EngineChoice.OPENVINO_INT8 if quantize is Quantization.INT8 else EngineChoice.AUTO
    return read_settings(
        model=str(folder), quantize=quantize, engine=engine, cache_dir=cache, workers=2
    )


async def served(settings: Settings, query: str) -> RerankResult:
    request = RerankRequest(query, tuple(map(Document, DOCUMENTS)), RerankOptions())
    async with build_engine(settings) as engine:
        return await engine.rerank(request)


def scores_in_input_order(result: RerankResult) -> npt.NDArray[np.float64]:
    by_index = {each.index: each.score.value for each in result.results if each.score is not None}
    return np.array([by_index[index] for index in range(len(DOCUMENTS))])


def expected_scores(folder: Path, query: str) -> npt.NDArray[np.float64]:
    from sentence_transformers import CrossEncoder

    pairs = [(query, document) for document in DOCUMENTS]
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    scores: npt.NDArray[np.float64] = model.predict(pairs, show_progress_bar=False)
    return scores


@pytest.mark.parametrize("query", [SHORT_QUERY, LONG_QUERY], ids=["short", "long"])
@pytest.mark.parametrize("activation", [SIGMOID, IDENTITY], ids=["sigmoid", "identity"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_scores_equal_sentence_transformers(
    tmp_path: Path, architecture: str, activation: str, query: str
) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=activation)
    expected = expected_scores(folder, query)
    result = await served(settings_for(folder, tmp_path / "cache", Quantization.NONE), query)
    np.testing.assert_allclose(scores_in_input_order(result), expected, atol=1e-4, rtol=0)
    assert np.ptp(expected) > 0.01, "all pairs score alike: the comparison would prove nothing"
    is_sigmoid = activation == SIGMOID
    assert result.summary.score_kind is (
        ScoreKind.PROBABILITY if is_sigmoid else ScoreKind.RAW_LOGIT
    )


async def test_onnx_from_the_folder_is_served_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "model", "xlm-roberta")
    save_onnx(folder)
    expected = expected_scores(folder, LONG_QUERY)
    (folder / "model.safetensors").unlink()
    for package in ("nncf", "torch", "transformers", "sentence_transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    result = await served(settings_for(folder, tmp_path / "cache", Quantization.NONE), LONG_QUERY)
    np.testing.assert_allclose(scores_in_input_order(result), expected, atol=1e-4, rtol=0)


async def test_a_model_saved_by_sentence_transformers_is_served(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    plain = save_tiny_model(tmp_path / "plain", "bert", activation=IDENTITY)
    folder = tmp_path / "saved"
    CrossEncoder(str(plain), device="cpu", max_length=24).save_pretrained(str(folder))
    expected = expected_scores(folder, SHORT_QUERY)
    result = await served(settings_for(folder, tmp_path / "cache", Quantization.NONE), SHORT_QUERY)
    np.testing.assert_allclose(scores_in_input_order(result), expected, atol=1e-4, rtol=0)
    assert result.summary.score_kind is ScoreKind.RAW_LOGIT


@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_int8_scores_stay_close(
    tmp_path: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    exact = expected_scores(folder, SHORT_QUERY)
    capsys.readouterr()
    result = await served(settings_for(folder, tmp_path / "cache", Quantization.INT8), SHORT_QUERY)
    assert capsys.readouterr().out == "", "standard output belongs to what the user asked for"
    scores = scores_in_input_order(result)
    # Random weights are the worst case, and the toy tokenisers differ a little with every training.
    assert np.corrcoef(scores, exact)[0, 1] > 0.8
    assert np.abs(scores - exact).max() > 1e-4, "nothing was quantised"
