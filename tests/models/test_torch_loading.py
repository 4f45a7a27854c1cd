"""A cross-encoder on torch, from its folder to scores: those of sentence-transformers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from rerank_sidecar.app import build_engine
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.loading.on_torch import fit_to_torch, load_for_torch, version_on_torch
from rerank_sidecar.models.checkpoint import read_checkpoint
from rerank_sidecar.models.servable import Activation
from rerank_sidecar.models.torch_device import TorchEngine, choose_torch_engine
from rerank_sidecar.rerankers.base import IndexedDocuments, RerankerInfo, ScoreOptions
from rerank_sidecar.rerankers.cross_encoder import CrossEncoderConfig, CrossEncoderReranker
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import EngineChoice, read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest, Score
from tests.models.tiny_llms import save_tiny_llm
from tests.models.tiny_models import WORDS, save_tiny_backbone, save_tiny_model

SHORT_QUERY = "where is the castle"
LONG_QUERY = " ".join(WORDS[:30])
DOCUMENTS = (
    "the castle is in the valley of the river",
    "",
    " ".join(WORDS * 2),
    *(" ".join(WORDS[first : first + 1 + first % 6]) for first in range(len(WORDS))),
)
ARCHITECTURES = ("bert", "electra", "roberta", "xlm-roberta", "modernbert", "deberta-v2")


@pytest.mark.parametrize("query", [SHORT_QUERY, LONG_QUERY], ids=["short", "long"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
async def test_scores_equal_sentence_transformers(
    tmp_path: Path, architecture: str, query: str
) -> None:
    from sentence_transformers import CrossEncoder

    folder = save_tiny_model(tmp_path / "model", architecture)
    reference = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    pairs = [(query, document) for document in DOCUMENTS]
    expected = reference.predict(pairs, show_progress_bar=False)
    assert np.ptp(expected) > 0.01, "all pairs score alike: the comparison would prove nothing"
    np.testing.assert_allclose(await scores_on_torch(folder, query), expected, atol=1e-5, rtol=0)


async def scores_on_torch(folder: Path, query: str) -> list[float]:
    settings = read_settings(
        model=str(folder), engine=EngineChoice.TORCH_FLOAT32, device="cpu", workers=2
    )
    engine = choose_torch_engine(settings)
    assert isinstance(engine, TorchEngine)
    model = load_for_torch(folder, settings)
    async with AsyncExitStack() as stack:
        executor = stack.enter_context(ThreadPoolExecutor(2))
        loading = Loading("tiny", settings, executor, stack)
        running = await loading.start(lambda: fit_to_torch(model, engine, settings))
        reranker = CrossEncoderReranker(
            RerankerInfo("tiny", "1", "cross_encoder", ScoreKind.PROBABILITY, "torch", "tiny"),
            TextTokenizer(Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())),
            running.scheduler,
            CrossEncoderConfig(WindowLimits(model.max_tokens), model.activation.value),
            executor,
        )
        found = {
            index: outcome
            async for index, outcome in reranker.score(query, arriving(), ScoreOptions())
        }
    scores = [found[index] for index in range(len(DOCUMENTS))]
    return [score.value for score in scores if isinstance(score, Score)]


async def arriving() -> AsyncIterator[IndexedDocuments]:
    documents = list(enumerate(map(Document, DOCUMENTS)))
    for first in range(0, len(documents), 7):
        yield documents[first : first + 7]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_read_of_a_model_is_what_its_files_say(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture)
    model = load_for_torch(folder, read_settings())
    checkpoint = read_checkpoint(folder)
    assert model.max_tokens == checkpoint.max_tokens
    assert model.activation is checkpoint.activation is Activation.SIGMOID
    assert model.pad_token_id == checkpoint.pad_token_id


async def test_what_was_saved_in_several_modules_is_served_by_torch_alone(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(3)
    transformer = Transformer(str(save_tiny_backbone(tmp_path / "plain", "bert")))
    modules = [transformer, Pooling(64, "cls"), Dense(64, 1, module_output_name="scores")]
    folder = tmp_path / "modular"
    CrossEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    reference = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    expected = reference.predict(
        [(SHORT_QUERY, document) for document in DOCUMENTS], show_progress_bar=False
    )
    np.testing.assert_allclose(await served_scores(folder, "torch-float32"), expected, atol=1e-5)
    with pytest.raises(ModelNotServable, match="`engine` set to `torch-float32`"):
        await served_scores(folder, "auto")


def test_a_model_whose_head_lies_in_a_folder_of_its_own_has_another_version_with_another_head(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path / "model", "bert")
    head = folder / "2_Dense" / "model.safetensors"
    head.parent.mkdir()
    versions = set()
    for content in (b"one", b"other", b"one"):
        head.write_bytes(content)
        versions.add(version_on_torch(folder, "float32"))
    assert len(versions) == 2


async def test_a_decoder_with_a_classifier_is_served_by_torch_and_refused_by_openvino(
    tmp_path: Path,
) -> None:
    from sentence_transformers import CrossEncoder

    folder = save_tiny_llm(tmp_path / "model", "qwen2", labels=1)
    reference = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    expected = reference.predict(
        [(SHORT_QUERY, document) for document in DOCUMENTS], show_progress_bar=False
    )
    np.testing.assert_allclose(await served_scores(folder, "torch-float32"), expected, atol=1e-5)
    with pytest.raises(ModelNotServable, match="`engine` set to `torch-float32`"):
        await served_scores(folder, "openvino-float32")


async def served_scores(folder: Path, engine: str) -> list[float]:
    """Score by an engine as the server makes it, told of the folder alone."""
    settings = read_settings(
        model=str(folder), engine=engine, device="cpu", cache_dir=folder.parent / "cache"
    )
    async with build_engine(settings) as served:
        result = await served.rerank(
            RerankRequest(SHORT_QUERY, tuple(map(Document, DOCUMENTS)), RerankOptions())
        )
    scores = {each.index: each.score.value for each in result.results if each.score}
    return [scores[index] for index in range(len(DOCUMENTS))]


def test_an_activation_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(
        tmp_path / "model", "bert", activation="torch.nn.modules.activation.Tanh"
    )
    with pytest.raises(ModelNotServable, match="Tanh"):
        load_for_torch(folder, read_settings())
