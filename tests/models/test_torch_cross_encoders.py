"""torch scores as sentence-transformers scores: same weights, same pairs, within 1e-5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.torch import TorchBackend, torch_backend
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.torch_checkpoint import load_torch_model
from rerank_sidecar.models.torch_device import CPU, TorchDtype, TorchEngine
from tests.models import remote_code
from tests.models.tiny_llms import save_tiny_llm
from tests.models.tiny_models import MAX_TOKENS, WORDS, edit_json, save_tiny_model

IDENTITY = "torch.nn.modules.linear.Identity"
QUERY = "where is the castle"
DOCUMENTS = (
    "the castle is in the valley of the river",
    "stone",
    "how many people live in the city",
    *(" ".join(WORDS[first : first + 1 + first % 5]) for first in range(len(WORDS))),
)
PADDED = {"deberta-v2"}
ARCHITECTURES = ("bert", "electra", "roberta", "xlm-roberta", "modernbert", "deberta-v2")


def backend_of(
    folder: Path,
    dtype: TorchDtype = TorchDtype.FLOAT32,
    device: str = CPU,
) -> TorchBackend:
    engine = TorchEngine((device,), dtype, "the test")
    return torch_backend(load_torch_model(folder), engine)


def pairs_of(folder: Path) -> list[TokenSequence]:
    tokenizer = TextTokenizer.from_file(folder / "tokenizer.json")
    query, *documents = tokenizer.encode([QUERY, *DOCUMENTS])
    pairs = [tokenizer.pair.wrap(query.token_ids, each.token_ids) for each in documents]
    assert max(map(len, pairs)) <= MAX_TOKENS, "sentence-transformers would cut it"
    return pairs


def scores_of(backend: TorchBackend, pairs: Sequence[TokenSequence]) -> npt.NDArray[np.float32]:
    rows = backend.run(pairs)
    assert all(row.shape == (1,) and row.dtype == np.float32 for row in rows)
    return np.concatenate(rows)


def expected_scores(folder: Path) -> npt.NDArray[np.float32]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device=CPU, local_files_only=True)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    scores: npt.NDArray[np.float32] = model.predict(pairs, show_progress_bar=False)
    return scores


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_scores_equal_sentence_transformers(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    backend, expected = backend_of(folder), expected_scores(folder)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        scores_of(backend, pairs_of(folder)) / scale, expected / scale, atol=1e-5, rtol=0
    )
    assert np.ptp(expected) > 0.01, "all pairs score alike: the comparison would prove nothing"
    assert backend.info.is_padded is (architecture in PADDED)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_does_not_depend_on_its_neighbours(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    backend, pairs = backend_of(folder), pairs_of(folder)
    alone = np.concatenate([scores_of(backend, [pair]) for pair in pairs])
    np.testing.assert_allclose(scores_of(backend, pairs), alone, atol=1e-5, rtol=1e-5)


def test_a_classifier_that_reads_all_tokens_is_run_padded(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "modernbert", activation=IDENTITY)
    edit_json(folder / "config.json", classifier_pooling="mean")
    backend = backend_of(folder)
    assert backend.info.is_padded
    np.testing.assert_allclose(
        scores_of(backend, pairs_of(folder)), expected_scores(folder), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("architecture", ["bert", "xlm-roberta", "modernbert"])
def test_bfloat16_stays_close_and_its_scores_are_finer_than_it(
    tmp_path: Path, architecture: str
) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    backend, expected = backend_of(folder, TorchDtype.BF16), expected_scores(folder)
    scores = scores_of(backend, pairs_of(folder))
    assert np.corrcoef(scores, expected)[0, 1] > 0.9
    rounded = torch.from_numpy(scores).to(torch.bfloat16).float().numpy()
    assert (scores != rounded).any(), "the head rounds scores to bfloat16"
    assert backend.info.precision == "bf16"


def test_a_model_of_several_modules_is_run_as_sentence_transformers_runs_it(
    tmp_path: Path,
) -> None:
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    plain = save_tiny_model(tmp_path / "plain", "bert")
    transformer = Transformer(str(plain))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    torch.manual_seed(3)
    dense = Dense(64, 1, module_output_name="scores")
    folder = tmp_path / "modular"
    CrossEncoder(modules=[transformer, pooling, dense], device=CPU).save_pretrained(str(folder))
    pairs = pairs_of(plain)
    from torch.nn import Identity

    model = CrossEncoder(str(folder), device=CPU, activation_fn=Identity())
    expected = model.predict([(QUERY, document) for document in DOCUMENTS])
    scores = scores_of(backend_of(folder), pairs)
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=1e-5)


def test_a_model_with_two_labels_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "bert", labels=2)
    with pytest.raises(ModelNotServable, match="2 labels"):
        backend_of(folder)


def test_a_head_without_weights_is_refused(tmp_path: Path) -> None:
    from transformers import AutoModel

    folder = save_tiny_model(tmp_path / "model", "bert")
    AutoModel.from_pretrained(folder).save_pretrained(tmp_path / "headless")
    edit_json(tmp_path / "headless" / "config.json", id2label={"0": "LABEL_0"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "headless" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ModelNotServable, match="classifier"):
        backend_of(tmp_path / "headless")


def test_a_head_without_weights_is_refused_in_a_pickle_too(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "bert")
    weights = load_file(folder / "model.safetensors")
    kept = {name: each for name, each in weights.items() if not name.startswith("classifier")}
    torch.save(kept, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotServable, match="no weights for classifier"):
        backend_of(folder)


def test_a_language_model_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path / "model", "qwen3")
    with pytest.raises(ModelNotServable, match="`family` is llm_pointwise"):
        backend_of(folder)


def test_a_package_that_a_models_own_code_lacks_is_not_taken_for_the_extra(
    tmp_path: Path,
) -> None:
    folder = save_tiny_model(tmp_path / "model", "bert")
    names = {"AutoConfig": "own.BagConfig"}
    names["AutoModelForSequenceClassification"] = "own.BagForSequenceClassification"
    edit_json(folder / "config.json", auto_map=names, model_type="bag-of-tokens")
    source = Path(remote_code.__file__).read_text(encoding="utf-8")
    (folder / "own.py").write_text(source + "\nimport no_such_package\n", encoding="utf-8")
    with pytest.raises(ModelNotServable, match="no_such_package"):
        load_torch_model(folder, trust_remote_code=True)


def test_loading_writes_nothing_into_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_model(tmp_path / "model", "bert")
    capfd.readouterr()
    backend_of(folder)
    assert capfd.readouterr() == ("", "")


def test_an_empty_folder_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelNotServable, match="cannot load"):
        backend_of(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestOnGpu:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    @pytest.mark.parametrize("dtype", list(TorchDtype))
    def test_scores_stay_close(self, tmp_path: Path, architecture: str, dtype: TorchDtype) -> None:
        folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
        backend, expected = backend_of(folder, dtype, "cuda:0"), expected_scores(folder)
        scores = scores_of(backend, pairs_of(folder))
        if dtype is TorchDtype.FLOAT32:
            np.testing.assert_allclose(scores, expected, atol=1e-3, rtol=1e-3)
        assert np.corrcoef(scores, expected)[0, 1] > 0.9
        assert backend.info.is_padded is (architecture in PADDED or dtype is TorchDtype.FLOAT32)

    def test_many_batches_one_after_the_other_do_not_mix(self, tmp_path: Path) -> None:
        folder = save_tiny_model(tmp_path / "model", "bert", activation=IDENTITY)
        backend, pairs = backend_of(folder, TorchDtype.BF16, "cuda:0"), pairs_of(folder)
        alone = np.concatenate([scores_of(backend, [pair]) for pair in pairs])
        for size in (2, 7, 13, 40):
            for first in range(0, len(pairs) - size, 3):
                part = slice(first, first + size)
                np.testing.assert_allclose(
                    scores_of(backend, pairs[part]), alone[part], atol=0.1, rtol=0.05
                )
