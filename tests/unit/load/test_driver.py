"""What is sent, when, and what of it counts."""

import asyncio
from collections.abc import Iterator

from rerank_sidecar.load.driver import Plan, drive
from rerank_sidecar.load.requests import LoadRequest
from rerank_sidecar.load.schedule import ClosedLoop, OpenLoop
from rerank_sidecar.load.targets import ANSWERED, Answer, Target


class Slow(Target):
    """Answers after a while and keeps count."""

    def __init__(self, latency_s: float, answer: Answer = ANSWERED) -> None:
        self.asked: list[str] = []
        self.most_at_once = 0
        self._now = 0
        self._latency_s = latency_s
        self._answer = answer

    async def ask(self, request: LoadRequest, timeout_s: float) -> Answer:
        self.asked.append(request.query)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await asyncio.sleep(self._latency_s)
        self._now -= 1
        return self._answer

    async def close(self) -> None:
        pass


def _requests() -> Iterator[LoadRequest]:
    number = 0
    while True:
        number += 1
        yield LoadRequest(str(number), ("a", "b"))


async def test_callers_wait_for_their_answers() -> None:
    target = Slow(0.01)
    measured = await drive(ClosedLoop(3), target, _requests(), Plan(0.3, 1.0))
    assert target.most_at_once == 3
    assert len(set(target.asked)) == len(target.asked)
    assert 0 < len(measured.samples) <= len(target.asked)
    assert measured.documents_per_s == 2 * measured.answered_per_s


async def test_a_rate_does_not_wait() -> None:
    target = Slow(1.0)
    measured = await drive(OpenLoop(100), target, _requests(), Plan(0.25, 2.0))
    assert target.most_at_once == len(target.asked) == len(measured.samples)
    assert all(sample.latency_s >= 0.99 for sample in measured.samples)


async def test_the_warm_up_does_not_count() -> None:
    target, plan = Slow(0.01), Plan(0.3, 1.0, warm_up_s=0.2)
    for load in (ClosedLoop(2), OpenLoop(200)):
        target.asked.clear()
        measured = await drive(load, target, _requests(), plan)
        assert 0 < len(measured.samples) < len(target.asked)
        assert all(sample.done_s >= plan.warm_up_s for sample in measured.samples)


async def test_a_refused_caller_holds_off() -> None:
    target = Slow(0.0, Answer("OVERLOADED", refused=True))
    seen: list[Answer] = []
    plan = Plan(0.25, 1.0)
    load = ClosedLoop(1)
    await drive(load, target, _requests(), plan, lambda sample: seen.append(sample.answer))
    assert 0 < len(target.asked) <= 4
    assert seen == [Answer("OVERLOADED", refused=True)] * len(target.asked)


async def test_the_moments_of_a_rate_follow_the_seed() -> None:
    due = []
    for seed in (1, 1, 2):
        plan = Plan(0.1, 1.0, seed=seed)
        measured = await drive(OpenLoop(100), Slow(0.0), _requests(), plan)
        due.append(sorted(sample.due_s for sample in measured.samples))
    assert due[0] == due[1] != due[2]
