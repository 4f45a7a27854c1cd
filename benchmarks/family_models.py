"""Models of local families, as large as people use, as sentence-transformers saves them.

Weights are random where none can be had without a network; speed does not depend on them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, Qwen3Config
from transformers.models.qwen3 import Qwen3ForCausalLM

from benchmarks.minilm import MAX_TOKENS, save_tokenizer
from rerank_sidecar.models.builtin import EMBEDDED_FOLDER

_SEED = 20240517

_JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
_TEMPLATE = (
    f"<|im_start|>system\n{_JUDGE}<|im_end|>\n<|im_start|>user\n"
    "<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content')"
    " | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content')"
    " | first }}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


def save_colbert(folder: Path) -> Path:
    """Save a ColBERT of answerai-colbert-small's size: 12 layers, hidden 384, vectors of 96."""
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    backbone = folder.with_name(f"{folder.name}-backbone")
    backbone.mkdir(parents=True)
    torch.manual_seed(_SEED)
    config = BertConfig(
        vocab_size=save_tokenizer(backbone),
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(backbone)
    expansion = {"strategy": "fixed", "length": 32}
    modules: list[Any] = [
        Transformer(str(backbone), query_length=32, document_length=300, query_expansion=expansion),
        Dense(384, 96, bias=False, module_input_name="token_embeddings"),
        MultiVectorMask(),
        Normalize(module_input_name="token_embeddings"),
    ]
    MultiVectorEncoder(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def save_llm(folder: Path) -> Path:
    """Save a causal model of Qwen3-Reranker-0.6B's size in bfloat16, asked as that one is.

    Its tokenizer is the embedded model's: for English it gives about as many tokens.
    """
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    plain = folder.with_name(f"{folder.name}-plain")
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    torch.manual_seed(_SEED)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(plain)
    _llm_tokenizer().save_pretrained(plain)
    transformer = Transformer(
        str(plain),
        transformer_task="text-generation",
        processor_kwargs={"chat_template": _TEMPLATE},
        model_kwargs={"dtype": torch.bfloat16},
    )
    score = LogitScore(*map(transformer.tokenizer.convert_tokens_to_ids, ("yes", "no")))
    CrossEncoder(modules=[transformer, score], device="cpu").save_pretrained(str(folder))
    return folder


def _llm_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(EMBEDDED_FOLDER / "tokenizer.json")),
        pad_token="[PAD]",  # noqa: S106
        unk_token="[UNK]",  # noqa: S106
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=8192,
    )
