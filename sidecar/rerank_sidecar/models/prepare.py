"""Makes a cross-encoder's folder ready to be served, and keeps the result in a cache on disk."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelNotServable
from rerank_sidecar.models.arithmetic import Arithmetic, wanted_arithmetic
from rerank_sidecar.models.checkpoint import Checkpoint, read_checkpoint
from rerank_sidecar.models.convert import convert_checkpoint, convert_tokenizer
from rerank_sidecar.models.cross_encoder_int8 import quantize_cross_encoder
from rerank_sidecar.models.engine_record import choose_at_conversion, recorded_choice
from rerank_sidecar.models.export_check import require_independent_rows
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.json_files import read_json_object
from rerank_sidecar.models.model_card import read_card
from rerank_sidecar.models.runtime import OpenVinoModel, load_openvino
from rerank_sidecar.models.servable import ModelFamily, ServableModel
from rerank_sidecar.models.weights import Weights, find_weights
from rerank_sidecar.settings import EngineChoice, Quantization, Settings

_LOG = logging.getLogger(__name__)

_CONVERTER_VERSION = 2
"""Counts up whenever the same files would be converted into a model with other scores."""

DESCRIPTION_FILE = "prepared.json"

_CONVERTED_FILES = ("model.xml", "model.bin", "tokenizer.json")

_UNFINISHED = ".unfinished-"

_ABANDONED_AFTER_S = 24 * 60 * 60
"""No conversion takes this long: what is still unfinished was left by a process that was killed."""

_CONFIGURATION_FILES = (
    *("config.json", "modules.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt"),
    *("*.model", "*.py"),
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a folder of the cache says of the converted model in it; languages are codes.

    `is_int8` tells in which form it was kept: where 8-bit products turn out to be slower, a model
    that may be quantised is kept in float32.
    """

    version: str
    source: str
    quantization: str
    licence: str
    languages: tuple[str, ...]
    is_int8: bool


def prepare_cross_encoder(
    folder: Path, name: str, source: str, settings: Settings
) -> ServableModel:
    """Convert and quantise the cross-encoder in `folder`, unless the cache has the result already.

    `name` is what requests will call it, `source` what `--model` takes to find it. The cache is
    keyed by the content of the files and by how they are converted, so a folder that was changed is
    converted anew, and so is one whose result in the cache is damaged. A finished folder appears
    there in one step: processes that convert the same model at once do not disturb each other.

    Raises:
        ModelUnavailable: the folder lacks files.
        ModelNotServable: it holds no cross-encoder that can be run.
        MissingExtra: torch, transformers or NNCF is needed and not installed.
        InvalidSetting: the cache folder cannot be written, or `engine` contradicts `quantize`.
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
        quantization=_quantization(settings),
        model_path=prepared / "model.xml",
        tokenizer_path=prepared / "tokenizer.json",
        max_tokens=checkpoint.max_tokens,
        activation=checkpoint.activation,
        pad_token_id=checkpoint.pad_token_id,
    )
    if _is_intact(prepared):
        _LOG.info("using %s as converted before, in %s", name, prepared)
    else:
        if prepared.exists():
            _LOG.warning("converting %s again: what is in %s is damaged or old", name, prepared)
        _build_in_one_step(prepared, checkpoint, weights, model, settings)
    return _with_arithmetic(model, prepared, settings)


def prepared_models_folder(settings: Settings) -> Path:
    """Give the folder under which every converted model has a folder of its own."""
    return settings.cache_dir.expanduser() / "models"


def read_prepared(folder: Path) -> Prepared:
    """Read what a folder of the cache says of its model, and check that its files are whole.

    Files are compared by size, which finds one that was cut short without reading it.

    Raises:
        ModelNotServable: the description is missing or broken, or a file has another size.
    """
    description = read_json_object(folder / DESCRIPTION_FILE)
    sizes_bytes = description.nested("sizes_bytes")
    for name in _CONVERTED_FILES:
        path = folder / name
        if not path.is_file() or path.stat().st_size != sizes_bytes.whole_number(name):
            raise ModelNotServable(f"{path} is not as long as {DESCRIPTION_FILE} says")
    return Prepared(
        version=description.required_text("version"),
        source=description.required_text("source"),
        quantization=description.required_text("quantization"),
        licence=description.text("licence") or "",
        languages=tuple(description.texts("languages")),
        is_int8=(description.text("weights") or description.text("quantization")) == "int8",
    )


def _with_arithmetic(model: ServableModel, prepared: Path, settings: Settings) -> ServableModel:
    arithmetic, why = wanted_arithmetic(settings), f"the setting engine={settings.engine.value}"
    if arithmetic is None:
        arithmetic, why = recorded_choice(
            prepared / "model.xml",
            model.max_tokens or 1,
            is_int8=read_prepared(prepared).is_int8,
        )
    elif settings.engine is EngineChoice.AUTO:
        why = f"quantize={settings.quantize.value} promises exact scores"
    return replace(model, arithmetic=arithmetic, arithmetic_reason=why)


def _is_intact(folder: Path) -> bool:
    try:
        read_prepared(folder)
    except ModelNotServable:
        return False
    return True


def _quantization(settings: Settings) -> str:
    """Give what happens to the weights: an engine that does not multiply int8 keeps them exact."""
    arithmetic = wanted_arithmetic(settings)
    is_exact = arithmetic is not None and not arithmetic.multiplies_int8
    return (Quantization.NONE if is_exact else Quantization.INT8).value


def _digest(checkpoint: Checkpoint, weights: Weights, settings: Settings) -> str:
    files = {*weights.files, *_configuration_files(checkpoint.folder)}
    recipe = f"converter {_CONVERTER_VERSION}, quantize {_quantization(settings)}"
    if wanted_arithmetic(settings) is Arithmetic.INT8:
        # Kept in int8 even where that is slower, unlike the folder that `auto` makes.
        recipe += ", always"
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
        _remove_abandoned(prepared.parent)
        unfinished = Path(tempfile.mkdtemp(dir=prepared.parent, prefix=_UNFINISHED))
    except OSError as error:
        raise InvalidSetting(f"cache_dir: cannot write to {settings.cache_dir}: {error}") from error
    try:
        is_int8 = _build(unfinished, checkpoint, weights, settings)
        _describe(unfinished, checkpoint, model, is_int8=is_int8)
        _move(unfinished, prepared)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_abandoned(models: Path) -> None:
    newest = time.time() - _ABANDONED_AFTER_S
    for folder in models.glob(f"{_UNFINISHED}*"):
        # Another process may be removing the same one.
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime < newest:
                shutil.rmtree(folder, ignore_errors=True)


def _move(unfinished: Path, prepared: Path) -> None:
    try:
        unfinished.rename(prepared)
    except OSError:
        # Another process was faster; what it made has the same name and so the same content.
        if _is_intact(prepared):
            return
        _remove_damaged(prepared)
        unfinished.rename(prepared)


def _remove_damaged(prepared: Path) -> None:
    """Move the folder away in one step before deleting it, so that no one sees a half of it."""
    aside = Path(tempfile.mkdtemp(dir=prepared.parent, prefix=_UNFINISHED))
    # Another process that found the same damage may have moved it already.
    with suppress(FileNotFoundError):
        prepared.rename(aside / prepared.name)
    shutil.rmtree(aside, ignore_errors=True)


def _build(folder: Path, checkpoint: Checkpoint, weights: Weights, settings: Settings) -> bool:
    """Write the converted model into a folder and tell whether it is int8."""
    _put_tokenizer(folder / "tokenizer.json", checkpoint, settings)
    scratch = folder / "onnx"
    if weights.is_onnx:
        model = _read_onnx(weights, scratch)
    else:
        model = convert_checkpoint(checkpoint, trust_remote_code=settings.trust_remote_code)
    require_independent_rows(model, checkpoint)
    model, is_int8 = _quantized(model, folder, checkpoint, settings)
    load_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)
    shutil.rmtree(scratch, ignore_errors=True)
    return is_int8


def _quantized(
    model: OpenVinoModel, folder: Path, checkpoint: Checkpoint, settings: Settings
) -> tuple[OpenVinoModel, bool]:
    """Give the model in the form to be kept, and whether that is int8."""
    if _quantization(settings) == Quantization.NONE.value:
        return model, False
    wanted = wanted_arithmetic(settings)
    int8 = quantize_cross_encoder(model, folder / "tokenizer.json", checkpoint)
    if wanted is None:
        wanted = choose_at_conversion(model, int8, checkpoint.max_tokens, folder)
    return (int8, True) if wanted.multiplies_int8 else (model, False)


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


def _describe(folder: Path, checkpoint: Checkpoint, model: ServableModel, *, is_int8: bool) -> None:
    card = read_card(checkpoint.folder)
    description = {
        "version": model.version,
        "source": model.source,
        "quantization": model.quantization,
        "weights": "int8" if is_int8 else "float32",
        "licence": card.licence,
        "languages": list(card.languages),
        "sizes_bytes": {name: (folder / name).stat().st_size for name in _CONVERTED_FILES},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
