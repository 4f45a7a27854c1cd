"""Tiny random cross-encoders with tokenizers of their own, made as their big brothers are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TEXT = (
    "apple river stone winter guitar planet bread castle engine forest garden harbour island "
    "journey kettle lantern mountain needle orange pepper quarter rabbit silver thunder umbrella "
    "valley window yellow zebra what where who how many people live in the city of is a"
)
WORDS = _TEXT.split()

MAX_TOKENS = 48


def save_tiny_model(
    folder: Path, architecture: str, *, activation: str | None = None, labels: int = 1
) -> Path:
    """Save a tiny cross-encoder with random weights, always the same ones, and its tokenizer."""
    _save(folder, architecture, labels)
    if activation is not None:
        edit_json(folder / "config.json", sentence_transformers={"activation_fn": activation})
    return folder


def save_tiny_backbone(folder: Path, architecture: str) -> Path:
    """Save a tiny transformer without a head, and its tokenizer."""
    _save(folder, architecture, labels=0)
    return folder


def edit_json(path: Path, **values: Any) -> None:
    """Set some keys of a JSON object in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | values), encoding="utf-8")


def _save(folder: Path, architecture: str, labels: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    tokenizer = _TOKENIZERS[architecture]()
    config = AutoConfig.for_model(
        architecture,
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id,
        **_SHAPES[architecture],
    )
    torch.manual_seed(7)
    model_class = AutoModelForSequenceClassification if labels else AutoModel
    model = model_class.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            # Weights as large as trained ones: with the usual small ones all pairs score alike.
            torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token=special[1]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        WORDS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return _wrap(tokenizer, special, ["input_ids", "token_type_ids", "attention_mask"])


def _unigram() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        WORDS,
        trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token=special[3]),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    order = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
    return _wrap(tokenizer, order, ["input_ids", "attention_mask"])


def _byte_level() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        WORDS,
        trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return _wrap(tokenizer, special, ["input_ids", "attention_mask"])


def _wrap(tokenizer: Any, special: list[str], model_input_names: list[str]) -> Any:
    from transformers import PreTrainedTokenizerFast

    pad, unknown, start, separator, mask = special
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        unk_token=unknown,
        cls_token=start,
        sep_token=separator,
        mask_token=mask,
        model_max_length=MAX_TOKENS,
        model_input_names=model_input_names,
    )


_TOKENIZERS: dict[str, Callable[[], Any]] = {
    "bert": _wordpiece,
    "electra": _wordpiece,
    "xlm-roberta": _unigram,
    "modernbert": _byte_level,
    "roberta": _unigram,
    "deberta-v2": _wordpiece,
    "qwen3": _byte_level,
}

_SHAPES: dict[str, dict[str, Any]] = {
    "bert": {"max_position_embeddings": 64},
    "electra": {"max_position_embeddings": 64, "embedding_size": 32},
    "xlm-roberta": {"max_position_embeddings": 66, "type_vocab_size": 1},
    "roberta": {"max_position_embeddings": 66, "type_vocab_size": 1},
    "deberta-v2": {
        "max_position_embeddings": 64,
        "relative_attention": True,
        "position_buckets": 16,
        "pos_att_type": ["p2c", "c2p"],
    },
    "qwen3": {"max_position_embeddings": 64, "num_key_value_heads": 2, "head_dim": 16},
    "modernbert": {
        "max_position_embeddings": 64,
        "local_attention": 16,
        "global_attn_every_n_layers": 2,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
}


def save_onnx(folder: Path, *, with_mask: bool = True) -> None:
    """Export a saved cross-encoder to onnx/model.onnx, as hub models have it.

    Without its mask it is an export gone wrong: padding counts as text.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModelForSequenceClassification.from_pretrained(
                folder, attn_implementation="eager"
            )

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            mask = attention_mask if with_mask else torch.ones_like(attention_mask)
            logits: torch.Tensor = self.model(input_ids, attention_mask=mask).logits
            return logits

    (folder / "onnx").mkdir()
    names = ["input_ids", "attention_mask"]
    example = torch.ones(2, 9, dtype=torch.long)
    axes = {name: {0: "batch", 1: "tokens"} for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is old and says so
        torch.onnx.export(
            Logits().eval(),
            (example, example),
            str(folder / "onnx" / "model.onnx"),
            input_names=names,
            output_names=["logits"],
            dynamic_axes=axes | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
