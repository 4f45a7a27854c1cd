"""Tiny random causal models with tokenizers like their big brothers', asked as those are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.models.tiny_models import WORDS

MAX_TOKENS = 320
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]
ANSWERS = ["yes", "no", "Yes", "No", "1", "0"]

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits a text."""

CHAT_TEMPLATE = (
    "{%- set system = messages | selectattr('role', 'eq', 'system') | map(attribute='content')"
    " | first | default('Find what answers.') -%}"
    "<|im_start|>system\nJudge whether the Document answers.<|im_end|>\n<|im_start|>user\n"
    "<Instruct>: {{ system }}\n"
    "<Query>: {{ messages | selectattr('role', 'eq', 'query') | map(attribute='content')"
    " | first }}\n"
    "<Document>: {{ messages | selectattr('role', 'eq', 'document') | map(attribute='content')"
    " | first }}<|im_end|>\n<|im_start|>assistant\n"
)

_SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "gemma": {"num_key_value_heads": 1, "head_dim": 16},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 24},
}


def save_tiny_llm(folder: Path, architecture: str, *, labels: int = 0) -> Path:
    """Save a tiny causal model with random weights, always the same ones, and its tokenizer.

    With `labels` it has a classifier in place of its vocabulary.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    tokenizer = _tokenizer()
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **({"num_labels": labels} if labels else {}),
        **_SHAPES[architecture],
    )
    torch.manual_seed(11)
    model_class = AutoModelForSequenceClassification if labels else AutoModelForCausalLM
    model = model_class.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # As large as trained ones: with the usual small ones all pairs score alike.
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_with_logit_score(
    plain: Path,
    folder: Path,
    *,
    template: str = CHAT_TEMPLATE,
    answers: tuple[str, ...] = ("yes", "no"),
    activation: Any = None,
    instruction: str | None = None,
) -> Path:
    """Save a causal model as sentence-transformers does, with a LogitScore behind it."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder.modules import LogitScore

    transformer = Transformer(
        str(plain),
        transformer_task="text-generation",
        processor_kwargs={"chat_template": template},
    )
    ids = transformer.tokenizer.convert_tokens_to_ids
    score = LogitScore(*map(ids, answers))
    prompts = {"own": instruction} if instruction else None
    CrossEncoder(
        modules=[transformer, score],
        device="cpu",
        activation_fn=activation,
        prompts=prompts,
        default_prompt_name="own" if instruction else None,
    ).save_pretrained(str(folder))
    return folder


def _tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [" ".join([*WORDS, "Document", "Query", "Instruct"]), *ANSWERS * 50, "?\n.\n:\n>:" * 50]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",  # noqa: S106
        bos_token="<bos>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        extra_special_tokens=["<|im_start|>", "<|im_end|>"],
        model_max_length=MAX_TOKENS,
    )
