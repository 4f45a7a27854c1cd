"""Makes an encoder's folder ready to be served, and keeps the result in the cache on disk."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelNotServable, ModelUnavailable
from rerank_sidecar.models.arithmetic import Arithmetic, wanted_arithmetic
from rerank_sidecar.models.calibration import read_calibration_pairs
from rerank_sidecar.models.convert_encoder import convert_encoder
from rerank_sidecar.models.cross_encoder_int8 import quantize_on
from rerank_sidecar.models.encoder import EncoderFacts, EncoderKind, encoder_kind
from rerank_sidecar.models.export_check import TokenBatch
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.json_files import read_json_object
from rerank_sidecar.models.load_encoder import DOCUMENT, QUERY, LoadedEncoder, load_encoder
from rerank_sidecar.models.model_card import read_card
from rerank_sidecar.models.prepare import kept_quantization, quantized, with_arithmetic
from rerank_sidecar.models.prepared import (
    TOKENIZER_FILE,
    build_in_one_step,
    describe,
    is_intact,
    prepared_models_folder,
)
from rerank_sidecar.models.runtime import load_openvino
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)

_CONVERTER_VERSION = 2
"""Counts up whenever the same files would be converted into a model with other vectors."""

_IR_FILE = "model.xml"
_FACTS_FILE = "model.json"

_PAIRS = 100

_WEIGHTS = ("*.safetensors", "*.bin", "*/*.safetensors", "*/*.bin")
_CONFIGURATION_FILES = (
    *("*.json", "*/*.json", "artifact.metadata", "vocab.txt", "merges.txt", "*.model", "*.py"),
)
_OTHER_FORMS = frozenset({"onnx", "openvino"})
"""Folders with the same model for other runtimes."""


def prepare_encoder(
    folder: Path, source: str, settings: Settings, kind: EncoderKind
) -> tuple[ServableModel, EncoderFacts]:
    """Convert and quantise the encoder in `folder`, unless the cache has the result already.

    `source` is what `--model` takes to find it. As for cross-encoders (models/prepare.py) the cache
    is keyed by the content of the files, and a finished folder appears there in one step.

    Raises:
        ModelUnavailable: the folder has no weights.
        ModelNotServable: it holds no encoder of this kind that can be run.
        MissingExtra: torch, sentence-transformers or NNCF is needed and not installed.
        InvalidSetting: the cache folder cannot be written, or the engine does not run encoders.
    """
    if settings.engine.is_onnxruntime:
        raise InvalidSetting(f"engine: `{settings.engine.value}` runs cross-encoders only")
    require_kind(folder, kind)
    digest = _digest(folder, settings, kind)
    prepared = prepared_models_folder(settings) / digest[:32]
    model = ServableModel(
        version=short(digest),
        source=source,
        quantization=kept_quantization(settings),
        model_path=prepared / _IR_FILE,
        tokenizer_path=prepared / TOKENIZER_FILE,
        max_tokens=0,
    )
    if is_intact(model.model_path):
        _LOG.info("using %s as converted before, in %s", source, prepared)
    else:
        build_in_one_step(
            model.model_path, lambda empty: _fill(empty, folder, model, kind, settings)
        )
    facts = EncoderFacts.from_json(read_json_object(prepared / _FACTS_FILE).values)
    most = max(facts.max_tokens, facts.max_query_tokens)
    model = replace(model, max_tokens=most, pad_token_id=facts.pad_token_id)
    return with_arithmetic(model, settings), facts


def require_kind(folder: Path, kind: EncoderKind) -> None:
    """Refuse a folder that holds no model with a vector for each token, where that is wanted.

    The library would make one of any transformer, with a projection of random numbers.

    Raises:
        ModelNotServable: it holds none.
    """
    if kind is EncoderKind.MULTI_VECTOR and encoder_kind(folder) is not kind:
        raise ModelNotServable(
            f"{folder} is no model with a vector for each token, such as a ColBERT: neither "
            "sentence-transformers nor PyLate nor Stanford's library saved it as one"
        )


def encoder_digest(folder: Path, recipe: str) -> str:
    """Hash an encoder's files, and how they are run.

    Raises:
        ModelUnavailable: the folder has no weights.
    """
    weights, configuration = _files(folder, _WEIGHTS), _files(folder, _CONFIGURATION_FILES)
    if not weights:
        raise ModelUnavailable(f"{folder} has no weights: no *.safetensors and no *.bin")
    return fingerprint(folder, weights | configuration, recipe)


def _digest(folder: Path, settings: Settings, kind: EncoderKind) -> str:
    recipe = f"encoder {_CONVERTER_VERSION} {kind.value}, quantize {kept_quantization(settings)}"
    if wanted_arithmetic(settings) is Arithmetic.INT8:
        # Kept in int8 even where that is slower, unlike the folder that `auto` makes.
        recipe += ", always"
    return encoder_digest(folder, recipe)


def _files(folder: Path, patterns: tuple[str, ...]) -> set[Path]:
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return {path for path in found if path.is_file() and path.parent.name not in _OTHER_FORMS}


def _fill(
    folder: Path, original: Path, model: ServableModel, kind: EncoderKind, settings: Settings
) -> None:
    """Write the converted model and what is to be known of it into a folder."""
    loaded = load_encoder(original, kind, trust_remote_code=settings.trust_remote_code)
    (folder / TOKENIZER_FILE).write_text(loaded.tokenizer_json, encoding="utf-8")
    facts = json.dumps(loaded.facts.as_json(), indent=2, ensure_ascii=False) + "\n"
    (folder / _FACTS_FILE).write_text(facts, encoding="utf-8")
    converted = convert_encoder(loaded)
    kept, is_int8 = quantized(
        converted,
        lambda: quantize_on(converted, _sample_batches(loaded), original),
        folder,
        loaded.facts.max_tokens,
        settings,
    )
    load_openvino().save_model(kept, folder / _IR_FILE, compress_to_fp16=False)
    describe(
        folder,
        read_card(original),
        version=model.version,
        source=model.source,
        quantization=model.quantization,
        is_int8=is_int8,
        family=kind.value,
    )


def _sample_batches(loaded: LoadedEncoder) -> list[TokenBatch]:
    """Make batches of one text each, so that no padding distorts the measured ranges."""
    return [
        loaded.inputs([text], task)
        for pair in islice(read_calibration_pairs(), _PAIRS)
        for text, task in zip(pair, (QUERY, DOCUMENT), strict=True)
    ]
