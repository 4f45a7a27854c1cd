"""Calls of a dialect over HTTP, without a socket, answered by the toy."""

import math
from collections.abc import Mapping
from typing import Any

import httpx

from tests.unit.api.toy_engine import Toy, client_of, engine_with, unready_engine


async def post(
    path: str, body: Mapping[str, Any], toy: Toy | None = None, **settings: object
) -> httpx.Response:
    async with client_of(engine_with(toy or Toy(), **settings)) as client:
        return await client.post(path, json=body)


async def get(path: str, *, is_ready: bool = True, **settings: object) -> httpx.Response:
    engine = engine_with(Toy(), **settings) if is_ready else unready_engine(**settings)
    async with client_of(engine) as client:
        return await client.get(path)


def unit(logit: float) -> float:
    """Where a logit lies in [0, 1]."""
    return 1 / (1 + math.exp(-logit))
