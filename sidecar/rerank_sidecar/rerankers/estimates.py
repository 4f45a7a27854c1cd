"""How many tokens a text will have, told from its length alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

from rerank_sidecar.batching.windows import WindowRules, plan_windows

_CHARACTERS_PER_TOKEN = 4.0
_FIRST_WEIGHT = 1_000
_MOST_WEIGHT = 1_000_000


class Encoded(Protocol):
    """A text that was tokenised: `characters` of it became so many tokens as its length."""

    @property
    def characters(self) -> int:
        """How many code points were tokenised."""
        ...

    def __len__(self) -> int: ...


class TokenRatio:
    """Learns how many characters a token has from the texts that were tokenised; thread-safe.

    It starts from what English has, and the latest million tokens count most.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = float(_FIRST_WEIGHT)
        self._characters = _CHARACTERS_PER_TOKEN * _FIRST_WEIGHT
        self._tokens_per_character = 1 / _CHARACTERS_PER_TOKEN

    def learn(self, texts: Sequence[Encoded]) -> None:
        """Take texts into account that were tokenised."""
        characters = sum(text.characters for text in texts)
        tokens = sum(map(len, texts))
        with self._lock:
            self._characters += characters
            self._tokens += tokens
            if self._tokens > _MOST_WEIGHT:
                self._tokens /= 2
                self._characters /= 2
            self._tokens_per_character = self._tokens / self._characters

    def tokens(self, text: str) -> int:
        """Estimate how many tokens a text has, without special ones."""
        return round(len(text) * self._tokens_per_character)


def tokens_in_windows(tokens: int, capacity: int, rules: WindowRules, beside: int) -> int:
    """Add up what the windows of a text of so many tokens read, with so many `beside` in each."""
    ranges = plan_windows(tokens, capacity, rules).ranges
    return sum(end - start + beside for start, end in ranges)
