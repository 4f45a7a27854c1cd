"""Finds the weights of a model in its folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.models.json_files import read_json_object

_ONNX = Path("onnx", "model.onnx")
_TORCH = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class Weights:
    """The files that hold a model's weights; `is_onnx` says whether they hold its graph too."""

    files: tuple[Path, ...]
    is_onnx: bool

    @property
    def main(self) -> Path:
        """The file to open; the others belong to it."""
        return self.files[0]


def find_weights(folder: Path) -> Weights:
    """Find the weights that take the least work to serve: ONNX, else safetensors, else a pickle.

    Raises:
        ModelUnavailable: there are none, or a part of them is missing.
        ModelNotServable: the file that lists the parts is broken.
    """
    onnx = folder / _ONNX
    if onnx.is_file():
        return Weights((onnx, *sorted(onnx.parent.glob("model.onnx?data*"))), is_onnx=True)
    for name in _TORCH:
        if (folder / name).is_file():
            return Weights((folder / name,), is_onnx=False)
        if (folder / f"{name}.index.json").is_file():
            return Weights(_shards(folder, folder / f"{name}.index.json"), is_onnx=False)
    raise ModelUnavailable(f"{folder} has no weights: {_ONNX} or one of {', '.join(_TORCH)}")


def copy_files(weights: Weights, folder: Path) -> Path:
    """Copy a model's files, without links, into a folder, and give the one to open."""
    for path in weights.files:
        shutil.copyfile(path, folder / path.name)
    return folder / weights.main.name


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    shards = read_json_object(index).nested("weight_map")
    names = sorted({shards.required_text(weight) for weight in shards.values})
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelUnavailable(f"{folder} lacks {', '.join(missing)}: the download was cut short")
    return (index, *(folder / name for name in names))
