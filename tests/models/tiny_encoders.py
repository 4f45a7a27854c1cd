"""Tiny random encoders: with one vector for a text, and ColBERTs of every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.models.tiny_models import save_tiny_backbone

DIMENSION = 24


def save_bi_encoder(
    folder: Path,
    architecture: str = "bert",
    *,
    pooling: str = "mean",
    dense: bool = False,
    normalized: bool = True,
    prompts: dict[str, str] | None = None,
    lower_case: bool = False,
    padding_side: str | None = None,
    truncate_dim: int | None = None,
    **pooling_options: Any,
) -> Path:
    """Save a SentenceTransformer: a transformer, pooling, and what else is asked for."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    backbone = save_tiny_backbone(folder.with_name(f"{folder.name}-backbone"), architecture)
    if padding_side is not None:
        edit_json(backbone / "tokenizer_config.json", padding_side=padding_side)
    transformer = Transformer(str(backbone), do_lower_case=lower_case)
    modules = [transformer, Pooling(64, pooling, **pooling_options)]
    torch.manual_seed(11)
    if dense:
        modules.append(Dense(64, DIMENSION))
    if normalized:
        modules.append(Normalize())
    SentenceTransformer(
        modules=modules, device="cpu", prompts=prompts, truncate_dim=truncate_dim
    ).save_pretrained(str(folder))
    return folder


def edit_json(path: Path, **values: Any) -> None:
    """Set some keys of a JSON object in a file, or remove those that are None."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content |= values
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


PUNCTUATION = [",", ".", "?"]


def save_multi_vector(
    folder: Path,
    architecture: str = "bert",
    *,
    expansion: dict[str, Any] | None = None,
    lengths: tuple[int | None, int | None] = (None, None),
    prompts: dict[str, str] | None = None,
    skiplist: list[str] | None = None,
    skiplist_tasks: list[str] | None = None,
    normalized: bool = True,
    two_projections: bool = False,
    padding_side: str | None = None,
) -> Path:
    """Save a model with a vector for each token as sentence-transformers 6 saves it."""
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    backbone = save_tiny_backbone(folder.with_name(f"{folder.name}-backbone"), architecture)
    if architecture == "bert":
        rename_tokens(backbone, PUNCTUATION)
    if padding_side is not None:
        edit_json(backbone / "tokenizer_config.json", padding_side=padding_side)
    query_length, document_length = lengths
    torch.manual_seed(11)
    modules = [
        Transformer(
            str(backbone),
            query_length=query_length,
            document_length=document_length,
            query_expansion=expansion,
        ),
        Dense(
            *(64, DIMENSION),
            bias=False,
            activation_function=torch.nn.Identity(),
            module_input_name="token_embeddings",
        ),
        MultiVectorMask(skiplist, skiplist_tasks=skiplist_tasks),
    ]
    if two_projections:
        wide = Dense(*(64, 64), module_input_name="token_embeddings", use_residual=True)
        modules.insert(1, wide)
    if normalized:
        modules.append(Normalize(module_input_name="token_embeddings"))
    MultiVectorEncoder(modules=modules, device="cpu", prompts=prompts).save_pretrained(str(folder))
    return folder


def save_pylate(folder: Path, architecture: str = "bert", **config: Any) -> Path:
    """Save a ColBERT as PyLate saves it: markers are tokens with a space, settings lie on top."""
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    save_tiny_backbone(folder, architecture)
    if architecture == "bert":
        rename_tokens(folder, PUNCTUATION)
    model, tokenizer = (each.from_pretrained(folder) for each in (AutoModel, AutoTokenizer))
    tokenizer.add_tokens(["[Q] ", "[D] "])
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    classes = {
        "": "sentence_transformers.models.Transformer",
        "1_Dense": "pylate.models.Dense.Dense",
    }
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": name}
        for place, (path, name) in enumerate(classes.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    edit_json(folder / "sentence_bert_config.json", max_seq_length=40, do_lower_case=False)
    edit_json(
        folder / "config_sentence_transformers.json",
        **{
            "__version__": {"sentence_transformers": "3.4.1"},
            "prompts": {},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
            "query_prefix": "[Q] ",
            "document_prefix": "[D] ",
            "query_length": 16,
            "document_length": 30,
            "attend_to_expansion_tokens": False,
            "skiplist_words": PUNCTUATION,
            **config,
        },
    )
    (folder / "1_Dense").mkdir()
    edit_json(
        folder / "1_Dense" / "config.json",
        in_features=64,
        out_features=DIMENSION,
        bias=False,
        activation_function="torch.nn.modules.linear.Identity",
    )
    save_file({"linear.weight": _projection()}, folder / "1_Dense" / "model.safetensors")
    return folder


def save_stanford(folder: Path, **metadata: Any) -> Path:
    """Save a ColBERT as Stanford's library saves it: one file of weights, artifact.metadata."""
    from safetensors.torch import load_file, save_file

    save_tiny_backbone(folder, "bert")
    rename_tokens(folder, [*PUNCTUATION, "[unused0]", "[unused1]"])
    edit_json(folder / "config.json", architectures=["HF_ColBERT"])
    weights = load_file(folder / "model.safetensors")
    named = {f"bert.{name}": tensor for name, tensor in weights.items()}
    named["linear.weight"] = _projection()
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(
        folder / "artifact.metadata",
        **{
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "query_maxlen": 12,
            "doc_maxlen": 30,
            "mask_punctuation": True,
            "attend_to_mask_tokens": False,
            "dim": DIMENSION,
            "similarity": "cosine",
            **metadata,
        },
    )
    return folder


def rename_tokens(folder: Path, names: list[str]) -> None:
    """Let the last words of a WordPiece vocabulary be called otherwise."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    last = sorted(vocabulary, key=vocabulary.__getitem__)[-len(names) :]
    for old, new in zip(last, names, strict=True):
        vocabulary[new] = vocabulary.pop(old)
    path.write_text(json.dumps(content), encoding="utf-8")


def _projection() -> Any:
    import torch

    return torch.randn(DIMENSION, 64, generator=torch.Generator().manual_seed(5))
