"""Loads encoders as sentence-transformers does, and finds out how they read texts; needs torch."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind, Expansion, Sample
from rerank_sidecar.models.export_check import TokenBatch

Torch: TypeAlias = Any
Encoder: TypeAlias = Any
"""A `SentenceTransformer` or a `MultiVectorEncoder`."""

TorchModule: TypeAlias = Any
Features: TypeAlias = dict[str, Any]

_LOG = logging.getLogger(__name__)

QUERY, DOCUMENT = "query", "document"

SAMPLE_TEXTS = (
    "what is the capital of France?",
    "Paris is the capital and largest city of France, on the Seine; 2 million live there.",
    "bread",
)

_OUTPUTS = {
    EncoderKind.BI_ENCODER: "sentence_embedding",
    EncoderKind.MULTI_VECTOR: "token_embeddings",
}
_DOCUMENT_PROMPTS = (DOCUMENT, "passage", "corpus")

_MAX_TOKENS_UNSAID = 512
_NO_LIMIT = 10**9
"""A tokenizer without a limit of its own says 1e30."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedEncoder:
    """An encoder in torch, in float32 on the CPU, and the modules of it that make vectors."""

    torch: Torch
    model: Encoder
    modules: tuple[TorchModule, ...]
    facts: EncoderFacts

    def features(self, texts: Sequence[str], task: str) -> Features:
        """Give what the model reads for texts, padded, as the library makes it."""
        facts = self.facts
        prompt = facts.query_prompt if task == QUERY else facts.document_prompt
        features: Features = self.model.preprocess(list(texts), prompt=prompt or None, task=task)
        return features

    def inputs(self, texts: Sequence[str], task: str) -> TokenBatch:
        """Give those of the features that the transformer takes."""
        features = self.features(texts, task)
        return {name: features[name].numpy() for name in self._input_names(features)}

    def vectors(self, features: Features) -> Any:  # noqa: ANN401
        """Give a tensor: [batch, dimension] or, of each token, [batch, tokens, dimension]."""
        return vectors_of(self.modules, features, self.output, self.facts.dimension)

    @property
    def output(self) -> str:
        """Name the feature that is its vectors."""
        return _OUTPUTS[self.facts.kind]

    @property
    def tokenizer_json(self) -> str:
        """Give the tokenizer as the library uses it: markers and lower case included."""
        text: str = self.model.tokenizer.backend_tokenizer.to_str()
        return text

    def as_module(self, names: Sequence[str]) -> TorchModule:
        """Give a torch module with positional inputs, whose only output is the vectors."""
        return _as_module(self.torch, self, names)

    @property
    def takes_types(self) -> bool:
        """Tell whether the library gives it token types."""
        return "token_type_ids" in self._input_names(self.features(["a"], DOCUMENT))

    def _input_names(self, features: Mapping[str, Any]) -> list[str]:
        taken = inspect.signature(self.model[0].auto_model.forward).parameters
        order = ("input_ids", "attention_mask", "token_type_ids")
        return [name for name in order if name in features and name in taken]


def load_encoder(
    folder: Path, kind: EncoderKind, *, trust_remote_code: bool, extra: str = "convert"
) -> LoadedEncoder:
    """Load an encoder as sentence-transformers loads it.

    Raises:
        MissingExtra: torch or sentence-transformers 6 is not installed.
        ModelNotServable: the library cannot load it, or it reads texts in a way that is not
            supported here; the message says which.
    """
    try:
        import torch
        from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    except ImportError as error:
        raise MissingExtra(extra, f"loading {folder}") from error
    load = SentenceTransformer if kind is EncoderKind.BI_ENCODER else MultiVectorEncoder
    _LOG.info("loading %s with sentence-transformers", folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what is checked below
        try:
            model = load(
                str(folder),
                device="cpu",
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                model_kwargs={"dtype": torch.float32},
            ).eval()
        except Exception as error:
            raise ModelNotServable(_not_loadable(folder, error, trust_remote_code)) from error
    modules, skipped = _modules(folder, model)
    _keep_to_positions(model[0])
    loaded = LoadedEncoder(torch, model, modules, _facts(folder, kind, model, skipped))
    return replace(loaded, facts=replace(loaded.facts, samples=_samples(loaded)))


def vectors_of(
    modules: Iterable[TorchModule], features: Features, output: str, dimension: int
) -> Any:  # noqa: ANN401
    """Run modules one behind the other and take their vectors.

    Models whose first numbers say most ("Matryoshka") may be saved with a `truncate_dim`: the
    library then keeps so many of each vector.
    """
    for module in modules:
        features = module(features)
    return features[output][..., :dimension]


def mask_of(features: Features) -> npt.NDArray[np.bool_]:
    """Tell which places of each row hold a token that is attended to."""
    mask: npt.NDArray[np.bool_] = features["attention_mask"].numpy().astype(bool)
    return mask


def places_read(features: Features) -> npt.NDArray[np.bool_]:
    """Tell which places of each row hold a token, whether or not it is attended to."""
    expansion = features.get("query_expansion_positions")
    mask = mask_of(features)
    return mask if expansion is None else mask | expansion.numpy().astype(bool)


def _samples(loaded: LoadedEncoder) -> tuple[Sample, ...]:
    def read(task: str) -> list[tuple[int, ...]]:
        features = loaded.features(SAMPLE_TEXTS, task)
        rows = zip(features["input_ids"].numpy(), places_read(features), strict=True)
        return [tuple(ids[places].tolist()) for ids, places in rows]

    return tuple(map(Sample, SAMPLE_TEXTS, read(QUERY), read(DOCUMENT)))


def _as_module(torch: Torch, loaded: LoadedEncoder, names: Sequence[str]) -> TorchModule:
    output, dimension = loaded.output, loaded.facts.dimension

    class Vectors(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(loaded.modules)

        def forward(self, *tensors: object) -> object:
            features = dict(zip(names, tensors, strict=True))
            return vectors_of(self.parts, features, output, dimension)

    return Vectors().eval()


def _not_loadable(folder: Path, error: Exception, trust_remote_code: bool) -> str:
    if "trust_remote_code" in str(error) and not trust_remote_code:
        return (
            f"{folder} is run by Python code of its own; if you have read that code and trust it, "
            "set `trust_remote_code`"
        )
    return f"sentence-transformers cannot load {folder}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """Give the first line of what an error says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _modules(folder: Path, model: Encoder) -> tuple[tuple[TorchModule, ...], tuple[int, ...]]:
    """Give the modules that make vectors, and the ids of tokens that a document leaves out."""
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling, MultiVectorMask

    def refuse(what: str) -> ModelNotServable:
        return ModelNotServable(f"{folder} {what}, which is not supported")

    if not isinstance(model[0], Transformer):
        raise refuse(f"begins with a {type(model[0]).__name__} in place of a transformer")
    if "message" in model[0].modality_config:
        raise refuse("reads texts through a chat template")
    if model[0].processing_kwargs:
        raise refuse("sets `processing_kwargs`")
    if model[0].tokenizer is None or not model[0].tokenizer.is_fast:
        raise refuse("has a tokenizer that is Python code alone")
    kept: list[TorchModule] = []
    skipped: list[int] = []
    for module in model:
        if isinstance(module, Router | BaseTokenPooling):
            raise refuse(f"has a {type(module).__name__}")
        if not getattr(module, "include_prompt", True):
            raise refuse("leaves its prompt out of pooling")
        if not isinstance(module, MultiVectorMask):
            kept.append(module)
            continue
        if module.keep_only_token_ids or (
            module.skiplist_words and module.skiplist_tasks != [DOCUMENT]
        ):
            raise refuse("leaves out tokens of queries, or all but some of documents")
        skipped += [] if module._skiplist_ids is None else module._skiplist_ids.tolist()
    return tuple(kept), tuple(skipped)


def _keep_to_positions(transformer: TorchModule) -> None:
    """Read no more than the model has positions for; the library would fail on longer texts."""
    from rerank_sidecar.models.packed import usable_positions

    most = usable_positions(transformer.auto_model)
    if most is None:
        return
    transformer.max_seq_length = min(transformer.max_seq_length, most)
    for name in ("query_length", "document_length"):
        stated = getattr(transformer, name)
        if stated is not None:
            setattr(transformer, name, min(stated, most))


def _facts(
    folder: Path, kind: EncoderKind, model: Encoder, skipped: tuple[int, ...]
) -> EncoderFacts:
    transformer, tokenizer = model[0], model.tokenizer
    longest = tokenizer.model_max_length
    longest = longest if longest < _NO_LIMIT else _MAX_TOKENS_UNSAID
    expansion = _expansion(transformer, tokenizer)
    if expansion is not None and tokenizer.padding_side != "right":
        raise ModelNotServable(f"{folder} expands queries on the left, which is not supported")
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise ModelNotServable(f"{folder} does not tell how long its vectors are")
    return EncoderFacts(
        kind=kind,
        dimension=int(dimension),
        max_tokens=int(transformer.document_length or longest),
        max_query_tokens=_max_query_tokens(transformer, longest),
        pad_token_id=int(tokenizer.pad_token_id or 0),
        query_prompt=_prompt(model, (QUERY,)),
        document_prompt=_prompt(model, _DOCUMENT_PROMPTS),
        expansion=expansion,
        skipped_token_ids=skipped,
        similarity=str(model.similarity_fn_name or ""),
    )


def _prompt(model: Encoder, names: Sequence[str]) -> str:
    """Give the prompt that the library's `encode_query` and `encode_document` take."""
    for name in (*names, model.default_prompt_name):
        if name in model.prompts:
            return str(model.prompts[name] or "")
    return ""


def _max_query_tokens(transformer: TorchModule, longest: int) -> int:
    expansion, own = transformer.query_expansion, transformer.query_length
    if expansion is None:
        return int(own or longest)
    floor = int(expansion["length"])
    return floor if expansion["strategy"] == "fixed" else max(floor, int(own or longest))


def _expansion(transformer: TorchModule, tokenizer: Any) -> Expansion | None:  # noqa: ANN401
    given = transformer.query_expansion
    if given is None:
        return None
    if given["token"] is not None:
        token_id = tokenizer.convert_tokens_to_ids(given["token"])
    else:
        token_id = tokenizer.mask_token_id
        token_id = tokenizer.eos_token_id if token_id is None else token_id
    return Expansion(int(token_id), int(given["length"]), bool(given["attend"]))
