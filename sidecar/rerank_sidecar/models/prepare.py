"""Makes a cross-encoder's folder ready to be served, and keeps the result in a cache on disk."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from rerank_sidecar.errors import ModelNotServable
from rerank_sidecar.models.arithmetic import Arithmetic, wanted_arithmetic
from rerank_sidecar.models.checkpoint import Checkpoint, read_checkpoint
from rerank_sidecar.models.convert import convert_checkpoint, convert_tokenizer
from rerank_sidecar.models.cross_encoder_int8 import quantize_cross_encoder
from rerank_sidecar.models.engine_record import choose_at_conversion, recorded_choice
from rerank_sidecar.models.export_check import require_independent_rows
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.model_card import read_card
from rerank_sidecar.models.onnx_graph import (
    OnnxSource,
    onnx_recipe,
    write_onnx_graph,
)
from rerank_sidecar.models.prepared import (
    GRAPH_FILE,
    TOKENIZER_FILE,
    build_in_one_step,
    describe,
    is_intact,
    prepared_models_folder,
    read_prepared,
)
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino
from rerank_sidecar.models.servable import ServableModel
from rerank_sidecar.models.weights import Weights, copy_files, find_weights
from rerank_sidecar.settings import EngineChoice, Quantization, Settings

_LOG = logging.getLogger(__name__)

_CONVERTER_VERSION = 2
"""Counts up whenever the same files would be converted into a model with other scores."""

_IR_FILE = "model.xml"

_CONFIGURATION_FILES = (
    *("config.json", "modules.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("*.model", "*.py"),
)


def prepare_cross_encoder(folder: Path, source: str, settings: Settings) -> ServableModel:
    """Convert and quantise the cross-encoder in `folder`, unless the cache has the result already.

    `source` is what `--model` takes to find it. The cache is keyed by the content of the files and
    by how they are converted, so a folder that was changed is converted anew, and so is one whose
    result in the cache is damaged. A finished folder appears there in one step: processes that
    convert the same model at once do not disturb each other.

    Raises:
        ModelUnavailable: the folder lacks files.
        ModelNotServable: it holds no cross-encoder that can be run.
        MissingExtra: torch, transformers, NNCF or ONNX Runtime is needed and not installed.
        InvalidSetting: the cache folder cannot be written, or `engine` contradicts `quantize`.
    """
    checkpoint = read_checkpoint(folder)
    weights = find_weights(folder)
    digest = _digest(checkpoint, weights, settings)
    prepared = prepared_models_folder(settings) / digest[:32]
    model = ServableModel(
        version=short(digest),
        source=source,
        quantization=kept_quantization(settings),
        model_path=prepared / (GRAPH_FILE if settings.engine.is_onnxruntime else _IR_FILE),
        tokenizer_path=prepared / TOKENIZER_FILE,
        max_tokens=checkpoint.max_tokens,
        activation=checkpoint.activation,
        pad_token_id=checkpoint.pad_token_id,
    )
    if is_intact(model.model_path):
        _LOG.info("using %s as converted before, in %s", source, prepared)
    else:
        if prepared.exists():
            _LOG.warning("converting %s again: what is in %s is damaged or old", source, prepared)
        build_in_one_step(
            model.model_path, lambda empty: _fill(empty, checkpoint, weights, model, settings)
        )
    return with_arithmetic(model, settings)


def with_arithmetic(model: ServableModel, settings: Settings) -> ServableModel:
    """Say what a converted model is to be run in, as the settings or this machine's speed tell."""
    arithmetic, why = wanted_arithmetic(settings), f"the setting engine={settings.engine.value}"
    if arithmetic is None:
        arithmetic, why = recorded_choice(
            model.model_path,
            model.max_tokens or 1,
            is_int8=read_prepared(model.model_path.parent).is_int8,
        )
    elif settings.engine is EngineChoice.AUTO:
        why = f"quantize={settings.quantize.value} promises exact scores"
    return replace(model, arithmetic=arithmetic, arithmetic_reason=why)


def kept_quantization(settings: Settings) -> str:
    """Give what happens to the weights: an engine that does not multiply int8 keeps them exact."""
    arithmetic = wanted_arithmetic(settings)
    is_exact = arithmetic is not None and not arithmetic.multiplies_int8
    return (Quantization.NONE if is_exact else Quantization.INT8).value


def _digest(checkpoint: Checkpoint, weights: Weights, settings: Settings) -> str:
    files = {*weights.files, *_configuration_files(checkpoint.folder)}
    recipe = f"converter {_CONVERTER_VERSION}, quantize {kept_quantization(settings)}"
    if settings.engine.is_onnxruntime:
        recipe = onnx_recipe(kept_quantization(settings))
    elif wanted_arithmetic(settings) is Arithmetic.INT8:
        # Kept in int8 even where that is slower, unlike the folder that `auto` makes.
        recipe += ", always"
    return fingerprint(checkpoint.folder, files, recipe)


def _configuration_files(folder: Path) -> Iterator[Path]:
    for pattern in _CONFIGURATION_FILES:
        yield from folder.glob(pattern)


def _fill(
    folder: Path,
    checkpoint: Checkpoint,
    weights: Weights,
    model: ServableModel,
    settings: Settings,
) -> None:
    """Write the converted model and what is to be known of it into a folder."""
    _put_tokenizer(folder / TOKENIZER_FILE, checkpoint, settings)
    scratch = folder / "scratch"
    scratch.mkdir()
    if settings.engine.is_onnxruntime:
        is_int8 = model.quantization == Quantization.INT8.value
        source = OnnxSource(checkpoint, weights, trust_remote_code=settings.trust_remote_code)
        write_onnx_graph(source, folder, scratch, is_int8=is_int8)
    else:
        is_int8 = _write_ir(folder, scratch, checkpoint, weights, settings)
    shutil.rmtree(scratch)
    describe(
        folder,
        read_card(checkpoint.folder),
        version=model.version,
        source=model.source,
        quantization=model.quantization,
        is_int8=is_int8,
    )


def _write_ir(
    folder: Path, scratch: Path, checkpoint: Checkpoint, weights: Weights, settings: Settings
) -> bool:
    """Write OpenVINO's files and tell whether they are int8."""
    if weights.is_onnx:
        model = _read_onnx(weights, scratch)
    else:
        model = convert_checkpoint(checkpoint, trust_remote_code=settings.trust_remote_code)
    require_independent_rows(model, checkpoint)
    model, is_int8 = quantized(
        model,
        partial(quantize_cross_encoder, model, folder / TOKENIZER_FILE, checkpoint),
        folder,
        checkpoint.max_tokens,
        settings,
    )
    load_openvino().save_model(model, folder / _IR_FILE, compress_to_fp16=False)
    return is_int8


def quantized(
    model: OpenVinoModel,
    quantize: Callable[[], OpenVinoModel],
    folder: Path,
    max_tokens: int,
    settings: Settings,
) -> tuple[OpenVinoModel, bool]:
    """Give a model in the form to be kept in a folder, and whether that is int8."""
    if kept_quantization(settings) == Quantization.NONE.value:
        return model, False
    wanted, int8 = wanted_arithmetic(settings), quantize()
    if wanted is None:
        wanted = choose_at_conversion(model, int8, max_tokens, folder)
    return (int8, True) if wanted.multiplies_int8 else (model, False)


def _read_onnx(weights: Weights, scratch: Path) -> OpenVinoModel:
    # OpenVINO refuses weights behind a link, and the hub client's cache is made of links.
    main = weights.main if len(weights.files) == 1 else copy_files(weights, scratch)
    try:
        return load_openvino().Core().read_model(main)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelNotServable(f"OpenVINO cannot read {weights.main}: {reason}") from error


def _put_tokenizer(path: Path, checkpoint: Checkpoint, settings: Settings) -> None:
    original = checkpoint.folder / "tokenizer.json"
    if original.is_file():
        shutil.copyfile(original, path)
    else:
        convert_tokenizer(checkpoint, path, trust_remote_code=settings.trust_remote_code)
