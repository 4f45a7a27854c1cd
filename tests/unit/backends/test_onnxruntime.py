"""The ONNX Runtime backend runs each sequence as it is, from many threads at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.fit import fit_backend
from rerank_sidecar.backends.measure import measure_shape
from rerank_sidecar.backends.onnxruntime import OnnxRuntimeBackend, onnxruntime_backend
from rerank_sidecar.errors import BackendFailed, MissingExtra, ModelNotServable
from rerank_sidecar.models.arithmetic import Arithmetic
from rerank_sidecar.models.runtime import load_onnxruntime

VOCABULARY = 50
DIMENSION = 4
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, DIMENSION)).astype(np.float32)
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def node(operation: str, inputs: Sequence[str], output: str, **attributes: Any) -> Any:
    from onnx import helper

    return helper.make_node(operation, inputs, [output], **attributes)


def encoder_nodes() -> list[Any]:
    """Each token's vector, plus the mean vector of all tokens."""
    return [
        node("Gather", ["table", "input_ids"], "vectors"),
        node("ReduceMean", ["vectors"], "mean", axes=[1]),
        node("Add", ["vectors", "mean"], "output"),
    ]


def classifier_nodes() -> list[Any]:
    """The sum over tokens that are not masked of the id, halved in the second segment."""
    return [
        node("Mul", ["input_ids", "attention_mask"], "kept"),
        node("Cast", ["kept"], "ids", to=1),
        node("Cast", ["token_type_ids"], "types", to=1),
        node("Mul", ["types", "half"], "less"),
        node("Sub", ["one", "less"], "share"),
        node("Mul", ["ids", "share"], "shares"),
        node("ReduceSum", ["shares", "axis"], "output"),
    ]


def save_model(path: Path, nodes: list[Any], names: Sequence[str] = INPUTS) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "table": TABLE,
        "half": np.array(0.5, np.float32),
        "one": np.array(1, np.float32),
        "axis": np.array([1], np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in names],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, str(path))
    return path


def sequence(*token_ids: int, second_segment_from: int = 10_000) -> TokenSequence:
    tokens = np.array(token_ids, dtype=np.int64)
    types = (np.arange(len(tokens)) >= second_segment_from).astype(np.int64)
    return TokenSequence(tokens, types)


def expected_hidden(tokens: TokenSequence) -> npt.NDArray[np.float32]:
    vectors = TABLE[tokens.token_ids]
    hidden: npt.NDArray[np.float32] = vectors + vectors.mean(axis=0)
    return hidden


def open_encoder(path: Path, workers: int = 2, threads: int = 1) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(
        path,
        arithmetic=Arithmetic.FLOAT32,
        workers=workers,
        threads_per_worker=threads,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_model(tmp_path / "encoder.onnx", encoder_nodes())


@pytest.fixture
def encoder(path: Path) -> OnnxRuntimeBackend:
    return open_encoder(path)


def test_hidden_states_come_back_as_long_as_the_sequences(encoder: OnnxRuntimeBackend) -> None:
    batch = [sequence(7), sequence(1, 2, 3, 4, 5, 6), sequence(9, 8, 7)]
    for tokens, array in zip(batch, encoder.run(batch), strict=True):
        assert array.shape == (len(tokens), DIMENSION)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected_hidden(tokens), atol=1e-6)


def test_logits_are_one_row_each_and_types_and_mask_count(tmp_path: Path) -> None:
    path = save_model(tmp_path / "classifier.onnx", classifier_nodes())
    backend = OnnxRuntimeBackend(path, arithmetic=Arithmetic.FLOAT32, workers=1)
    batch = [sequence(10, 20, 30, second_segment_from=2), sequence(4)]
    np.testing.assert_allclose(np.array(backend.run(batch)), [[45.0], [4.0]])


def test_a_model_without_token_types_gets_none(tmp_path: Path) -> None:
    path = save_model(tmp_path / "plain.onnx", encoder_nodes(), INPUTS[:2])
    tokens = sequence(5, 6)
    np.testing.assert_allclose(open_encoder(path).run([tokens])[0], expected_hidden(tokens))


def test_results_own_their_memory(encoder: OnnxRuntimeBackend) -> None:
    tokens = sequence(1, 2)
    first = encoder.run([tokens])[0]
    encoder.run([sequence(40, 41)])
    assert first.base is None
    np.testing.assert_allclose(first, expected_hidden(tokens), atol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_callers_do_not_mix_their_batches(path: Path, threads: int) -> None:
    encoder = open_encoder(path, threads=threads)
    random = np.random.default_rng(2)
    batches = [
        [sequence(*random.integers(0, VOCABULARY, size)) for size in random.integers(1, 30, 5)]
        for _ in range(60)
    ]
    with ThreadPoolExecutor(max_workers=4) as callers:
        for batch, arrays in zip(batches, callers.map(encoder.run, batches), strict=True):
            for tokens, array in zip(batch, arrays, strict=True):
                np.testing.assert_allclose(array, expected_hidden(tokens), atol=1e-5)


def test_an_empty_batch_gives_nothing(encoder: OnnxRuntimeBackend) -> None:
    assert encoder.run([]) == []


def test_info_names_the_engine(path: Path) -> None:
    info = open_encoder(path, workers=3, threads=2).info
    assert info.engine == "onnxruntime"
    assert info.engine_version[0].isdigit()
    assert (info.device, info.precision) == ("cpu", "float32")
    assert (info.parallel_runs, info.threads_per_run) == (3, 2)
    assert not info.is_padded


def test_it_is_fitted_to_the_machine_like_any_backend(path: Path) -> None:
    make = onnxruntime_backend(path, arithmetic=Arithmetic.FLOAT32)
    backend, shape = fit_backend(
        make,
        [(2, 1), (1, 2)],
        lambda each, _budget_s: measure_shape(each, 0.02, max_tokens=64),
        patience_s=10,
    )
    assert shape.tokens_per_s > 0
    tokens = sequence(3, 4)
    np.testing.assert_allclose(backend.run([tokens])[0], expected_hidden(tokens), atol=1e-6)


def test_failure_is_typed_and_tells_no_tokens(
    encoder: OnnxRuntimeBackend, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BackendFailed) as caught:
        encoder.run([sequence(1, 31337)])
    assert caught.value.message.startswith("the forward pass failed (")
    out, err = capfd.readouterr()
    assert "31337" not in out + err + caught.value.message


def test_a_failure_leaves_the_backend_working(path: Path) -> None:
    encoder = open_encoder(path, workers=1)
    for _ in range(3):
        with pytest.raises(BackendFailed):
            encoder.run([TokenSequence(np.zeros((2, 2), np.int64), np.zeros(3, np.int64))])
    assert len(encoder.run([sequence(1)])) == 1


def test_a_closed_backend_fails(encoder: OnnxRuntimeBackend) -> None:
    encoder.run([sequence(1)])
    encoder.close()
    with pytest.raises(BackendFailed, match="closed"):
        encoder.run([sequence(1)])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ModelNotServable, match="ONNX Runtime cannot read"):
        open_encoder(path)


def test_a_model_with_other_inputs_is_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "other.onnx", encoder_nodes(), ("input_ids", "position_ids"))
    with pytest.raises(ModelNotServable, match="position_ids"):
        open_encoder(path)


def test_without_the_package_the_missing_extra_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rerank-sidecar\[onnxruntime\]'"):
        open_encoder(path)


def test_its_telemetry_is_off_before_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra):
        load_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
