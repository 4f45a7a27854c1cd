"""What sequences have in common is read once, and that changes no answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rerank_sidecar.backends.base import TokenSequence
from rerank_sidecar.backends.torch_batches import Staging
from rerank_sidecar.backends.torch_causal import CausalProgram, causal_programs
from rerank_sidecar.models.torch_causal import load_causal_model
from rerank_sidecar.models.torch_device import CPU, TorchDtype, TorchEngine
from tests.models.tiny_llms import MAX_TOKENS, save_tiny_llm

DEVICE = torch.device(CPU)
ANSWERS = (300, 301)


class Counted:
    """A program and how many tokens its model has read, padding included."""

    def __init__(self, folder: Path) -> None:
        engine = TorchEngine((CPU,), TorchDtype.FLOAT32, "the test")
        model = load_causal_model(folder, torch.float32, None)
        [self.program] = causal_programs(engine, model, ANSWERS, max_tokens=MAX_TOKENS)
        self.tokens = 0
        model.module.get_input_embeddings().register_forward_hook(self._count)

    def _count(self, _layer: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        self.tokens += inputs[0].numel()

    def run(self, batch: Sequence[TokenSequence]) -> Any:
        self.tokens = 0
        return self.program.run(batch, Staging(DEVICE)).numpy()


def sequence(*parts: int, seed: int = 0) -> TokenSequence:
    """A sequence of parts of these lengths; the same first part for the same seed."""
    own = np.random.default_rng(sum(parts))
    first = np.random.default_rng(seed).integers(5, 400, parts[0])
    ids = np.concatenate([first, *(own.integers(5, 400, part) for part in parts[1:])])
    return TokenSequence(ids.astype(np.int64), np.zeros(len(ids), np.int64))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma", "gemma2"])
def test_answers_are_the_same_however_much_is_shared(tmp_path: Path, architecture: str) -> None:
    counted = Counted(save_tiny_llm(tmp_path, architecture))
    assert counted.program.shares
    batches = [
        [sequence(50, each) for each in (7, 20, 31, 90)],
        [sequence(50, each) for each in (1, 64)],
        [sequence(50, 9), sequence(40, 12, seed=3)],
        [sequence(40, each, seed=3) for each in (5, 6, 7)],
        [sequence(50, 33)],
        [sequence(3, 2), sequence(3, 40)],
    ]
    for batch in batches:
        alone = np.concatenate([Counted.run(counted, [each]) for each in batch])
        np.testing.assert_allclose(counted.run(batch), alone, atol=1e-4, rtol=1e-4)


def test_answers_are_those_of_the_whole_vocabulary(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_tiny_llm(tmp_path, "gemma2")
    batch = [sequence(50, each) for each in (7, 20, 31)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = [
            model(torch.from_numpy(each.token_ids)[None]).logits[0, -1, list(ANSWERS)].numpy()
            for each in batch
        ]
    np.testing.assert_allclose(Counted(folder).run(batch), expected, atol=1e-4, rtol=1e-4)


def test_the_common_beginning_is_read_once_and_not_again_by_the_next_batch(tmp_path: Path) -> None:
    counted = Counted(save_tiny_llm(tmp_path, "qwen3"))
    batch = [sequence(100, each) for each in (16, 12, 15)]
    counted.run(batch)
    assert counted.tokens == 100 + 3 * 16
    counted.run([sequence(100, each) for each in (16, 13)])
    assert counted.tokens == 2 * 16
    counted.run([sequence(100, 8)])
    assert counted.tokens == 8


def test_a_new_beginning_takes_the_place_of_the_old(tmp_path: Path) -> None:
    counted = Counted(save_tiny_llm(tmp_path, "qwen3"))
    counted.run([sequence(100, each) for each in (16, 12)])
    counted.run([sequence(80, each, seed=5) for each in (16, 12)])
    assert counted.tokens == 80 + 2 * 16


def test_a_short_beginning_is_not_worth_a_pass(tmp_path: Path) -> None:
    counted = Counted(save_tiny_llm(tmp_path, "qwen3"))
    counted.run([sequence(9, each) for each in (15, 12)])
    assert counted.tokens == 2 * 24


def test_a_model_whose_states_cannot_be_shared_reads_all(tmp_path: Path) -> None:
    model = load_causal_model(save_tiny_llm(tmp_path, "qwen3"), torch.float32, None).module

    class Forgetful(torch.nn.Module):
        """Takes no cache, as models that are no transformers do."""

        def forward(self, input_ids: torch.Tensor, past_key_values: Any, use_cache: bool) -> Any:
            if past_key_values is not None:
                raise TypeError("no cache here")
            return model(input_ids=input_ids, use_cache=use_cache)

    program = CausalProgram(Forgetful(), DEVICE, 0, MAX_TOKENS)
    from rerank_sidecar.models.torch_causal import answer_with

    answer_with(model, ANSWERS)
    assert not program.try_to_share(1e-3)
    batch = [sequence(50, 7), sequence(50, 11)]
    together = program.run(batch, Staging(DEVICE))
    alone = torch.cat([program.run([each], Staging(DEVICE)) for each in batch])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_bfloat16_answers_are_finer_than_it(tmp_path: Path) -> None:
    folder = save_tiny_llm(tmp_path, "qwen3")
    model = load_causal_model(folder, torch.bfloat16, None)
    engine = TorchEngine((CPU,), TorchDtype.BF16, "the test")
    [program] = causal_programs(engine, model, ANSWERS, max_tokens=MAX_TOKENS)
    answers = program.run([sequence(50, each) for each in (7, 20, 31)], Staging(DEVICE))
    assert answers.dtype == torch.float32
    assert (answers != answers.to(torch.bfloat16).float()).any()
