"""Runs a model with torch on the devices that the settings name, and measures its batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from rerank_sidecar.backends.base import Backend
from rerank_sidecar.backends.fit import Make
from rerank_sidecar.backends.measure import MeasuredShape
from rerank_sidecar.backends.measure_gpu import measure_gpu_shape
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.errors import MissingExtra, ModelNotServable
from rerank_sidecar.loading.running import fit_to_cpu
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.torch_device import TorchEngine
from rerank_sidecar.settings import Settings

if TYPE_CHECKING:
    from rerank_sidecar.models.torch_checkpoint import TorchModel

_LOG = logging.getLogger(__name__)

_FILES = (
    *("*.json", "*.jinja", "*.safetensors", "*.bin", "*.model", "*.txt", "*.py"),
    *("*/*.json", "*/*.safetensors", "*/pytorch_model*.bin"),
)


def load_for_torch(folder: Path, settings: Settings) -> TorchModel:
    """Load a cross-encoder into memory; blocks.

    Raises:
        MissingExtra: torch or sentence-transformers is not installed.
        ModelNotServable: the model cannot be loaded, or is another.
    """
    try:
        from rerank_sidecar.models.torch_checkpoint import load_torch_model
    except ImportError as error:
        raise MissingExtra("torch", f"running {folder} with torch") from error
    return load_torch_model(folder, trust_remote_code=settings.trust_remote_code)


def fit_to_torch(
    model: TorchModel, engine: TorchEngine, settings: Settings
) -> tuple[Backend, MeasuredShape]:
    """Put a model on an engine's devices and fit its backend to the machine; blocks.

    On GPUs a worker for each of them, on a CPU the split of its cores that is fastest.

    Raises:
        ModelNotServable: the memory of a GPU has no room for it.
        BackendFailed: it fails as it runs.
    """
    from rerank_sidecar.backends.torch import TorchBackend
    from rerank_sidecar.backends.torch_program import programs_on

    programs = programs_on(engine, model)

    def make(workers: int, threads: int) -> Backend:
        return TorchBackend(programs, engine.dtype, workers=workers, threads_per_worker=threads)

    return fit_torch_backend(make, engine, settings, model.max_tokens)


def fit_torch_backend(
    make: Make, engine: TorchEngine, settings: Settings, max_tokens: int
) -> tuple[Backend, MeasuredShape]:
    """Fit a backend that torch runs to the machine.

    Raises:
        BackendFailed: it fails as it runs.
    """
    most_tokens, most_sequences = settings.max_batch_tokens, settings.max_batch_size
    if engine.is_cuda:
        backend = make(settings.workers or len(engine.devices), 1)
        backend.warm_up()
        shape = measure_gpu_shape(
            backend,
            max_tokens=max_tokens,
            max_batch_tokens=most_tokens,
            max_batch_size=most_sequences,
        )
        _give_back_memory()
        _LOG.info(
            "batches of up to %d tokens on each of %s; %s",
            *(shape.max_batch_tokens, ", ".join(engine.devices), shape.reason),
        )
        return backend, shape
    return fit_to_cpu(make, max_tokens, settings)


def _give_back_memory() -> None:
    """Let go of what the largest measured batch took, which no batch may take again."""
    import torch

    torch.cuda.empty_cache()


def tokenizer_of(model: TorchModel, folder: Path) -> TextTokenizer:
    """Give the tokenizer of a model that was loaded.

    Raises:
        ModelNotServable: it has no equal in the tokenizers library.
    """
    if not model.tokenizer.is_fast:
        raise ModelNotServable(f"{folder} has a tokenizer that is Python code alone")
    return TextTokenizer(Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str()))


def version_on_torch(folder: Path, recipe: str) -> str:
    """Name a folder's files and the way in which torch runs them: scores depend on both."""
    files = {path for pattern in _FILES for path in folder.glob(pattern)}
    return short(fingerprint(folder, files, f"torch, {recipe}"))
