"""Fallbacks of toys, and who answered in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prometheus_client import REGISTRY

from rerank_sidecar.errors import RemoteUnavailable
from rerank_sidecar.rerankers.base import Outcome, Reranker, ScoreOptions
from rerank_sidecar.rerankers.fallback import FallbackConfig, FallbackReranker
from tests.unit.rerankers.toy_models import outcomes_of

DOWN = RemoteUnavailable("down", retry_after_s=0.0)
CONFIG = FallbackConfig(timeout_s=5.0, sticky_s=60.0, rest_s=60.0)


def fallback(*members: Reranker, **config: Any) -> FallbackReranker:
    info = replace(members[0].info, name="safe", family="fallback", keep_scores=False)
    return FallbackReranker(info, members, replace(CONFIG, **config))


async def answers(
    reranker: Reranker, query: str, texts: Sequence[str] = ("1", "2", "3"), **options: Any
) -> tuple[list[Outcome], str | None]:
    """Give the outcomes, and the name of the model that stood in, if one did."""
    asked = ScoreOptions(**options)
    found = await outcomes_of(reranker, query, texts, options=asked)
    stood_in = asked.meter.answered_by
    return found, None if stood_in is None else stood_in.name


def passed_over(member: str, reason: str) -> float:
    labels = {"model": "safe", "member": member, "reason": reason}
    return REGISTRY.get_sample_value("rerank_sidecar_fallbacks_total", labels) or 0.0
