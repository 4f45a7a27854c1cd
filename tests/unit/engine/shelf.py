"""A shelf of toy models: what loads them is told how to behave, and remembers what it did."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from rerank_sidecar.engine.instance import LoadedModel
from rerank_sidecar.model_settings import ModelTable
from rerank_sidecar.rerankers.base import (
    IndexedDocuments,
    Outcome,
    Reranker,
    RerankerInfo,
    ScoreOptions,
)
from rerank_sidecar.score_kinds import ScoreKind
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, Score

WAITS = "wait"


class ShelfModel:
    """Scores every document alike until it is closed; after that it fails.

    The document "wait" waits for `released`. `number` counts how often its name was loaded.
    """

    def __init__(self, name: str, number: int, comparable: bool, released: asyncio.Event) -> None:
        self.number = number
        self.is_closed = False
        self.released = released
        self.waiting = asyncio.Event()
        self.seen: list[ScoreOptions] = []
        self.info = RerankerInfo(
            name=name,
            version=str(number),
            family="toy",
            score_kind=ScoreKind.PROBABILITY,
            engine="python",
            source="shelf",
            max_tokens=512,
            comparable_across_requests=comparable,
            keep_scores=False,
        )

    @property
    def tokens_per_s(self) -> float:
        return math.inf

    def estimate_tokens(
        self, query: str, documents: Sequence[Document], options: ScoreOptions
    ) -> int:
        return 0

    async def score(
        self, query: str, documents: AsyncIterator[IndexedDocuments], options: ScoreOptions
    ) -> AsyncGenerator[tuple[int, Outcome], None]:
        self.seen.append(options)
        async for group in documents:
            for index, document in group:
                if document.text == WAITS:
                    self.waiting.set()
                    await self.released.wait()
                await asyncio.sleep(0)
                assert not self.is_closed, "closed while a request was using it"
                yield index, Score(0.5)


class Shelf:
    """Loads toys by the source of their table; `models` has all that it ever made, by name.

    No load is done while `gate` is not set. A source in `faults` raises what it maps to; one that
    begins with "listwise" has scores that cannot be compared across requests. `members` has those
    that a combination was last loaded with.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.released = asyncio.Event()
        self.faults: dict[str, Exception] = {}
        self.begun: Counter[str] = Counter()
        self.models: dict[str, list[ShelfModel]] = {}
        self.settings: list[Settings] = []
        self.members: dict[str, list[str]] = {}

    async def load(
        self, table: ModelTable, settings: Settings, members: Sequence[Reranker] = ()
    ) -> LoadedModel:
        self.begun[table.name] += 1
        self.settings.append(settings)
        self.members[table.name] = [f"{each.info.name} {each.info.version}" for each in members]
        await asyncio.sleep(0)
        await self.gate.wait()
        if settings.model in self.faults:
            raise self.faults[settings.model]
        made = self.models.setdefault(table.name, [])
        comparable = not settings.model.startswith("listwise")
        model = ShelfModel(table.name, len(made) + 1, comparable, self.released)
        made.append(model)

        async def close() -> None:
            await asyncio.sleep(0)
            model.is_closed = True

        return LoadedModel(model, close)

    def open(self, name: str) -> list[int]:
        """Tell which instances of a model have not been closed."""
        return [each.number for each in self.models.get(name, []) if not each.is_closed]


async def settled() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)
