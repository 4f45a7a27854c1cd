"""The order for a prompt: language models overlook what stands in the middle of a long one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Row = TypeVar("Row")


def lost_in_the_middle(ranked: Sequence[Row]) -> list[Row]:
    """Put the best row first, the second best last, and so on inwards; the worst is in the middle.

    `ranked` is best first and stays as it is. Liu et al., "Lost in the Middle: How Language Models
    Use Long Contexts", TACL 2024, https://arxiv.org/abs/2307.03172.
    """
    return [*ranked[::2], *reversed(ranked[1::2])]
