"""NIM's switch `truncate`, over HTTP and as a parameter of KServe's requests."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from rerank_sidecar.errors import InvalidField
from rerank_sidecar.types import LongDocumentPolicy, Truncation, TruncationSide

_SIDES: Mapping[str, TruncationSide] = MappingProxyType(
    {"NONE": TruncationSide.RIGHT, "END": TruncationSide.RIGHT, "START": TruncationSide.LEFT}
)


def read_truncate(given: object, field: str) -> tuple[LongDocumentPolicy | None, Truncation]:
    """Say what becomes of over-long passages: NONE refuses them, END and START cut them.

    Unset is the model's own rule and not NONE, as NIM has it: Weaviate never sends the switch, and
    one long object would fail its whole search.

    Raises:
        InvalidField: it is none of these words.
    """
    if given is None:
        return None, Truncation()
    word = given.upper() if isinstance(given, str) else ""
    if word not in _SIDES:
        raise InvalidField(f"{field}: must be one of {', '.join(_SIDES)}", field)
    policy = LongDocumentPolicy.REJECT if word == "NONE" else LongDocumentPolicy.TRUNCATE
    return policy, Truncation(side=_SIDES[word])
