"""Searches in chunks: once begun they are finished, but not for ever and not by everybody."""

from itertools import count

import pytest

from rerank_sidecar.engine.admission import Admission, Newcomer
from rerank_sidecar.engine.ledger import Ticket
from rerank_sidecar.engine.searches import Chunk
from rerank_sidecar.errors import Overloaded
from rerank_sidecar.settings import Settings
from rerank_sidecar.types import Document, RerankOptions
from tests.unit.engine.toys import Model, ask, engine_over

PARTS = count()


def chunk(query: str, documents: int = 32) -> Chunk:
    return Chunk(query.encode(), next(PARTS), documents)


class Gate:
    """An admission on a clock of its own; a chunk of 32 documents takes 0.32 s."""

    def __init__(self, **settings: object) -> None:
        self.now = 100.0
        both = {**Settings().model_dump(), **settings}
        self.admission = Admission(Settings.model_validate(both), lambda: self.now)

    def admit(self, part: Chunk | None, timeout_s: float = 4.0, tokens: int = 320) -> Ticket:
        deadline = self.now + timeout_s
        return self.admission.admit(Newcomer("model", tokens, 1000.0, 0, deadline, part))

    def fill(self) -> list[Ticket]:
        """Let in all that fits, so that nothing else does."""
        tickets = []
        while True:
            try:
                tickets.append(self.admit(None, tokens=100))
            except Overloaded:
                return tickets

    def refuses(self, part: Chunk) -> bool:
        try:
            self.admit(part)
        except Overloaded:
            return True
        return False


def test_later_chunks_are_let_in_whatever_waits() -> None:
    gate = Gate()
    gate.admit(chunk("begun"))
    gate.fill()
    assert gate.refuses(chunk("new"))
    for _ in range(3):
        gate.admit(chunk("begun"))


def test_there_is_room_in_the_ledger_for_chunks_not_seen_yet() -> None:
    gate = Gate()
    gate.admit(chunk("search"))
    assert gate.admission.work_s == pytest.approx(4 * 0.32)
    gate.admit(chunk("search"))
    assert gate.admission.work_s == pytest.approx(4 * 0.32)
    for _ in range(4):
        gate.admit(chunk("search"))
    assert gate.admission.work_s == pytest.approx(6 * 0.32)


def test_a_small_chunk_lets_nothing_more_be_expected() -> None:
    gate = Gate()
    gate.admit(chunk("search", documents=4), tokens=40)
    assert gate.admission.work_s == pytest.approx(0.04)


def test_room_is_given_up_soon_after_the_last_answer() -> None:
    gate = Gate()
    ticket = gate.admit(chunk("search"))
    gate.now += 3
    assert gate.admission.work_s > 1
    ticket.close()
    assert gate.admission.work_s == pytest.approx(3 * 0.32)
    gate.now += 0.3
    assert gate.admission.work_s == 0
    gate.fill()
    gate.admit(chunk("search"))  # but the promise holds


def test_a_promise_ends_with_the_window() -> None:
    gate = Gate(search_window_s=5)
    gate.admit(chunk("search")).close()
    gate.now += 5.1
    gate.fill()
    assert gate.refuses(chunk("search"))


def test_a_promise_holds_while_a_chunk_is_being_answered() -> None:
    gate = Gate(search_window_s=5)
    gate.admit(chunk("search"), timeout_s=60)
    gate.now += 50
    gate.fill()
    gate.admit(chunk("search"))


def test_a_chunk_that_was_held_back_goes_first() -> None:
    gate = Gate()
    first = gate.admit(chunk("search"))
    assert gate.admit(chunk("search")).priority == first.priority == 0
    first.close()
    assert gate.admit(chunk("search")).priority == 1
    assert gate.admit(chunk("another")).priority == 0


def test_the_chunks_of_a_refused_search_are_refused_and_a_retry_is_not() -> None:
    gate = Gate()
    tickets = gate.fill()
    assert gate.refuses(chunk("search"))
    for ticket in tickets:
        ticket.close()
    assert gate.refuses(chunk("search"))
    gate.admit(chunk("another")).close()
    gate.now += 0.3
    gate.admit(chunk("search"))


def test_a_search_refused_for_its_short_time_does_not_refuse_one_with_more() -> None:
    gate = Gate()
    with pytest.raises(Overloaded, match="idle server"):
        gate.admit(chunk("search"), timeout_s=0.1)
    with pytest.raises(Overloaded, match="same search") as raised:
        gate.admit(chunk("search"), timeout_s=0.34)
    assert raised.value.retry_after_s == pytest.approx(0.25)
    gate.admit(chunk("search"), timeout_s=4.0)


def test_a_search_beyond_its_promise_goes_on_first() -> None:
    gate = Gate(search_window_s=5)
    first = gate.admit(chunk("search"), timeout_s=600, tokens=1)
    first.close()
    running = [gate.admit(chunk("search"), timeout_s=600, tokens=1) for _ in range(31)]
    begun_anew = gate.admit(chunk("search"), timeout_s=600, tokens=1)
    assert begun_anew.priority == running[0].priority == 1


def test_a_query_that_all_ask_for_ever_is_refused_like_any_other() -> None:
    gate = Gate()
    gate.admit(chunk("hot"))
    admitted = 0
    while not gate.refuses(chunk("hot")):
        admitted += 1
        assert admitted < 100
    assert admitted == 31
    assert gate.refuses(chunk("hot"))


def test_an_idle_server_goes_on_with_a_search_beyond_its_promise() -> None:
    gate = Gate()
    for _ in range(100):
        gate.admit(chunk("search")).close()


def test_the_usual_number_of_chunks_is_learned() -> None:
    gate = Gate()
    for number in range(40):
        for _ in range(2):
            gate.admit(chunk(f"search {number}")).close()
        gate.now += 6
    gate.admit(chunk("another"))
    assert gate.admission.work_s == pytest.approx(2 * 0.32, rel=0.01)


def test_chunks_that_come_again_are_not_learned_from() -> None:
    gate = Gate()
    twins = [chunk("search"), chunk("search")]
    for _ in range(40):
        for twin in twins * 4:
            gate.admit(twin).close()
        gate.now += 6
    gate.admit(chunk("another"))
    assert gate.admission.work_s == pytest.approx(2 * 0.32, rel=0.01)


def test_what_makes_a_search_and_a_part_of_it() -> None:
    ten, other = [Document("a")] * 10, [Document("b")] * 10
    first = Chunk.of("model", "query", ten, 10)
    assert Chunk.of("model", "query", ten, 10) == first
    assert Chunk.of("model", "query", other, 10).search == first.search
    assert Chunk.of("model", "query", other, 10).part != first.part
    assert Chunk.of("model", "another", ten, 10).search != first.search
    assert Chunk.of("another", "query", ten, 10).search != first.search


async def test_chunks_of_one_query_find_each_other_through_the_engine() -> None:
    model = Model()
    engine = engine_over(model)
    options = RerankOptions(is_chunk=True)
    await engine.rerank(ask("a", options=options))
    await engine.rerank(ask("bb", options=options))
    await engine.rerank(ask("bb", query="another", options=options))
    await engine.rerank(ask("ccc"))
    assert [how.priority for how in model.calls] == [0, 1, 0, 0]
