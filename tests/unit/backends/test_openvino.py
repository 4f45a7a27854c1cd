"""The OpenVINO backend pads, masks and unpads, from many threads at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.openvino import OpenVinoBackend
from rerank_sidecar.errors import BackendFailed, ModelNotServable
from rerank_sidecar.models.runtime import load_openvino

VOCABULARY = 50
DIMENSION = 4
PAD = 3
TABLE = np.random.default_rng(1).normal(size=(VOCABULARY, DIMENSION)).astype(np.float32)


def _encoder(ops: Any, ids: Any, mask: Any, _types: Any) -> Any:
    """Each token's vector, plus the mean vector of the tokens that are not masked."""
    vectors = ops.gather(ops.constant(TABLE), ids, ops.constant(0))
    weights = ops.unsqueeze(ops.convert(mask, "f32"), ops.constant(2))
    axis = ops.constant(1)
    total = ops.reduce_sum(ops.multiply(vectors, weights), axis, keep_dims=True)
    count = ops.reduce_sum(weights, axis, keep_dims=True)
    return ops.add(vectors, ops.divide(total, count))


def _classifier(ops: Any, ids: Any, mask: Any, types: Any) -> Any:
    """The sum over tokens that are not masked of the id, halved in the second segment."""
    share = ops.subtract(
        ops.constant(np.float32(1)),
        ops.multiply(ops.convert(types, "f32"), ops.constant(np.float32(0.5))),
    )
    values = ops.multiply(ops.convert(ops.multiply(ids, mask), "f32"), share)
    return ops.reduce_sum(values, ops.constant(1), keep_dims=True)


def save_model(
    path: Path,
    graph: Callable[..., Any],
    names: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids"),
) -> Path:
    openvino = load_openvino()
    import openvino.opset13 as ops

    inputs = [ops.parameter([-1, -1], np.int64, name=name) for name in names]
    for each, name in zip(inputs, names, strict=True):
        each.output(0).get_tensor().set_names({name})
    model = openvino.Model([graph(ops, *inputs)], inputs, "test")
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def sequence(*token_ids: int, second_segment_from: int = 10_000) -> TokenSequence:
    tokens = np.array(token_ids, dtype=np.int64)
    types = (np.arange(len(tokens)) >= second_segment_from).astype(np.int64)
    return TokenSequence(tokens, types)


def expected_hidden(tokens: TokenSequence) -> npt.NDArray[np.float32]:
    vectors = TABLE[tokens.token_ids]
    hidden: npt.NDArray[np.float32] = vectors + vectors.mean(axis=0)
    return hidden


@pytest.fixture
def encoder(tmp_path: Path) -> OpenVinoBackend:
    path = save_model(tmp_path / "encoder.xml", _encoder)
    return OpenVinoBackend(path, output="hidden_states", workers=2, pad_token_id=PAD)


def test_hidden_states_come_back_without_padding(encoder: OpenVinoBackend) -> None:
    batch = [sequence(7), sequence(1, 2, 3, 4, 5, 6), sequence(9, 8, 7)]
    for tokens, array in zip(batch, encoder.run(batch), strict=True):
        assert array.shape == (len(tokens), DIMENSION)
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected_hidden(tokens), atol=1e-6)


def test_what_is_not_attended_to_has_states_but_no_influence(encoder: OpenVinoBackend) -> None:
    whole, masked = sequence(1, 2, 3, 4), sequence(1, 2, 3, 4)
    masked = replace(masked, attended=2)
    expected = TABLE[whole.token_ids] + TABLE[whole.token_ids[:2]].mean(axis=0)
    first, second = encoder.run([whole, masked])
    np.testing.assert_allclose(first, expected_hidden(whole), atol=1e-6)
    np.testing.assert_allclose(second, expected, atol=1e-6)


def test_only_the_states_that_are_wanted_come_back(encoder: OpenVinoBackend) -> None:
    tokens = replace(sequence(5, 6, 7, 8), wanted=np.array([0, 3]))
    of_some, of_all = encoder.run([tokens, sequence(1, 2, 3, 4, 5)])
    np.testing.assert_allclose(of_some, expected_hidden(tokens)[[0, 3]], atol=1e-6)
    assert len(of_all) == 5


def test_logits_are_one_row_each_and_types_and_mask_count(tmp_path: Path) -> None:
    path = save_model(tmp_path / "classifier.xml", _classifier)
    backend = OpenVinoBackend(path, output="logits", workers=1, pad_token_id=PAD)
    batch = [sequence(10, 20, 30, second_segment_from=2), sequence(4)]
    np.testing.assert_allclose(np.array(backend.run(batch)), [[45.0], [4.0]])


def test_a_model_without_token_types_gets_none(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "plain.xml",
        lambda ops, ids, mask: _encoder(ops, ids, mask, None),
        names=("input_ids", "attention_mask"),
    )
    backend = OpenVinoBackend(path, output="hidden_states", workers=1)
    tokens = sequence(5, 6)
    np.testing.assert_allclose(backend.run([tokens])[0], expected_hidden(tokens), atol=1e-6)


def test_results_own_their_memory(encoder: OpenVinoBackend) -> None:
    tokens = sequence(1, 2)
    first = encoder.run([tokens])[0]
    encoder.run([sequence(40, 41)])
    assert first.base is None
    np.testing.assert_allclose(first, expected_hidden(tokens), atol=1e-6)


def test_threads_do_not_mix_their_batches(encoder: OpenVinoBackend) -> None:
    random = np.random.default_rng(2)
    batches = [
        [sequence(*random.integers(0, VOCABULARY, size)) for size in random.integers(1, 30, 5)]
        for _ in range(60)
    ]
    with ThreadPoolExecutor(max_workers=4) as threads:
        for batch, arrays in zip(batches, threads.map(encoder.run, batches), strict=True):
            for tokens, array in zip(batch, arrays, strict=True):
                np.testing.assert_allclose(array, expected_hidden(tokens), atol=1e-5)


def test_an_empty_batch_gives_nothing(encoder: OpenVinoBackend) -> None:
    assert encoder.run([]) == []


def test_info_names_the_engine(encoder: OpenVinoBackend) -> None:
    encoder.warm_up()
    assert encoder.info.engine == "openvino"
    assert encoder.info.engine_version[0].isdigit()
    assert (encoder.info.device, encoder.info.precision) == ("cpu", "float32")
    assert encoder.info.parallel_runs == 2


def test_failure_is_typed_and_tells_no_tokens(encoder: OpenVinoBackend) -> None:
    with pytest.raises(BackendFailed) as caught:
        encoder.run([TokenSequence(np.zeros((2, 2), np.int64), np.zeros(3, np.int64))])
    assert caught.value.message == "the forward pass failed (ValueError)"


def test_a_closed_backend_fails(encoder: OpenVinoBackend) -> None:
    encoder.run([sequence(1)])
    encoder.close()
    with pytest.raises(BackendFailed):
        encoder.run([sequence(1)])


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    path.write_text("<net/>", encoding="utf-8")
    with pytest.raises(ModelNotServable, match="cannot read"):
        OpenVinoBackend(path, output="logits", workers=1)


def test_a_model_with_other_inputs_is_refused(tmp_path: Path) -> None:
    path = save_model(
        tmp_path / "other.xml",
        lambda ops, ids, mask: _encoder(ops, ids, mask, None),
        names=("input_ids", "position_ids"),
    )
    with pytest.raises(ModelNotServable, match="position_ids"):
        OpenVinoBackend(path, output="hidden_states", workers=1)


def test_openvino_sends_no_usage_statistics(encoder: OpenVinoBackend) -> None:
    import openvino.tools.ovc as converter

    assert type(converter.telemetry).__module__.endswith("telemetry_stub")
