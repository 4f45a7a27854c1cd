"""The cache of converted models on disk: each in a folder that appears there in one step."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelNotServable
from rerank_sidecar.models.json_files import read_json_object
from rerank_sidecar.models.model_card import Card
from rerank_sidecar.settings import Settings

DESCRIPTION_FILE = "prepared.json"
TOKENIZER_FILE = "tokenizer.json"
GRAPH_FILE = "model.onnx"
"""What ONNX Runtime runs; OpenVINO's files have names of their own."""

CROSS_ENCODER = "cross_encoder"

_MODEL_FILES = "model.*"

_UNFINISHED = ".unfinished-"

_ABANDONED_AFTER_S = 24 * 60 * 60
"""No conversion takes this long: what is still unfinished was left by a process that was killed."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a folder of the cache says of the converted model in it; languages are codes.

    `is_int8` tells in which form it was kept: where 8-bit products turn out to be slower, a model
    that may be quantised is kept in float32. `files` are those that it consists of.
    """

    version: str
    source: str
    quantization: str
    family: str
    licence: str
    languages: tuple[str, ...]
    is_int8: bool
    files: frozenset[str]


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
    for name in sizes_bytes.values:
        path = folder / name
        if not path.is_file() or path.stat().st_size != sizes_bytes.whole_number(name):
            raise ModelNotServable(f"{path} is not as long as {DESCRIPTION_FILE} says")
    return Prepared(
        version=description.required_text("version"),
        source=description.required_text("source"),
        quantization=description.required_text("quantization"),
        family=description.text("family") or CROSS_ENCODER,
        licence=description.text("licence") or "",
        languages=tuple(description.texts("languages")),
        is_int8=(description.text("weights") or description.text("quantization")) == "int8",
        files=frozenset(sizes_bytes.values),
    )


def describe(  # noqa: PLR0913 - each is a fact of its own
    folder: Path,
    card: Card,
    *,
    version: str,
    source: str,
    quantization: str,
    is_int8: bool,
    family: str = CROSS_ENCODER,
) -> None:
    """Write down what the model in a folder is and how long its files are."""
    files = [*sorted(folder.glob(_MODEL_FILES)), folder / TOKENIZER_FILE]
    description = {
        "version": version,
        "source": source,
        "quantization": quantization,
        "family": family,
        "weights": "int8" if is_int8 else "float32",
        "licence": card.licence,
        "languages": list(card.languages),
        "sizes_bytes": {path.name: path.stat().st_size for path in files},
    }
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    (folder / DESCRIPTION_FILE).write_text(text, encoding="utf-8")


def is_intact(model_path: Path) -> bool:
    """Tell whether a converted model is there with all of its files."""
    try:
        files = read_prepared(model_path.parent).files
    except ModelNotServable:
        return False
    return {model_path.name, TOKENIZER_FILE} <= files


def build_in_one_step(model_path: Path, build: Callable[[Path], None]) -> None:
    """Have a model's folder filled under another name and then put into its place.

    Processes that build the same model at once do not disturb each other.

    Raises:
        InvalidSetting: the cache folder cannot be written.
    """
    prepared = model_path.parent
    try:
        prepared.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(prepared.parent)
        unfinished = Path(tempfile.mkdtemp(dir=prepared.parent, prefix=_UNFINISHED))
    except OSError as error:
        raise InvalidSetting(
            f"cache_dir: cannot write to {prepared.parent.parent}: {error}"
        ) from error
    try:
        build(unfinished)
        _move(unfinished, model_path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_abandoned(models: Path) -> None:
    newest = time.time() - _ABANDONED_AFTER_S
    for folder in models.glob(f"{_UNFINISHED}*"):
        # Another process may be removing the same one.
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime < newest:
                shutil.rmtree(folder, ignore_errors=True)


def _move(unfinished: Path, model_path: Path) -> None:
    prepared = model_path.parent
    try:
        unfinished.rename(prepared)
    except OSError:
        # Another process was faster; what it made has the same name and so the same content.
        if is_intact(model_path):
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
