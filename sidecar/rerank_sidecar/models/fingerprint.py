"""Hashes that tell one set of model files from another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_SHOWN_DIGITS = 12


def fingerprint(folder: Path, files: Iterable[Path], recipe: str = "") -> str:
    """Hash the files' names within the folder, their bytes and a recipe with SHA-256, in hex."""
    digest = hashlib.sha256(recipe.encode())
    for path in sorted(files):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"\n{path.relative_to(folder).as_posix()} {content}".encode())
    return digest.hexdigest()


def short(digest: str) -> str:
    """Give the part of a hash that is shown as a model's version."""
    return digest[:_SHOWN_DIGITS]
