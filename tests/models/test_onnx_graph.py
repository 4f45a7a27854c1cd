"""ONNX Runtime runs cross-encoders of every kind: exact in float32, close in int8, kept on disk."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.onnxruntime import OnnxRuntimeBackend
from rerank_sidecar.errors import InvalidSetting, MissingExtra, ModelNotServable
from rerank_sidecar.loading.families import family_name
from rerank_sidecar.models.arithmetic import Arithmetic, builtin_arithmetic
from rerank_sidecar.models.cpu import Cpu, read_cpu
from rerank_sidecar.models.listing import ModelState, list_models
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.settings import EngineChoice, Settings, read_settings
from tests.models.prepared import prepared_model
from tests.models.tiny_models import MAX_TOKENS, WORDS, edit_json, save_onnx, save_tiny_model

IDENTITY = "torch.nn.modules.linear.Identity"
FUSED = ("bert", "electra", "roberta", "xlm-roberta")
ARCHITECTURES = (*FUSED, "deberta-v2", "modernbert")
TORCH = ("nncf", "torch", "transformers", "sentence_transformers")
ARM = Cpu("Neoverse-V1", ("asimddp", "i8mm", "bf16"))
OLD = Cpu("an old x86", ("avx2",))

QUERY = "where is the castle"
DOCUMENTS = (
    "the castle is in the valley of the river",
    "stone",
    "",
    "Zebra, quarter & umbrella: 42 naïve 城 🏰",
    " ".join(WORDS * 2),
    *(" ".join(WORDS[first : first + 1 + first % 6]) for first in range(len(WORDS))),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_tiny_model(tmp_path / "tiny", "bert", activation=IDENTITY)


def settings_for(folder: Path, arithmetic: str = "float32", quantize: str = "int8") -> Settings:
    return read_settings(
        model=str(folder),
        cache_dir=folder.parent / "cache",
        engine=f"onnxruntime-{arithmetic}",
        quantize=quantize,
    )


def backend_for(model: ServableModel, workers: int = 1) -> OnnxRuntimeBackend:
    assert model.arithmetic is not None
    return OnnxRuntimeBackend(model.model_path, arithmetic=model.arithmetic, workers=workers)


def sequences(model: ServableModel) -> list[TokenSequence]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model.tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    pairs = [tokenizer.encode(QUERY, document) for document in DOCUMENTS]
    return [TokenSequence(np.array(each.ids), np.array(each.type_ids)) for each in pairs]


def logits(model: ServableModel) -> npt.NDArray[np.float32]:
    return np.concatenate(backend_for(model).run(sequences(model)))


def expected_logits(folder: Path) -> npt.NDArray[np.float32]:
    from sentence_transformers import CrossEncoder

    pairs = [(QUERY, document) for document in DOCUMENTS]
    model = CrossEncoder(str(folder), device="cpu", local_files_only=True)
    scores: npt.NDArray[np.float32] = model.predict(pairs, show_progress_bar=False)
    assert np.ptp(scores) > 0.01, "all pairs score alike: the comparison would prove nothing"
    return scores


def operations(model: ServableModel) -> set[str]:
    import onnx

    graph = onnx.load(model.model_path, load_external_data=False).graph
    return {each.op_type for each in graph.node}


def hide(monkeypatch: pytest.MonkeyPatch, packages: Sequence[str]) -> None:
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_equals_sentence_transformers(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    model = prepared_model(settings_for(folder))
    np.testing.assert_allclose(logits(model), expected_logits(folder), atol=1e-4, rtol=0)
    assert ("Attention" in operations(model)) is (architecture in FUSED)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_int8_scores_stay_close(
    tmp_path: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_tiny_model(tmp_path / "model", architecture, activation=IDENTITY)
    exact = expected_logits(folder)
    capsys.readouterr()
    model = prepared_model(settings_for(folder, "int8"))
    assert capsys.readouterr().out == "", "standard output belongs to what the user asked for"
    scores = logits(model)
    assert np.corrcoef(scores, exact)[0, 1] > 0.95
    assert np.abs(scores - exact).max() > 1e-4, "nothing was quantised"
    assert "MatMulInteger" in operations(model)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_a_row_is_the_same_to_the_bit_in_every_batch(folder: Path, arithmetic: str) -> None:
    model = prepared_model(settings_for(folder, arithmetic))
    backend, batch = backend_for(model, workers=2), sequences(model)
    alone = [backend.run([each])[0] for each in batch]
    np.testing.assert_array_equal(np.array(backend.run(batch)), np.array(alone))


def test_what_a_cached_graph_is_called(folder: Path) -> None:
    model = prepared_model(settings_for(folder, "int8"))
    assert (model.arithmetic, model.quantization) == (Arithmetic.INT8, "int8")
    assert model.arithmetic_reason == "the setting engine=onnxruntime-int8"
    assert sorted(path.name for path in model.model_path.parent.iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "prepared.json",
        "tokenizer.json",
    ]
    exact = prepared_model(settings_for(folder))
    openvino = read_settings(
        model=str(folder), cache_dir=folder.parent / "cache", engine="openvino-float32"
    )
    versions = {each.version for each in (model, exact, prepared_model(openvino))}
    assert len(versions) == 3
    converted = [
        each for each in list_models(openvino, family_name) if each.state is ModelState.CONVERTED
    ]
    assert [each.id for each in converted] == [str(folder)] * 3
    assert sum("ONNX Runtime" in each.note for each in converted) == 2


def test_a_cached_graph_needs_nothing_but_the_runtime(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared_model(settings_for(folder, "int8"))
    hide(monkeypatch, [*TORCH, "onnx"])
    again = prepared_model(settings_for(folder, "int8"))
    assert (again.version, again.model_path) == (first.version, first.model_path)
    np.testing.assert_array_equal(logits(again), logits(first))


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data", "tokenizer.json"])
@pytest.mark.parametrize("kept", [0.5, None])
def test_a_damaged_graph_is_made_again(folder: Path, file: str, kept: float | None) -> None:
    save_onnx(folder)
    first = prepared_model(settings_for(folder))
    expected = logits(first)
    path = first.model_path.parent / file
    whole = path.read_bytes()
    path.unlink() if kept is None else path.write_bytes(whole[: int(len(whole) * kept)])
    again = prepared_model(settings_for(folder))
    assert again.model_path == first.model_path
    np.testing.assert_array_equal(logits(again), expected)


@pytest.mark.parametrize("arithmetic", ["float32", "int8"])
def test_onnx_from_the_folder_needs_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arithmetic: str
) -> None:
    folder = save_tiny_model(tmp_path / "model", "xlm-roberta", activation=IDENTITY)
    save_onnx(folder)
    expected = expected_logits(folder)
    (folder / "model.safetensors").unlink()
    hide(monkeypatch, TORCH)
    model = prepared_model(settings_for(folder, arithmetic))
    scores = logits(model)
    if arithmetic == "float32":
        np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    assert np.corrcoef(scores, expected)[0, 1] > 0.95
    assert operations(model) & {"Attention", "QAttention"}


def test_weights_may_lie_beside_the_graph_and_behind_links(folder: Path, tmp_path: Path) -> None:
    import onnx

    save_onnx(folder)
    expected = logits(prepared_model(settings_for(folder)))
    graph, weights = folder / "onnx" / "model.onnx", folder / "onnx" / "model.onnx_data"
    onnx.save(onnx.load(graph), graph, save_as_external_data=True, location=weights.name)
    for path in (graph, weights):
        blob = path.rename(tmp_path / f"blob-{path.name}")
        path.symlink_to(blob)
    np.testing.assert_array_equal(logits(prepared_model(settings_for(folder))), expected)


def test_a_configuration_that_counts_other_heads_does_not_change_scores(folder: Path) -> None:
    save_onnx(folder)
    expected = logits(prepared_model(settings_for(folder)))
    edit_json(folder / "config.json", num_attention_heads=8)
    np.testing.assert_allclose(
        logits(prepared_model(settings_for(folder))), expected, atol=1e-4, rtol=0
    )


def test_a_broken_onnx_file_is_refused_and_named(folder: Path) -> None:
    (folder / "onnx").mkdir()
    broken = folder / "onnx" / "model.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(ModelNotServable, match="ONNX Runtime cannot read") as caught:
        prepared_model(settings_for(folder))
    assert str(broken) in caught.value.message
    assert list((folder.parent / "cache" / "models").iterdir()) == []


def test_a_graph_that_gives_more_than_a_logit_is_refused(tmp_path: Path) -> None:
    two = save_tiny_model(tmp_path / "two", "bert", labels=2)
    save_onnx(two)
    one = save_tiny_model(tmp_path / "one", "bert")
    shutil.copytree(two / "onnx", one / "onnx")
    with pytest.raises(ModelNotServable, match="one finite logit"):
        prepared_model(settings_for(one))


@pytest.mark.parametrize("packages", [["onnxruntime"], ["onnx"]])
def test_without_its_packages_the_missing_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, packages: list[str]
) -> None:
    hide(monkeypatch, packages)
    with pytest.raises(MissingExtra, match=r"pip install 'rerank-sidecar\[onnxruntime\]'"):
        prepared_model(settings_for(folder))


def test_int8_contradicts_exact_scores(folder: Path) -> None:
    with pytest.raises(InvalidSetting, match="`onnxruntime-int8` needs `quantize` to be `int8`"):
        prepared_model(settings_for(folder, "int8", quantize="none"))


@pytest.mark.parametrize("engine", ["int8", "float32"])
def test_the_embedded_model_is_openvinos(engine: str) -> None:
    with pytest.raises(InvalidSetting, match="embedded model, which is an OpenVINO file"):
        builtin_arithmetic(EngineChoice(f"onnxruntime-{engine}"), read_cpu())


def pretend(monkeypatch: pytest.MonkeyPatch, cpu: Cpu) -> None:
    for module in ("arithmetic", "onnx_graph"):
        monkeypatch.setattr(f"rerank_sidecar.models.{module}.read_cpu", lambda: cpu)


def test_bfloat16_is_refused_where_the_runtime_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, Cpu("an x86", ("avx512_vnni", "avx512_bf16")))
    with pytest.raises(InvalidSetting, match="needs an Arm CPU") as caught:
        prepared_model(settings_for(folder, "bf16"))
    assert "openvino-bf16" in caught.value.message


def test_bfloat16_on_arm_runs_the_exact_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ARM)
    model = prepared_model(settings_for(folder, "bf16"))
    assert model.model_path == prepared_model(settings_for(folder)).model_path
    assert backend_for(model).info.precision == "bf16"
    np.testing.assert_allclose(logits(model), expected_logits(folder), atol=0.1)


def test_weights_have_a_bit_less_where_sums_of_products_overflow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ARM)
    usual = prepared_model(settings_for(folder, "int8"))
    pretend(monkeypatch, OLD)
    reduced = prepared_model(settings_for(folder, "int8"))
    assert reduced.version != usual.version
    assert largest_weight(usual) > 64 >= largest_weight(reduced)
    exact = (prepared_model(settings_for(folder)), prepared_model(settings_for(folder)))
    assert exact[0].version == exact[1].version


def largest_weight(model: ServableModel) -> int:
    import onnx
    from onnx import numpy_helper

    arrays: list[npt.NDArray[Any]] = [
        numpy_helper.to_array(each)
        for each in onnx.load(model.model_path).graph.initializer
        if each.data_type == onnx.TensorProto.INT8
    ]
    return max(int(np.abs(each.astype(np.int64)).max()) for each in arrays if each.ndim == 2)
