"""Brings a model's files from the Hugging Face hub to this machine, and only those needed."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path

from rerank_sidecar.errors import ModelUnavailable, StartupError
from rerank_sidecar.models.checkpoint import is_causal
from rerank_sidecar.models.torch_device import choose_torch_engine
from rerank_sidecar.settings import Settings

_LOG = logging.getLogger(__name__)

_DESCRIPTION_FILES = (
    *("config.json", "modules.json", "sentence_bert_config.json", "artifact.metadata"),
    *("config_sentence_transformers.json", "generation_config.json", "README.md", "LICENSE*"),
    # The modules that sentence-transformers puts behind a transformer, weights and all.
    *("[0-9]_*/*.json", "[0-9]_*/*.safetensors", "[0-9]_*/*.bin"),
)
_ENCODER_FILES = ("artifact.metadata", "[0-9]_*/config.json")
"""Only encoders have these: Stanford's ColBERTs, and what sentence-transformers saves in parts."""

_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "*.model", "chat_template.jinja"),
)
_ONNX_FILES = ("onnx/model.onnx", "onnx/model.onnx?data*")
_SAFETENSORS_FILES = ("model*.safetensors", "model.safetensors.index.json")
_PICKLE_FILES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")

_ANSWER_TIMEOUT_S = 5.0
"""How long the hub may take to answer at all; downloads themselves have no such limit."""


def fetch_from_hub(settings: Settings) -> Path:
    """Give the folder with the files of `settings.model`, downloading what is not on disk yet.

    What is on disk is used when the hub cannot be reached. The disk cache is the hub client's own
    (`HF_HOME`), and so is the token for gated models (`HF_TOKEN`).

    Raises:
        ModelUnavailable: the files are not on disk and the hub cannot be reached or refuses.
    """
    _require_model_id(settings.model)
    if settings.offline:
        return _from_disk(settings, "the setting `offline` is on")
    try:
        names = _remote_files(settings)
    except ModelUnavailable:
        raise
    except Exception as error:  # noqa: BLE001 - which HTTP library raises depends on hub's version
        _LOG.debug("the hub cannot be reached", exc_info=error)
        return _from_disk(settings, f"the hub cannot be reached ({type(error).__name__})")
    return _download(settings, names)


def cached_folder(model_id: str, revision: str | None = None) -> Path | None:
    """Find a model in the hub client's disk cache, without asking the hub."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model_id, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def _require_model_id(model_id: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(model_id)
    except HFValidationError as error:
        raise ModelUnavailable(
            f"model {model_id!r} is neither a folder here, nor a valid hub id (owner/name), nor "
            "another source that docs/rerankers.md lists"
        ) from error


def _remote_files(settings: Settings) -> set[str]:
    from huggingface_hub import HfApi
    from huggingface_hub.utils import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    model = settings.model
    try:
        info = HfApi(library_name="rerank-sidecar").model_info(
            model, revision=settings.revision, timeout=_ANSWER_TIMEOUT_S
        )
    except GatedRepoError as error:
        refusal = f"model {model!r} is gated: accept its terms on the hub and set HF_TOKEN"
        raise ModelUnavailable(refusal) from error
    except RevisionNotFoundError as error:
        refusal = f"model {model!r} has no revision {settings.revision!r} on the hub"
        raise ModelUnavailable(refusal) from error
    except RepositoryNotFoundError as error:
        refusal = f"model {model!r} is not on the hub (a private one needs HF_TOKEN)"
        raise ModelUnavailable(refusal) from error
    return {sibling.rfilename for sibling in info.siblings or ()}


def _download(settings: Settings, names: Collection[str]) -> Path:
    from huggingface_hub import snapshot_download

    patterns = [*_DESCRIPTION_FILES, *_TOKENIZER_FILES]
    if settings.trust_remote_code:
        patterns.append("*.py")
    _LOG.info("fetching model %s from the hub", settings.model)
    fetch = partial(snapshot_download, settings.model, revision=settings.revision)
    try:
        for_torch = choose_torch_engine(settings) is not None
        if not for_torch and _ONNX_FILES[0] in names:
            # Language models run with torch everywhere.
            for_torch = is_causal(Path(fetch(allow_patterns=["config.json"])))
        folder = fetch(allow_patterns=[*patterns, *_weight_files(names, for_torch=for_torch)])
    except StartupError:
        raise
    except Exception as error:
        reason = f"the download failed ({type(error).__name__})"
        raise ModelUnavailable(_how_to_fetch(settings, reason)) from error
    return Path(folder)


def _weight_files(names: Collection[str], *, for_torch: bool) -> tuple[str, ...]:
    """Choose one form of the weights: the one that takes the least work to serve."""
    # An encoder's ONNX file lacks what comes behind the transformer.
    is_encoder = any(fnmatch.filter(names, each) for each in _ENCODER_FILES)
    if _ONNX_FILES[0] in names and not for_torch and not is_encoder:
        return _ONNX_FILES
    if fnmatch.filter(names, _SAFETENSORS_FILES[0]):
        return _SAFETENSORS_FILES
    return _PICKLE_FILES


def _from_disk(settings: Settings, reason: str) -> Path:
    folder = cached_folder(settings.model, settings.revision)
    if folder is None:
        raise ModelUnavailable(_how_to_fetch(settings, reason))
    _LOG.info("using model %s from disk because %s", settings.model, reason)
    return folder


def _how_to_fetch(settings: Settings, reason: str) -> str:
    return (
        f"model {settings.model!r} is not on disk and {reason}: run `rerank-sidecar models pull "
        f"{settings.model}` on a machine that reaches the hub, then copy its HF_HOME folder here, "
        "or copy the model's own folder and serve it with `--model PATH`"
    )
