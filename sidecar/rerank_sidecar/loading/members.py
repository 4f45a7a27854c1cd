"""What the settings of combinations have in common: their members, and options that are lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rerank_sidecar.errors import InvalidSetting
from rerank_sidecar.loading.family import Loading
from rerank_sidecar.rerankers.base import Reranker


def check_members(loading: Loading, family: str, most: int | None = None) -> Sequence[Reranker]:
    """Give the members of a combination, of which there have to be at least two.

    Raises:
        InvalidSetting: there are fewer, or more than `most`.
    """
    count = len(loading.members)
    if count < 2 or (most is not None and count > most):
        wanted = "at least two" if most is None else str(most)
        raise InvalidSetting(
            f"members: {loading.name} is of the family {family}, which is made of {wanted} of the "
            f"other [[models]]; there are {count}"
        )
    return loading.members


def listed(given: Any) -> Any:  # noqa: ANN401 - whoever validates it says what it should be
    """Take a single value for a list of one, and split a text at its commas."""
    if isinstance(given, str):
        return [each.strip() for each in given.split(",")]
    return given if isinstance(given, list | tuple) else [given]
