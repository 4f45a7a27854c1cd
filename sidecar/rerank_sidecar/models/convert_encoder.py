"""Loads encoders as sentence-transformers does and exports them to OpenVINO; needs `convert`.

Its own modules are traced one behind the other, so that whatever they are the vectors are its own.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind, Expansion
from rerank_sidecar.models.export_check import INPUTS, TOLERANCE, TokenBatch, compiled
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino

Torch: TypeAlias = Any
Library: TypeAlias = Any
"""The module `sentence_transformers`."""

Encoder: TypeAlias = Any
"""A `SentenceTransformer` or a `MultiVectorEncoder`."""

TorchModule: TypeAlias = Any
Features: TypeAlias = dict[str, Any]

_LOG = logging.getLogger(__name__)

_OUTPUTS = {
    EncoderKind.BI_ENCODER: "sentence_embedding",
    EncoderKind.MULTI_VECTOR: "token_embeddings",
}
_QUERY, _DOCUMENT = "query", "document"
_DOCUMENT_PROMPTS = ("document", "passage", "corpus")

_MAX_TOKENS_UNSAID = 512
_NO_LIMIT = 10**9
"""A tokenizer without a limit of its own says 1e30."""

_PADDING = 7

_SAMPLES = (
    "what is the capital of France?",
    "Paris is the capital and largest city of France, on the Seine; 2 million live there.",
    "bread",
)


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """An encoder in torch, and the modules of it that make vectors of tokens."""

    torch: Torch
    model: Encoder
    modules: tuple[TorchModule, ...]
    facts: EncoderFacts

    def batches(self, pairs: Iterable[tuple[str, str]]) -> Iterator[TokenBatch]:
        """Give a batch for each query and each document, alone, as the model reads it."""
        for query, document in pairs:
            yield self._inputs([query], _QUERY)
            yield self._inputs([document], _DOCUMENT)

    def convert(self) -> OpenVinoModel:
        """Export it to an OpenVINO model whose only output is its vectors.

        They are [batch, dimension] or, of each token, [batch, tokens, dimension].

        Raises:
            ModelNotServable: the export does not give the vectors that the library gives, or a
                text's depend on what else is in its batch.
        """
        expected = [(task, self._expected(task)) for task in (_QUERY, _DOCUMENT)]
        converted = self._trace()
        run = compiled(converted)
        for task, rows in expected:
            for (ids, attended), vectors in zip(self._sequences(task), rows, strict=True):
                given = run(self._beside_another(ids, attended))[0]
                given = given if given.ndim == 1 else given[: len(ids)]
                if given.shape != vectors.shape or not np.isfinite(given).all():
                    raise ModelNotServable("the exported model does not give finite vectors")
                if not np.allclose(given, vectors, rtol=TOLERANCE, atol=TOLERANCE):
                    raise ModelNotServable(
                        "the exported model does not give the vectors that "
                        "sentence-transformers gives"
                    )
        return converted

    def save_tokenizer(self, path: Path) -> None:
        """Write the tokenizer as the library uses it: markers and lower case included."""
        path.write_text(self.model.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")

    def _features(self, texts: Sequence[str], task: str) -> Features:
        facts = self.facts
        prompt = facts.query_prompt if task == _QUERY else facts.document_prompt
        features: Features = self.model.preprocess(list(texts), prompt=prompt or None, task=task)
        return features

    def _inputs(self, texts: Sequence[str], task: str) -> TokenBatch:
        features = self._features(texts, task)
        return {name: features[name].numpy() for name in self._input_names(features)}

    def _input_names(self, features: Mapping[str, Any]) -> list[str]:
        taken = inspect.signature(self.model[0].auto_model.forward).parameters
        order = ("input_ids", "attention_mask", "token_type_ids")
        return [name for name in order if name in features and name in taken and name in INPUTS]

    def _sequences(self, task: str) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
        """Give the tokens of each sample, and how many of them are attended to."""
        features = self._features(_SAMPLES, task)
        for ids, mask, read in zip(*self._read(features), strict=True):
            yield ids[read], int(mask.sum())

    def _read(self, features: Features) -> tuple[npt.NDArray[Any], ...]:
        mask = features["attention_mask"].numpy().astype(bool)
        expansion = features.get("query_expansion_positions")
        read = mask if expansion is None else mask | expansion.numpy().astype(bool)
        return features["input_ids"].numpy(), mask, read

    def _expected(self, task: str) -> list[npt.NDArray[np.float32]]:
        features = self._features(_SAMPLES, task)
        _, _, read = self._read(features)
        with self.torch.no_grad():
            vectors = _run(self.modules, dict(features))[_OUTPUTS[self.facts.kind]].numpy()
        if self.facts.kind is EncoderKind.BI_ENCODER:
            return list(vectors)
        return [row[places] for row, places in zip(vectors, read, strict=True)]

    def _beside_another(self, ids: npt.NDArray[np.int64], attended: int) -> TokenBatch:
        """Make a batch of a sequence, padded as long as may be, and one that has no end."""
        facts = self.facts
        width = min(len(ids) + _PADDING, max(facts.max_tokens, facts.max_query_tokens))
        token_ids = np.full((2, width), facts.pad_token_id, dtype=np.int64)
        token_ids[0, : len(ids)], token_ids[1] = ids, np.resize(ids[::-1], width)
        attention_mask = np.ones_like(token_ids)
        attention_mask[0, attended:] = 0
        return {
            "input_ids": token_ids,
            "attention_mask": attention_mask,
            "token_type_ids": np.zeros_like(token_ids),
        }

    def _trace(self) -> OpenVinoModel:
        # With torch's fused attention a row that is mostly padding may come out as NaN.
        with suppress(AttributeError, ValueError):
            self.model[0].auto_model.set_attn_implementation("eager")
        example = self._inputs(_SAMPLES, _DOCUMENT)
        module = _as_module(self.torch, self.modules, list(example), _OUTPUTS[self.facts.kind])
        tensors = tuple(map(self.torch.from_numpy, example.values()))
        with warnings.catch_warnings(), self.torch.no_grad():
            # Tracing warns of every place that could go wrong; whether one did is checked.
            warnings.simplefilter("ignore")
            try:
                converted = load_openvino().convert_model(module, example_input=tensors)
            except Exception as error:
                raise ModelNotServable(
                    f"OpenVINO cannot convert the model: {_first_line(error)}"
                ) from error
        for port, name in zip(converted.inputs, example, strict=True):
            port.get_tensor().set_names({name})
        converted.outputs[0].get_tensor().set_names({"vectors"})
        return converted


def load_encoder(folder: Path, kind: EncoderKind, *, trust_remote_code: bool) -> LoadedEncoder:
    """Load an encoder as sentence-transformers loads it.

    Raises:
        MissingExtra: torch or sentence-transformers is not installed.
        ModelNotServable: the library cannot load it, or it reads texts in a way that is not
            supported here; the message says which.
    """
    torch, library = _import(folder)
    load = {
        EncoderKind.BI_ENCODER: library.SentenceTransformer,
        EncoderKind.MULTI_VECTOR: library.MultiVectorEncoder,
    }[kind]
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
    modules, skipped = _modules(folder, library, model)
    return LoadedEncoder(torch, model, modules, _facts(folder, kind, model, skipped))


def _import(folder: Path) -> tuple[Torch, Library]:
    try:
        import sentence_transformers
        import torch
    except ImportError as error:
        raise MissingExtra("convert", f"converting {folder}") from error
    if not hasattr(sentence_transformers, "MultiVectorEncoder"):
        raise MissingExtra("convert", f"converting {folder} with sentence-transformers 6 or newer")
    return torch, sentence_transformers


def _not_loadable(folder: Path, error: Exception, trust_remote_code: bool) -> str:
    if "trust_remote_code" in str(error) and not trust_remote_code:
        return (
            f"{folder} is run by Python code of its own; if you have read that code and trust it, "
            "set `trust_remote_code`"
        )
    return f"sentence-transformers cannot load {folder}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _modules(
    folder: Path, library: Library, model: Encoder
) -> tuple[tuple[TorchModule, ...], tuple[int, ...]]:
    """Give the modules that make vectors, and the ids of tokens that a document leaves out."""
    from sentence_transformers.base.modules import Router, Transformer
    from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling, MultiVectorMask

    def refuse(what: str) -> ModelNotServable:
        return ModelNotServable(f"{folder} {what}, which is not supported")

    if not isinstance(model[0], Transformer):
        raise refuse(f"begins with a {type(model[0]).__name__} in place of a transformer")
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
            module.skiplist_words and module.skiplist_tasks != [_DOCUMENT]
        ):
            raise refuse("leaves out tokens of queries, or all but some of documents")
        skipped += [] if module._skiplist_ids is None else module._skiplist_ids.tolist()
    return tuple(kept), tuple(skipped)


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
        query_prompt=_prompt(model, (_QUERY,)),
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


def _run(modules: Iterable[TorchModule], features: Features) -> Features:
    for module in modules:
        features = module(features)
    return features


def _as_module(
    torch: Torch, modules: Sequence[TorchModule], names: list[str], output: str
) -> TorchModule:
    class Vectors(torch.nn.Module):  # type: ignore[misc]
        """Modules with positional inputs, whose only output is vectors: what a trace wants."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleList(modules)

        def forward(self, *tensors: object) -> object:
            return _run(self.parts, dict(zip(names, tensors, strict=True)))[output]

    return Vectors().eval()
