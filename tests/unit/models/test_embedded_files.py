"""The embedded model's folder holds what its manifest says, with its licence, in its size."""

import hashlib
import json

from rerank_sidecar.models.builtin import EMBEDDED_FOLDER

MANIFEST = json.loads((EMBEDDED_FOLDER / "model.json").read_text("utf-8"))


def test_files_are_those_that_the_manifest_names() -> None:
    for name, digest in MANIFEST["files"].items():
        assert hashlib.sha256((EMBEDDED_FOLDER / name).read_bytes()).hexdigest() == digest
    assert {path.name for path in EMBEDDED_FOLDER.iterdir()} == {
        *MANIFEST["files"],
        "model.json",
        "LICENSE",
        "NOTICE",
    }


def test_size_and_licence() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED_FOLDER.iterdir()) <= 25_000_000
    assert "Apache License" in (EMBEDDED_FOLDER / "LICENSE").read_text("utf-8")
    assert MANIFEST["source"]["model"] in (EMBEDDED_FOLDER / "NOTICE").read_text("utf-8")
