"""Whatever is loaded, unloaded, replaced and reloaded meanwhile: who was let in gets an answer."""

import asyncio
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rerank_sidecar.engine.engine import Engine
from rerank_sidecar.engine.repository import ModelRepository
from rerank_sidecar.errors import ModelNotFound, NotReady, RerankError
from rerank_sidecar.rerankers.lexical import LexicalReranker
from rerank_sidecar.settings import Settings, read_settings
from rerank_sidecar.types import Document, RerankOptions, RerankRequest
from tests.unit.engine.shelf import WAITS, Shelf, settled

LAZY, START, SOMETIMES = "lazy", "start", "sometimes"
"""A lazy model and one of the start are always served, a third one is in some of the files."""

NAMES = (LAZY, START, SOMETIMES)


def config(number: int) -> Settings:
    """Write one of several settings files: sources differ, and one model is not in all of them."""
    tables = [
        {"name": START, "source": f"s{number % 2}", "max_documents": 100 + number},
        {"name": LAZY, "source": f"l{number % 3}", "load": "lazy"},
    ]
    if number % 2:
        tables.append({"name": SOMETIMES, "source": "x", "load": "lazy"})
    return read_settings(None, models=tables)


NAME = st.sampled_from(NAMES)
STEP = st.one_of(
    st.tuples(st.just("ask"), NAME),
    st.tuples(st.just("hold"), NAME),  # a request that takes until the end
    st.tuples(st.just("load"), NAME),
    st.tuples(st.just("unload"), NAME),
    st.tuples(st.just("apply"), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.integers(1, 8)),
    st.tuples(st.just("leave"), st.integers(0, 30)),  # somebody gives up waiting
)


class World:
    """One run: an engine over a shelf, and the tasks of all who asked and administered."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.engine = Engine(config(1))
        self.repository = ModelRepository(self.shelf.load, LexicalReranker())
        self.asked: list[tuple[str, asyncio.Task[str]]] = []
        self.done: list[asyncio.Task[object]] = []
        self.unloaded: Counter[str] = Counter()

    async def run(self, steps: list[tuple[str, str | int]]) -> None:
        await self.repository.apply(config(1))
        self.engine.open(self.repository.registry)
        for what, about in steps:
            await self.take(what, about)
        self.shelf.released.set()
        self.check(await asyncio.gather(*(task for _, task in self.asked), return_exceptions=True))
        for outcome in await asyncio.gather(*self.done, return_exceptions=True):
            assert not isinstance(outcome, Exception) or isinstance(outcome, ModelNotFound)
        await settled()
        for name, made in self.shelf.models.items():
            assert len(self.shelf.open(name)) <= 1, f"{name}: {len(made)} were made"
        await self.repository.close()
        assert not any(self.shelf.open(name) for name in NAMES)

    async def take(self, what: str, about: str | int) -> None:
        if what == "pass":
            for _ in range(int(about)):
                await asyncio.sleep(0)
        elif what in {"ask", "hold"}:
            asking = self.ask(str(about), WAITS if what == "hold" else "text")
            self.asked.append((str(about), asyncio.create_task(asking)))
        elif what == "leave" and self.asked:
            self.asked[int(about) % len(self.asked)][1].cancel()
        elif what == "apply":
            self.done.append(asyncio.create_task(self.repository.apply(config(int(about)))))
        elif what == "load":
            self.done.append(asyncio.create_task(self.repository.load(str(about))))
        elif what == "unload":
            self.unloaded[str(about)] += 1
            self.done.append(asyncio.create_task(self.repository.unload(str(about))))

    async def ask(self, model: str, text: str) -> str:
        request = RerankRequest("q", (Document("x"), Document(text)), RerankOptions(model=model))
        result = await self.engine.rerank(request)
        errors = [each.error for each in result.results if each.error is not None]
        assert not errors, errors
        return result.summary.model.name

    def check(self, outcomes: list[str | BaseException]) -> None:
        for (name, _), outcome in zip(self.asked, outcomes, strict=True):
            if isinstance(outcome, RerankError):
                # Refused at the door, and for a reason: nobody in flight was dropped.
                is_gone = isinstance(outcome, ModelNotFound) and name == SOMETIMES
                is_unloaded = (
                    isinstance(outcome, NotReady)
                    and "has been unloaded" in outcome.message
                    and name == START
                    and self.unloaded[START]
                )
                assert is_gone or is_unloaded, repr(outcome)
            else:
                assert isinstance(outcome, asyncio.CancelledError) or outcome == name


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=40))
@example([("hold", START), ("pass", 3), ("load", START), ("pass", 8), ("unload", START)])
@example([("ask", LAZY), ("unload", LAZY), ("ask", LAZY), ("apply", 2), ("ask", LAZY)])
@example([("hold", SOMETIMES), ("pass", 8), ("apply", 2), ("ask", SOMETIMES), ("apply", 1)])
def test_nobody_who_was_let_in_is_dropped(steps: list[tuple[str, str | int]]) -> None:
    asyncio.run(World().run(steps))
