"""Names of encoded documents: the same exactly when the encoding is."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from pathlib import Path

from rerank_sidecar.batching.windows import WindowRules
from rerank_sidecar.types import LongDocumentPolicy

KEY_BYTES = 16

_FORMAT = "1"
"""To be raised when matrices are made otherwise, so that no stored one of before is found."""


def document_keys(model: str, rules: WindowRules) -> Callable[[str], bytes]:
    """Give the function from a document's text to its key, for a model and a way to cut windows.

    `model` names all that an encoding depends on besides the text, the rules and the processor.
    Keys are 16 bytes of keyed BLAKE2b.
    """
    if rules.policy is not LongDocumentPolicy.CHUNK:
        rules = replace(rules, overlap_tokens=0, max_windows=1)  # which do not matter then
    secret = blake2b(f"{_FORMAT}\n{model}\n{rules}\n{_processor()}".encode(), digest_size=32)
    salted = blake2b(digest_size=KEY_BYTES, key=secret.digest())

    def key(text: str) -> bytes:
        hashing = salted.copy()
        hashing.update(text.encode("utf-8", "surrogatepass"))
        return hashing.digest()

    return key


@cache
def _processor() -> str:
    # A folder may move to a machine whose instructions round otherwise; see docs/embedded-model.md.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    kinds = ("flags", "Features")  # as x86 and Arm call them
    return next((line for line in lines if line.startswith(kinds)), platform.machine())
