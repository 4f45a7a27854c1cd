"""A fingerprint follows names, content and recipe, and nothing else."""

from __future__ import annotations

from pathlib import Path

from rerank_sidecar.models.fingerprint import fingerprint


def test_fingerprint(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a").write_bytes(b"content")
        (folder / "b").write_bytes(b"more")
    files = {folder: [folder / "a", folder / "b"] for folder in (one, two)}
    first = fingerprint(one, files[one], "recipe")
    assert fingerprint(two, reversed(files[two]), "recipe") == first
    assert fingerprint(one, files[one], "other") != first
    assert fingerprint(one, files[one][:1], "recipe") != first
    (two / "b").write_bytes(b"less")
    assert fingerprint(two, files[two], "recipe") != first
