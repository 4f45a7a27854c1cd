"""Which documents a listwise model sees at a time: a window that slides from the back to the front.

Sun et al., "Is ChatGPT Good at Search? Investigating Large Language Models as Re-Ranking Agents",
EMNLP 2023, section 3.2: whatever is best in a window moves into the next one, which overlaps it,
and so on to the top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

Span = tuple[int, int]
"""Places in the present order, from 0: [start, end)."""


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """How many documents a window holds, how far it moves, how often it goes over all of them.

    `size` is at least 2, `step` from 1 to `size`, and `passes` at least 1.
    """

    size: int = 20
    step: int = 10
    passes: int = 1

    def spans(self, count: int) -> list[Span]:
        """Give every window over so many documents, in the order in which they are asked."""
        return list(self._slide(count)) * self.passes if count > 1 else []

    def affordable_spans(self, count: int, calls: int) -> list[Span]:
        """Give the windows that so many calls pay for; fewer than all leave the last documents out.

        Windows go from the back to the front. So with too few calls they begin further to the
        front: were they to begin at the back, they would stop before they reached the best.
        """
        passes = min(self.passes, calls)
        if count < 2 or passes == 0:
            return []
        reach = self.size + (calls // passes - 1) * self.step
        return list(self._slide(min(count, reach))) * passes

    def _slide(self, count: int) -> Iterator[Span]:
        for end in range(count, self.size, -self.step):
            yield end - self.size, end
        yield 0, min(count, self.size)
