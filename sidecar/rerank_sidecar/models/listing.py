"""Lists what can be served from here: built in, on this machine's disk, or known on the hub."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from rerank_sidecar.errors import ModelNotServable, StartupError
from rerank_sidecar.models.builtin import EMBEDDED, EMBEDDED_FOLDER, LEXICAL
from rerank_sidecar.models.checkpoint import label_count
from rerank_sidecar.models.model_card import read_card
from rerank_sidecar.models.prepared import (
    CROSS_ENCODER,
    DESCRIPTION_FILE,
    GRAPH_FILE,
    prepared_models_folder,
    read_prepared,
)
from rerank_sidecar.models.weights import find_weights
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)


class ModelState(StrEnum):
    """How much is left to do before a model can answer."""

    BUILT_IN = "built in"
    CONVERTED = "converted"
    DOWNLOADED = "downloaded"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One model that can be served; `id` is what `--model` takes.

    `place` is the folder it lies in, or where it can be had. `size_bytes` is its size on disk,
    None for what is not here. `note` says what it is good for, or how it was converted.
    """

    id: str
    family: str
    state: ModelState
    place: str
    size_bytes: int | None = None
    licence: str = ""
    languages: tuple[str, ...] = ()
    note: str = ""


_RECOMMENDED = (
    (
        "BAAI/bge-reranker-v2-m3",
        ("multilingual",),
        "Korean, mixed and other text; 568 M parameters",
    ),
    ("cross-encoder/ms-marco-MiniLM-L6-v2", ("en",), "English, small and fast; 23 M parameters"),
    ("mixedbread-ai/mxbai-rerank-xsmall-v1", ("en",), "English; 71 M parameters"),
    ("Alibaba-NLP/gte-reranker-modernbert-base", ("en",), "English, long text; 149 M parameters"),
)


def list_models(settings: Settings, family_of: Callable[[Path], str | None]) -> list[ModelListing]:
    """List built-in models, then those on disk, then a few on the hub; asks no one over the net.

    A hub model that is on disk is listed once for each form: as converted, or else as downloaded.
    `family_of` names the family that a folder holds a model of, None if it holds none.
    """
    listings: list[ModelListing] = []
    for listing in chain(_built_in(), _converted(settings), _downloaded(family_of), _recommended()):
        is_new = all(listing.id != other.id for other in listings)
        if is_new or listing.state is ModelState.CONVERTED:
            listings.append(listing)
    return listings


def _built_in() -> Iterator[ModelListing]:
    yield ModelListing(
        id=EMBEDDED,
        family="late_interaction",
        state=ModelState.BUILT_IN,
        place=str(EMBEDDED_FOLDER),
        size_bytes=_size(EMBEDDED_FOLDER),
        licence="apache-2.0",
        languages=("en",),
        note="English and other Latin-script text",
    )
    yield ModelListing(
        id=LEXICAL,
        family="lexical",
        state=ModelState.BUILT_IN,
        place="code",
        size_bytes=0,
        licence="apache-2.0",
        note="any script, by words and characters; no model",
    )


def _converted(settings: Settings) -> Iterator[ModelListing]:
    for path in sorted(prepared_models_folder(settings).glob(f"[!.]*/{DESCRIPTION_FILE}")):
        try:
            prepared = read_prepared(path.parent)
        except ModelNotServable as error:
            _LOG.warning("left out a converted model that is damaged: %s", error)
            continue
        runtime = "ONNX Runtime" if GRAPH_FILE in prepared.files else "OpenVINO"
        yield ModelListing(
            id=prepared.source,
            family=prepared.family,
            state=ModelState.CONVERTED,
            place=str(path.parent),
            size_bytes=_size(path.parent),
            licence=prepared.licence,
            languages=prepared.languages,
            note=f"version {prepared.version}, quantize {prepared.quantization}, {runtime}",
        )


def _downloaded(family_of: Callable[[Path], str | None]) -> Iterator[ModelListing]:
    from huggingface_hub import CacheNotFound, constants, scan_cache_dir

    try:
        repositories = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda each: str(each.repo_id)):
        newest = max(repository.revisions, key=lambda each: each.last_modified, default=None)
        family = None if newest is None else family_of(newest.snapshot_path)
        if newest is not None and family is not None and _is_whole(newest.snapshot_path):
            card = read_card(newest.snapshot_path)
            yield ModelListing(
                id=repository.repo_id,
                family=family,
                state=ModelState.DOWNLOADED,
                place=str(newest.snapshot_path),
                size_bytes=newest.size_on_disk,
                licence=card.licence,
                languages=card.languages,
            )


def _is_whole(folder: Path) -> bool:
    """Tell whether weights are there, and a classifier has the one label that ranking needs."""
    try:
        find_weights(folder)
        return label_count(folder) in {None, 1}
    except StartupError:
        return False


def _recommended() -> Iterator[ModelListing]:
    for model_id, languages, note in _RECOMMENDED:
        yield ModelListing(
            id=model_id,
            family=CROSS_ENCODER,
            state=ModelState.HUB,
            place=f"https://huggingface.co/{model_id}",
            licence="apache-2.0",
            languages=languages,
            note=note,
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
