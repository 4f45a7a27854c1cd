"""Makes a cross-encoder's folder ready to be served, and keeps the result in a cache on disk."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelNotServable
from rerank_sidecar.models.checkpoint import Checkpoint, read_checkpoint
from rerank_sidecar.models.convert import convert_checkpoint, convert_tokenizer
from rerank_sidecar.models.cross_encoder_int8 import quantize_cross_encoder
from rerank_sidecar.models.export_check import require_independent_rows
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.model_card import read_card
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino
from rerank_sidecar.models.servable import ModelFamily, ServableModel
from rerank_sidecar.models.weights import Weights, find_weights
from rerank_sidecar.settings import Quantization, Settings

_LOG = logging.getLogger(__name__)

_CONVERTER_VERSION = 1
"""Counts up whenever the same files would be converted into a model with other scores."""

DESCRIPTION_FILE = "prepared.json"

_CONFIGURATION_FILES = (
    *("config.json", "modules.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("*.model", "*.py"),
)


def prepare_cross_encoder(
    folder: Path, name: str, source: str, settings: Settings
) -> ServableModel:
    """Convert and quantise the cross-encoder in `folder`, unless the cache has the result already.

    `name` is what requests will call it, `source` what `--model` takes to find it. The cache is
    keyed by the content of the files and by how they are converted, so a folder that was changed is
    converted anew. A finished folder appears there in one step: processes that convert the same
    model at once do not disturb each other.

    Raises:
        ModelUnavailable: the folder lacks files.
        ModelNotServable: it holds no cross-encoder that can be run.
        MissingExtra: torch, transformers or NNCF is needed and not installed.
        InvalidSetting: the cache folder cannot be written.
    """
    checkpoint = read_checkpoint(folder)
    weights = find_weights(folder)
    digest = _digest(checkpoint, weights, settings)
    prepared = prepared_models_folder(settings) / digest[:32]
    model = ServableModel(
        name=name,
        version=short(digest),
        family=ModelFamily.CROSS_ENCODER,
        source=source,
        quantization=settings.quantize.value,
        model_path=prepared / "model.xml",
        tokenizer_path=prepared / "tokenizer.json",
        max_tokens=checkpoint.max_tokens,
        activation=checkpoint.activation,
        pad_token_id=checkpoint.pad_token_id,
    )
    if prepared.is_dir():
        _LOG.info("using %s as converted before, in %s", name, prepared)
    else:
        _build_in_one_step(prepared, checkpoint, weights, model, settings)
    return model


def prepared_models_folder(settings: Settings) -> Path:
    """Give the folder under which every converted model has a folder of its own."""
    return settings.cache_dir.expanduser() / "models"


def _digest(checkpoint: Checkpoint, weights: Weights, settings: Settings) -> str:
    files = {*weights.files, *_configuration_files(checkpoint.folder)}
    recipe = f"converter {_CONVERTER_VERSION}, quantize {settings.quantize.value}"
    return fingerprint(checkpoint.folder, files, recipe)


def _configuration_files(folder: Path) -> Iterator[Path]:
    for pattern in _CONFIGURATION_FILES:
        yield from folder.glob(pattern)


def _build_in_one_step(
    prepared: Path,
    checkpoint: Checkpoint,
    weights: Weights,
    model: ServableModel,
    settings: Settings,
) -> None:
    try:
        prepared.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=prepared.parent, prefix=".unfinished-"))
    except OSError as error:
        raise InvalidSetting(f"cache_dir: cannot write to {settings.cache_dir}: {error}") from error
    try:
        _build(unfinished, checkpoint, weights, settings)
        _describe(unfinished, checkpoint, model)
        _move(unfinished, prepared)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(unfinished: Path, prepared: Path) -> None:
    try:
        unfinished.rename(prepared)
    except OSError:
        # Another process was faster; what it made has the same name and so the same content.
        if not prepared.is_dir():
            raise


def _build(folder: Path, checkpoint: Checkpoint, weights: Weights, settings: Settings) -> None:
    _put_tokenizer(folder / "tokenizer.json", checkpoint, settings)
    scratch = folder / "onnx"
    if weights.is_onnx:
        model = _read_onnx(weights, scratch)
    else:
        model = convert_checkpoint(checkpoint, trust_remote_code=settings.trust_remote_code)
    require_independent_rows(model, checkpoint)
    if settings.quantize is Quantization.INT8:
        model = quantize_cross_encoder(model, folder / "tokenizer.json", checkpoint)
    load_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)
    shutil.rmtree(scratch, ignore_errors=True)


def _read_onnx(weights: Weights, scratch: Path) -> OpenVinoModel:
    main = weights.main
    if len(weights.files) > 1:
        # OpenVINO refuses weights behind a link, and the hub client's cache is made of links.
        scratch.mkdir()
        for path in weights.files:
            shutil.copyfile(path, scratch / path.name)
        main = scratch / main.name
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


def _describe(folder: Path, checkpoint: Checkpoint, model: ServableModel) -> None:
    card = read_card(checkpoint.folder)
    description = {
        "version": model.version,
        "source": model.source,
        "quantization": model.quantization,
        "licence": card.licence,
        "languages": list(card.languages),
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
