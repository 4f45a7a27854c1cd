"""Where the turns of a large request stand in the scheduler's queue."""

from __future__ import annotations

import time
from typing import Any

from rerank_sidecar.batching.planner import BatchLimits
from rerank_sidecar.batching.scheduler import Scheduler
from rerank_sidecar.batching.tokenization import TextTokenizer
from rerank_sidecar.rerankers.base import RerankerInfo
from rerank_sidecar.rerankers.late_interaction import (
    LateInteractionConfig,
    LateInteractionReranker,
)
from rerank_sidecar.rerankers.reading import WindowLimits
from rerank_sidecar.score_kinds import ScoreKind
from tests.unit.rerankers.toy_models import ToyEncoder, bert_tokenizer, outcomes_of

RATE = 1000.0


class Recording(Scheduler):
    """Notes the places that are asked for; its model is believed to read 1000 tokens a second."""

    places: list[tuple[float, int]]

    @property
    def tokens_per_s(self) -> float:
        return RATE

    def submit(self, sequences: Any, finish: Any, **how: Any) -> Any:
        if how.get("since") is not None:
            self.places.append((how["since"], sum(map(len, sequences))))
        return super().submit(sequences, finish, **how)


async def test_each_turn_stands_where_it_would_on_an_idle_server() -> None:
    scheduler = Recording(ToyEncoder(), BatchLimits(64, 4, 0.1), workers=1)
    scheduler.places = []
    scheduler.start()
    try:
        info = RerankerInfo("toy", "1", "toy", ScoreKind.MAXSIM, "toy", "tests")
        config = LateInteractionConfig(WindowLimits(32))
        reranker = LateInteractionReranker(info, TextTokenizer(bert_tokenizer()), scheduler, config)
        begun = time.monotonic()
        outcomes = await outcomes_of(reranker, "sea", ["sea sea sea"] * 200)
        ended = time.monotonic()
    finally:
        await scheduler.close()
    assert len(outcomes) == 200
    assert len(scheduler.places) > 5
    assert begun <= scheduler.places[0][0] <= ended
    for (place, tokens), (after, _) in zip(scheduler.places, scheduler.places[1:], strict=False):
        assert abs(after - place - tokens / RATE) < 1e-6
