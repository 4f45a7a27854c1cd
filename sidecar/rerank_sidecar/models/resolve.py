"""Finds the files of what `--model` says: a folder here, or a model of the hub."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.models.builtin import BUILT_IN
from rerank_sidecar.models.hub import fetch_from_hub
from rerank_sidecar.settings import Settings


def model_folder(settings: Settings) -> Path:
    """Give the folder of `settings.model`, downloading what is not on disk yet; blocks.

    A folder that is called like a built-in model is reached as `./embedded`. The hub client shows
    a progress bar while files arrive.

    Raises:
        ModelUnavailable: the files cannot be had.
    """
    return _local_folder(settings.model) or fetch_from_hub(settings)


def source_of(settings: Settings) -> str:
    """Give what `--model` takes to find `settings.model` from anywhere: a hub id, or a full path.

    Raises:
        ModelUnavailable: it is the path of a folder that does not exist.
    """
    folder = _local_folder(settings.model)
    return settings.model if folder is None else str(folder)


def served_tables(settings: Settings) -> tuple[ModelTable, ...]:
    """Give what is to be served as tables; without any, `settings.model` is the only one.

    A folder's name then is what requests call it.

    Raises:
        ModelUnavailable: `settings.model` is the path of a folder that does not exist.
    """
    if settings.models:
        return settings.models
    folder = None if settings.model in BUILT_IN else _local_folder(settings.model)
    name = settings.model if folder is None else folder.name
    return (ModelTable(name=name, source=settings.model),)


def _local_folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if model.startswith((".", "/", "~")):
        raise ModelUnavailable(f"model folder {model} does not exist")
    return None
