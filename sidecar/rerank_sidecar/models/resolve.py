"""Turns what `--model` says into a model whose files are here and ready to be compiled."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.errors import InvalidSetting, ModelUnavailable
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.models.builtin import embedded_model, lexical_model
from rerank_sidecar.models.hub import fetch_from_hub
from rerank_sidecar.models.prepare import prepare_cross_encoder
from rerank_sidecar.models.servable import EMBEDDED, LEXICAL, ServableModel
from rerank_sidecar.settings import Settings


def resolve_model(settings: Settings) -> ServableModel:
    """Find, download and convert `settings.model`; blocks, for minutes if there is much to do.

    It may be `embedded`, `lexical`, a folder or a hub id, in this order. A folder that is called
    like a built-in model is reached as `./embedded`.

    Raises:
        ModelUnavailable: the files cannot be had.
        ModelNotServable: they are no cross-encoder that can be run.
        MissingExtra: converting it needs a part of the package that is not installed.
    """
    if settings.model == LEXICAL:
        return lexical_model()
    if settings.model == EMBEDDED:
        return embedded_model()
    folder = _local_folder(settings.model)
    if folder is not None:
        return prepare_cross_encoder(folder, folder.name, str(folder), settings)
    return prepare_cross_encoder(fetch_from_hub(settings), settings.model, settings.model, settings)


def served_tables(settings: Settings) -> tuple[ModelTable, ...]:
    """Give what is to be served as tables; without any, `settings.model` is the only one.

    It then has the name that `resolve_model` gives it.

    Raises:
        ModelUnavailable: `settings.model` is the path of a folder that does not exist.
    """
    if settings.models:
        return settings.models
    folder = None if settings.model in {EMBEDDED, LEXICAL} else _local_folder(settings.model)
    name = settings.model if folder is None else folder.name
    return (ModelTable(name=name, source=settings.model),)


def pull_model(settings: Settings, *, prepare: bool = True) -> Path:
    """Download `settings.model` from the hub, convert it if asked, and give its folder.

    The hub client shows a progress bar while files arrive. With `prepare` the model is converted
    too, so that `serve` finds everything on disk. A folder that is here already is only converted.

    Raises:
        InvalidSetting: the model is built in, so there is nothing to pull.
        ModelUnavailable: the files cannot be had.
        ModelNotServable: they are no cross-encoder that can be run.
        MissingExtra: converting it needs a part of the package that is not installed.
    """
    if settings.model in {EMBEDDED, LEXICAL}:
        raise InvalidSetting(f"model: `{settings.model}` is built in, there is nothing to pull")
    folder = _local_folder(settings.model) or fetch_from_hub(settings)
    if prepare:
        resolve_model(settings)
    return folder


def _local_folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if model.startswith((".", "/", "~")):
        raise ModelUnavailable(f"model folder {model} does not exist")
    return None
