"""The models that need no download: `embedded`, which is in the package, and `lexical`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rerank_sidecar.errors import ModelUnavailable
from rerank_sidecar.models.fingerprint import fingerprint, short
from rerank_sidecar.models.servable import ServableModel

EMBEDDED = "embedded"
LEXICAL = "lexical"
BUILT_IN = frozenset({EMBEDDED, LEXICAL})

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
_FILES = ("model.json", "model.xml", "model.bin", "tokenizer.json")


def embedded_model(folder: Path = EMBEDDED_FOLDER) -> ServableModel:
    """Describe the late-interaction model that is shipped with the package.

    Raises:
        ModelUnavailable: the package was built without the model's files.
    """
    files = [folder / name for name in _FILES]
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise ModelUnavailable(f"the embedded model lacks {', '.join(missing)} in {folder}")
    manifest: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return ServableModel(
        version=short(fingerprint(folder, files)),
        source="built in",
        quantization="int8",
        model_path=folder / "model.xml",
        tokenizer_path=folder / "tokenizer.json",
        max_tokens=int(manifest["max_tokens"]),
        pad_token_id=int(manifest["pad_token_id"]),
        overlap_tokens=int(manifest["overlap_tokens"]),
        manifest=manifest,
    )
