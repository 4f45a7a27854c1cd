"""A cross-encoder of MiniLM-L6 geometry with random weights, as a Hugging Face folder and as ONNX.

Speed does not depend on what the weights are, and every contender gets the same ones.
"""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from rerank_sidecar.models.builtin import EMBEDDED_FOLDER

LAYERS, HIDDEN, HEADS, INTERMEDIATE = 6, 384, 12, 1536
MAX_TOKENS = 512

_SEED = 20240517
_STD = 0.06
"""As large as trained weights: with BERT's 0.02 all pairs score alike and no order is left."""

_SPECIAL = {f"{name.lower()}_token": f"[{name}]" for name in ("UNK", "SEP", "PAD", "CLS", "MASK")}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Graphs:
    """ONNX files of one model: as exported, fused, and both with dynamic int8 weights."""

    plain: Path
    fused: Path
    plain_int8: Path
    fused_int8: Path


def save_cross_encoder(folder: Path) -> Path:
    """Save the model, always with the same weights, and the embedded model's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(folder)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INTERMEDIATE,
        max_position_embeddings=MAX_TOKENS,
        num_labels=1,
        pad_token_id=0,
    )
    torch.manual_seed(_SEED)
    model = BertForSequenceClassification(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=_STD)
    model.save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path) -> int:
    """Save the embedded model's tokenizer as Hugging Face does, and count its vocabulary."""
    shutil.copyfile(EMBEDDED_FOLDER / "tokenizer.json", folder / "tokenizer.json")
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = content["model"]["vocab"]
    lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
    (folder / "vocab.txt").write_text(lines, encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True} | _SPECIAL
    settings |= {"model_max_length": MAX_TOKENS}
    for name, values in (("tokenizer_config", settings), ("special_tokens_map", _SPECIAL)):
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    return len(vocabulary)


def count_operations(length: int) -> int:
    """Count the operations in a pair's matrix products, by its tokens; a multiply-add is two.

    They are those that our engine does: in the last layer it computes for the first token alone.
    Softmax, normalisation, GELU and embeddings count as none.
    """
    attention = 4 * HIDDEN * ((LAYERS - 1) * length**2 + length)
    head = 2 * HIDDEN**2 + 2 * HIDDEN
    return count_weight_operations(length) + attention + head


def count_weight_operations(length: int) -> int:
    """Count those of the layers' products with weights, so without attention's two and the head."""
    a_token = 2 * (4 * HIDDEN**2 + 2 * HIDDEN * INTERMEDIATE)
    keys_and_values = 2 * 2 * HIDDEN**2
    last = length * keys_and_values + a_token - keys_and_values
    return (LAYERS - 1) * length * a_token + last


def export_graphs(source: Path, folder: Path) -> Graphs:
    """Write the ONNX files that FlashRank and ONNX Runtime run.

    Fused by ONNX Runtime's own tool for transformers. The plain int8 graph is quantised as
    FlashRank's and the hub's models are, with that library's defaults; the fused one with a scale
    for each output channel.
    """
    folder.mkdir(parents=True, exist_ok=True)
    graphs = Graphs(
        *(folder / f"{name}.onnx" for name in ("plain", "fused", "plain_int8", "fused_int8"))
    )
    _export(source, graphs.plain)
    _fuse(graphs.plain, graphs.fused)
    _quantize(graphs.plain, graphs.plain_int8, per_channel=False)
    _quantize(graphs.fused, graphs.fused_int8, per_channel=True)
    return graphs


def _export(source: Path, target: Path) -> None:
    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = BertForSequenceClassification.from_pretrained(
                source, attn_implementation="eager"
            )

        def forward(
            self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
        ) -> torch.Tensor:
            output = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
            logits: torch.Tensor = output.logits
            return logits

    example = torch.ones(2, 8, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is old and says so
        torch.onnx.export(
            Logits().eval(),
            (example, example, example),
            str(target),
            input_names=list(_INPUTS),
            output_names=["logits"],
            dynamic_axes={name: {0: "batch", 1: "tokens"} for name in _INPUTS}
            | {"logits": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )


def _fuse(source: Path, target: Path) -> None:
    from onnxruntime.transformers import optimizer

    model = optimizer.optimize_model(
        str(source), model_type="bert", num_heads=HEADS, hidden_size=HIDDEN
    )
    model.save_model_to_file(str(target))


def _quantize(source: Path, target: Path, *, per_channel: bool) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        per_channel=per_channel,
        weight_type=QuantType.QInt8,
        extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
    )
