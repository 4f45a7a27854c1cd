"""Brings a model to this machine before it is served."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.families import find_family, owner_of
from rerank_sidecar.models.resolve import model_folder
from rerank_sidecar.settings import Settings


def pull_model(settings: Settings, *, prepare: bool = True) -> Path:
    """Download `settings.model` from the hub, convert it if asked, and give its folder.

    The hub client shows a progress bar while files arrive. With `prepare` the model is converted
    too, so that `serve` finds everything on disk. A folder that is here already is only converted.

    Raises:
        InvalidSetting: the model is built in or elsewhere, so there is nothing to pull.
        ModelUnavailable: the files cannot be had.
        ModelNotServable: they are no model that any family can run.
        MissingExtra: converting it needs a part of the package that is not installed.
    """
    if owner_of(settings.model) is not None:
        raise InvalidSetting(f"model: `{settings.model}` has no files to pull")
    if not prepare:
        return model_folder(settings)
    found = find_family(settings)
    folder = found.folder or model_folder(settings)
    found.family.prepare(folder, settings)
    return folder
